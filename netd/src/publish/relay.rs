//! Published ports where the kernel cannot redirect: at `[::1]`, and at the host's IPv6 addresses for a container that has
//! IPv4 only. What arrives at a port's own socket there is copied to the container and back.
//!
//! ```text
//! engine --orders, eventfd--> thread "netd-relay"     started with the first such port; one for all of them
//!                             epoll: ports, streams (two sockets each), flows (UDP: a socket a client)
//! ```
//! The thread owns everything but the ports' sockets, which it shares with [`super::Ports`]. Bytes of streams stay in the
//! kernel (splice(2)). Connections are bounded in number, each port has a share of them, and they end with netd or with the port; netd's successor listens
//! again.

mod datagrams;
mod port;
mod ready;
mod stream;
mod worker;

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::thread;

use ipnet::IpNet;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};
use rustix::io::ioctl_fionbio;

use crate::firewall::Transport;
use worker::Worker;

/// Connections that wait to be accepted, a port.
const BACKLOG: i32 = 128;
/// Bytes of datagrams that wait to be read, a port.
const RECEIVE: usize = 212_992;

/// A port by what it is bound to.
pub type Key = (Transport, SocketAddrV6);

/// Who is not answered: containers of networks that lead nowhere, which no published port of another network is open to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    /// Their subnets.
    pub subnets: Vec<IpNet>,
    /// The indices of their bridges, which tell link-local addresses apart, and who comes with an address of others.
    pub bridges: Vec<u32>,
}

impl Refused {
    /// Whether a peer is one of them, who came by an interface (0: it is not known).
    fn holds(&self, peer: &SocketAddrV6, by: u32) -> bool {
        let local = peer.ip().is_unicast_link_local() && self.bridges.contains(&peer.scope_id());
        local
            || self.bridges.contains(&by)
            || self.subnets.iter().any(|net| net.contains(&IpAddr::V6(*peer.ip())))
    }
}

#[derive(Debug)]
enum Order {
    /// Answer at this port, by copying to `to`; without it nobody is there, and who comes is reset.
    Serve { key: Key, socket: Arc<OwnedFd>, to: Option<SocketAddr> },
    /// End what goes on at these ports and let go of their sockets; `done` is dropped then.
    Leave { keys: Vec<Key>, done: mpsc::Sender<()> },
    /// Do not answer these.
    Refuse(Refused),
}

/// What the engine has of the thread.
#[derive(Debug, Default)]
pub struct Relay {
    running: Option<Running>,
    refused: Refused,
}

#[derive(Debug)]
struct Running {
    orders: mpsc::Sender<Order>,
    wake: Arc<EventFd>,
    thread: thread::JoinHandle<()>,
}

impl Relay {
    /// Has a port answered, from now on by `to`. What another target was asked ends.
    pub fn serve(&mut self, key: Key, socket: &Arc<OwnedFd>, to: Option<SocketAddr>) -> io::Result<()> {
        ioctl_fionbio(socket, true)?;
        if key.0 == Transport::Udp {
            setsockopt(socket, sockopt::RcvBuf, &RECEIVE)?;
            // The answer comes from the address that was asked.
            setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            // Accepted sockets inherit it: what is left of them after a kill does not keep a successor from binding, and
            // a listening socket is exclusive all the same.
            setsockopt(socket, sockopt::ReuseAddr, &true)?;
            stream::prepare(socket)?;
            listen(socket, Backlog::new(BACKLOG)?)?;
        }
        if self.running.is_none() {
            self.running = Some(start()?);
            self.order(Order::Refuse(self.refused.clone()));
        }
        self.order(Order::Serve { key, socket: socket.clone(), to });
        Ok(())
    }

    /// Has ports answered no more, and waits until their sockets are let go of, so that whoever is told that a port is free
    /// can have it. The thread looks for orders between any two things that it does: that is milliseconds.
    pub fn leave(&self, keys: Vec<Key>) {
        if keys.is_empty() {
            return;
        }
        let (done, gone) = mpsc::channel();
        self.order(Order::Leave { keys, done });
        // It is told by its being dropped.
        let _ = gone.recv();
    }

    /// Says who is not answered.
    pub fn refuse(&mut self, refused: Refused) {
        if self.refused != refused {
            self.refused = refused;
            self.order(Order::Refuse(self.refused.clone()));
        }
    }

    /// Ends the thread; the next port starts another.
    pub fn end(&mut self) {
        let Some(Running { orders, wake, thread }) = self.running.take() else { return };
        drop(orders);
        // It ends when it looks for orders. One that ended before is gone already.
        if wake.write(1).is_ok() {
            let _ = thread.join();
        }
    }

    fn order(&self, order: Order) {
        let Some(Running { orders, wake, .. }) = &self.running else { return };
        if orders.send(order).is_err() || wake.write(1).is_err() {
            tracing::error!("nothing answers published ports at ::1 any more; a restart of netd mends it");
        }
    }
}

fn start() -> io::Result<Running> {
    let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
    let (orders, queue) = mpsc::channel();
    let mut worker = Worker::new(queue, wake.clone())?;
    let thread = thread::Builder::new().name("netd-relay".into()).stack_size(128 << 10);
    Ok(Running { orders, wake, thread: thread.spawn(move || worker.run())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_that_lead_nowhere_are_known_by_subnet_or_bridge() {
        let refused = Refused { subnets: vec!["fd01::/64".parse().unwrap()], bridges: vec![7] };
        let peer = |ip: &str, scope| SocketAddrV6::new(ip.parse().unwrap(), 1, 0, scope);
        assert!(refused.holds(&peer("fd01::2", 0), 0) && refused.holds(&peer("fe80::2", 7), 0));
        assert!(!refused.holds(&peer("::1", 0), 0) && !refused.holds(&peer("fe80::2", 8), 8));
        assert!(!refused.holds(&peer("fd02::2", 0), 8) && refused.holds(&peer("fd02::2", 0), 7));
    }
}
