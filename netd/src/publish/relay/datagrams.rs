//! UDP: a socket towards the container for each client, until nobody has said anything for a while.

use std::collections::HashMap;
use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recv, recvmsg, send, sendmsg,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use slab::Slab;

use super::Refused;

/// How long a client may be silent; the same as docker's.
pub const IDLE: Duration = Duration::from_secs(90);
/// The largest datagram.
const LARGEST: usize = 65_535;

/// Who asks, at which port, and at which address of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client {
    pub port: usize,
    pub peer: SocketAddrV6,
    local: [u8; 16],
    interface: u32,
}

/// A datagram that was read.
#[derive(Debug, Clone, Copy)]
pub struct Arrived {
    pub client: Client,
    /// The index of the interface that it came by.
    pub by: u32,
    len: usize,
}

#[derive(Debug)]
struct Flow {
    client: Client,
    by: u32,
    socket: OwnedFd,
    last: Instant,
}

/// All clients, and the memory that datagrams are read into.
#[derive(Debug)]
pub struct Flows {
    all: Slab<Flow>,
    by_client: HashMap<Client, usize>,
    buffer: Box<[u8]>,
    most: usize,
}

impl Flows {
    /// For at most this many clients.
    pub fn new(most: usize) -> Self {
        let buffer = vec![0; LARGEST].into_boxed_slice();
        Self { all: Slab::new(), by_client: HashMap::new(), buffer, most }
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Reads a datagram that came to a port; `None` when there is none.
    pub fn receive(&mut self, port: usize, socket: &OwnedFd) -> Result<Option<Arrived>, Errno> {
        let mut space = nix::cmsg_space!(libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(&mut self.buffer)];
        let got =
            recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
        let asked = got.cmsgs()?.find_map(|c| match c {
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(info),
            _ => None,
        });
        let Some((peer, asked)) = got.address.zip(asked) else { return Ok(None) };
        let peer = SocketAddrV6::new(peer.ip(), peer.port(), 0, peer.scope_id());
        // Only on one link an address needs its interface; otherwise the routes decide, as for any answer.
        let near = peer.ip().is_unicast_link_local() || asked.ipi6_addr.s6_addr[..2] == [0xfe, 0x80];
        let interface = if near { asked.ipi6_ifindex } else { 0 };
        let client = Client { port, peer, local: asked.ipi6_addr.s6_addr, interface };
        Ok(Some(Arrived { client, by: asked.ipi6_ifindex, len: got.bytes }))
    }

    /// Sends what was read last to the container. Answers the number of the client's socket when it is new.
    pub fn forward(
        &mut self,
        arrived: Arrived,
        to: SocketAddr,
        now: Instant,
    ) -> Result<Option<usize>, Errno> {
        let (at, new) = match self.by_client.get(&arrived.client) {
            Some(at) => (*at, false),
            None => (self.open(arrived, to, now)?, true),
        };
        let flow = &mut self.all[at];
        (flow.last, flow.by) = (now, arrived.by);
        let out = || send(flow.socket.as_raw_fd(), &self.buffer[..arrived.len], MsgFlags::MSG_DONTWAIT);
        // What is told of an earlier datagram is not this one's.
        if out() == Err(Errno::ECONNREFUSED) {
            let _ = out();
        }
        Ok(new.then_some(at))
    }

    fn open(&mut self, arrived: Arrived, to: SocketAddr, now: Instant) -> Result<usize, Errno> {
        let Arrived { client, by, .. } = arrived;
        if self.all.len() >= self.most
            && let Some(oldest) = self.makes_room(client.port)
        {
            self.remove(oldest);
        }
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let errno = |e: rustix::io::Errno| Errno::from_raw(e.raw_os_error());
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None).map_err(errno)?;
        rustix::net::connect(&socket, &to).map_err(errno)?;
        let at = self.all.insert(Flow { client, by, socket, last: now });
        self.by_client.insert(client, at);
        Ok(at)
    }

    /// Who is silent for longest of those of the port that has most, with one more at `port`: clients of one port do not drive
    /// out those of others.
    fn makes_room(&self, port: usize) -> Option<usize> {
        let mut by_port: HashMap<usize, (usize, Instant, usize)> = HashMap::new();
        for (at, flow) in &self.all {
            let (count, last, oldest) = by_port.entry(flow.client.port).or_insert((0, flow.last, at));
            *count += 1;
            if flow.last < *last {
                (*last, *oldest) = (flow.last, at);
            }
        }
        let most = |(at, (count, last, _)): &(usize, (usize, Instant, usize))| {
            (count + usize::from(*at == port), std::cmp::Reverse(*last))
        };
        by_port.into_iter().max_by_key(most).map(|(_, (.., oldest))| oldest)
    }

