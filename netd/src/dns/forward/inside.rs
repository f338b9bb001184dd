//! Sandboxes whose own servers are asked from inside: with their addresses, routes and firewall.
//!
//! A socket to such a server is opened by a thread that visits the namespace. Which one that is, the socket tells on which the
//! sandbox is served, so there is nothing to keep for a sandbox that asks nothing. Everything that is learned there, answers
//! too, is the sandbox's own: the same address may be another server in the next one.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use davit_sys::netns;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use slab::Slab;

use crate::dns::nameserver::{NameServer, Zone};

/// Sockets that are opened in one sandbox within a second: each costs a thread, and whoever serves the answers decides how
/// long one is good for.
const VISITS: u32 = 100;
const SECOND: u64 = 1000;

/// From where a server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The namespace that netd runs in.
    Host,
    /// Inside of a sandbox.
    Inside(usize),
}

/// A server, as it is seen from somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// From where.
    pub from: Origin,
    /// Which.
    pub server: NameServer,
    /// Its port.
    pub port: u16,
}

impl Upstream {
    /// What a socket is connected to.
    pub fn at(&self) -> SocketAddr {
        self.server.at(self.port)
    }

    /// Whether it is asked from inside of a sandbox.
    pub fn is_inside(&self) -> bool {
        self.from != Origin::Host
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.server)
    }
}

#[derive(Debug)]
struct Inside {
    /// The socket on which the sandbox is served, and by which its namespace is found.
    door: Arc<UdpSocket>,
    servers: Arc<[NameServer]>,
    /// What tells its questions and answers from those of others.
    set: u32,
    since: u64,
    visits: u32,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Insides {
    all: Slab<Inside>,
}

impl Insides {
    /// A sandbox is served on `door`, and has servers of its own.
    pub fn enter(&mut self, door: Arc<UdpSocket>, servers: Arc<[NameServer]>, set: u32) -> usize {
        self.all.insert(Inside { door, servers, set, since: 0, visits: 0 })
    }

    /// What was learned of its servers does not hold any more.
    pub fn renew(&mut self, at: usize, servers: Arc<[NameServer]>, set: u32) {
        if let Some(inside) = self.all.get_mut(at) {
            (inside.servers, inside.set) = (servers, set);
        }
    }

    /// Forgets a sandbox.
    pub fn leave(&mut self, at: usize) {
        self.all.try_remove(at);
    }

    /// The number of its set of servers.
    pub fn set(&self, at: usize) -> u32 {
        self.all.get(at).map_or(0, |i| i.set)
    }

    /// Its servers.
    pub fn servers(&self, at: usize) -> &[NameServer] {
        self.all.get(at).map_or(&[], |i| &i.servers)
    }

    /// A socket that asks from where the server is asked, by the interface that leads there; not connected yet.
    pub fn open(&mut self, upstream: Upstream, kind: SockType, now: u64) -> io::Result<OwnedFd> {
        let family = if upstream.server.ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let open = || socket(family, kind, flags, None);
        let fd = match upstream.from {
            Origin::Host => open()?,
            Origin::Inside(at) => {
                let inside = self.all.get_mut(at).ok_or(io::ErrorKind::NotConnected)?;
                inside.count(now)?;
                let netns = netns::of_socket(inside.door.as_fd()).map_err(io::Error::other)?;
                netns::visit(netns.as_fd(), open).map_err(io::Error::other)??
            }
        };
        // The kernel looks the name up in the socket's own namespace.
        if let Some(name) = upstream.server.zone.as_ref().and_then(Zone::name) {
            setsockopt(&fd, sockopt::BindToDevice, &name.into())?;
        }
        Ok(fd)
    }
}

impl Inside {
    fn count(&mut self, now: u64) -> io::Result<()> {
        if self.since + SECOND <= now {
            (self.since, self.visits) = (now, 0);
        }
        if self.visits >= VISITS {
            return Err(io::Error::other("it wants too many sockets"));
        }
        self.visits += 1;
        Ok(())
    }
}