    /// The socket of a client towards the container, and the port that it asked.
    pub fn socket(&self, at: usize) -> Option<(&OwnedFd, usize)> {
        self.all.get(at).map(|f| (&f.socket, f.client.port))
    }

    /// Passes one answer of the container on through the port's socket; false when there is none for now.
    pub fn answer(&mut self, at: usize, port: &OwnedFd, now: Instant) -> bool {
        let Some(flow) = self.all.get_mut(at) else { return false };
        let n = match recv(flow.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(n) => n,
            // The container says that nobody is at its port; its client finds no answer.
            Err(e) => return matches!(e, Errno::ECONNREFUSED | Errno::EINTR),
        };
        flow.last = now;
        let from = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: flow.client.local },
            ipi6_ifindex: flow.client.interface,
        };
        let parts = [IoSlice::new(&self.buffer[..n])];
        let to = SockaddrIn6::from(flow.client.peer);
        let control = [ControlMessage::Ipv6PacketInfo(&from)];
        let _ = sendmsg(port.as_raw_fd(), &parts, &control, MsgFlags::MSG_DONTWAIT, Some(&to));
        true
    }

    /// Forgets a port's clients.
    pub fn leave(&mut self, port: usize) {
        self.drop_those(|flow| flow.client.port == port);
    }

    /// Forgets clients that are not answered any more.
    pub fn refuse(&mut self, refused: &Refused) {
        self.drop_those(|flow| refused.holds(&flow.client.peer, flow.by));
    }

    /// Forgets clients that have been silent for long.
    pub fn expire(&mut self, now: Instant) {
        self.drop_those(|flow| now.saturating_duration_since(flow.last) >= IDLE);
    }

    fn drop_those(&mut self, gone: impl Fn(&Flow) -> bool) {
        let all: Vec<usize> = self.all.iter().filter(|(_, f)| gone(f)).map(|(at, _)| at).collect();
        for at in all {
            self.remove(at);
        }
    }

    fn remove(&mut self, at: usize) {
        let flow = self.all.remove(at);
        self.by_client.remove(&flow.client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty(client: Client) -> Arrived {
        Arrived { client, by: 0, len: 0 }
    }

    fn client(port: u16) -> Client {
        client_of(0, port)
    }

    fn client_of(port: usize, number: u16) -> Client {
        let peer = SocketAddrV6::new(std::net::Ipv6Addr::LOCALHOST, number, 0, 0);
        Client { port, peer, local: [0; 16], interface: 0 }
    }

    #[test]
    fn the_silent_are_forgotten_and_the_longest_silent_makes_room() {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        let (mut flows, start) = (Flows::new(2), Instant::now());
        let after = |s| start + Duration::from_secs(s);
        for (n, port) in [(0, 1), (1, 2), (2, 1), (3, 3)] {
            flows.forward(empty(client(port)), to, after(n)).unwrap();
        }
        let known = |flows: &Flows| {
            let mut all: Vec<_> = flows.by_client.keys().map(|c| c.peer.port()).collect();
            all.sort_unstable();
            all
        };
        assert_eq!(known(&flows), [1, 3], "2 was silent for longest");
        flows.expire(after(2) + IDLE);
        assert_eq!(known(&flows), [3]);
        flows.leave(0);
        assert!(flows.is_empty() && known(&flows).is_empty());
    }

    #[test]
    fn the_port_with_most_clients_makes_room() {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        let (mut flows, start) = (Flows::new(3), Instant::now());
        for (n, (port, number)) in [(0, 1), (1, 2), (1, 3), (2, 4), (1, 5)].into_iter().enumerate() {
            let now = start + Duration::from_secs(n as u64);
            flows.forward(empty(client_of(port, number)), to, now).unwrap();
            assert!(flows.by_client.contains_key(&client_of(0, 1)), "after {number}");
            assert!(number < 4 || !flows.by_client.contains_key(&client_of(1, 2)), "after {number}");
        }
    }
}
