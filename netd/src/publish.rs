//! Published ports: which host ports are ours, and that nobody else takes them.
//!
//! A published port is held by a socket bound to it for as long as it is published. Packets are redirected before they
//! would reach it, so that a TCP or SCTP socket need not listen and a UDP socket is not read; but for IPv6, where the
//! kernel cannot redirect everything and [`relay`] takes what comes. So a conflict shows before anything is changed, in
//! both directions, and the kernel's choice of a random port is as good as a reservation.
//! A kernel without SCTP sockets can still forward SCTP: nobody on the host can have such a port then, and only our own
//! containers are asked.

mod bind;
mod error;
pub mod occupant;
pub mod relay;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::endpoint::Mapping;
use crate::failpoint::pass;
use crate::firewall::Transport;
use bind::bind_port;
pub use error::PublishError;
use relay::{Key, Refused, Relay};

/// Ports for dynamic use (RFC 6335, section 6).
const DYNAMIC: std::ops::RangeInclusive<u16> = 49152..=65535;

/// A port as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// TCP or UDP.
    pub transport: Transport,
    /// The host's address; unspecified for all of its version.
    pub host_ip: IpAddr,
    /// No address was named: all of both versions.
    pub everywhere: bool,
    /// Lowest acceptable host port; 0: any.
    pub first: u16,
    /// Highest acceptable host port.
    pub last: u16,
    /// In the sandbox.
    pub container_port: u16,
}

#[derive(Debug)]
struct Reservation {
    sandbox: String,
    name: String,
    /// Absent when another program took the port while no netd was running, and where the kernel has no such sockets.
    socket: Option<Arc<OwnedFd>>,
    /// Whether what comes to the socket is answered.
    relayed: bool,
    /// By which container: without one who comes is reset.
    to: Option<SocketAddr>,
    /// Whoever made the sandbox may hold the port itself: that it is free was seen, and no socket is kept.
    shared: bool,
}

impl Reservation {
    /// Tells the relay of a socket that it is to answer at.
    fn answer(&self, relay: &mut Relay, key: Key) {
        let Some(socket) = self.socket.as_ref().filter(|_| self.relayed) else { return };
        if let Err(error) = relay.serve(key, socket, self.to) {
            tracing::warn!(host = %key.1, container = %self.name, %error, "a published port is not answered at ::1");
        }
    }
}

/// A port that the kernel does not redirect all packets of: who answers at its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed {
    /// TCP or UDP.
    pub transport: Transport,
    /// The host's address and port.
    pub host: SocketAddrV6,
    /// The container's.
    pub to: SocketAddr,
}

/// All host ports that are published.
#[derive(Debug, Default)]
pub struct Ports {
    held: BTreeMap<(Transport, u16, IpAddr), Reservation>,
    relay: Relay,
}

/// What the relay calls a port.
fn key((transport, port, ip): &(Transport, u16, IpAddr)) -> Option<Key> {
    match ip {
        IpAddr::V6(ip) => Some((*transport, SocketAddrV6::new(*ip, *port, 0, 0))),
        IpAddr::V4(_) => None,
    }
}

impl Ports {
    /// Reserves a port.
    pub fn reserve(&mut self, sandbox: &str, name: &str, wanted: Wanted) -> Result<Mapping, PublishError> {
        self.reserve_as(sandbox, name, wanted, false)
    }

    /// Reserves a port against other containers only: the host's programs may have it, and the redirection comes first.
    pub fn reserve_shared(
        &mut self,
        sandbox: &str,
        name: &str,
        wanted: Wanted,
    ) -> Result<Mapping, PublishError> {
        // Of a range the first that nobody has.
        self.reserve_as(sandbox, name, wanted, wanted.first == wanted.last)
    }

    fn reserve_as(
        &mut self,
        sandbox: &str,
        name: &str,
        wanted: Wanted,
        shared: bool,
    ) -> Result<Mapping, PublishError> {
        let Wanted { transport, host_ip: ip, first, last, container_port, .. } = wanted;
        let mut failure = None;
        for port in first..=last.max(first) {
            let host = SocketAddr::new(ip, port);
            match self.bind_free(transport, host, shared) {
                Ok((host, fd)) => {
                    pass("port.bound");
                    self.hold(sandbox, name, transport, host, fd);
                    return Ok(Mapping { transport, host, container_port });
                }
                Err(e @ (PublishError::Bind { .. } | PublishError::Descriptors { .. })) => return Err(e),
                Err(e) => failure = Some(e),
            }
        }
        match failure {
            Some(e) if first >= last => Err(e),
            _ => Err(PublishError::Range { ip, first, last, transport }),
        }
    }

    /// Reserves again what a record says is published. A port that a program took meanwhile stays published: the
    /// redirection comes first.
    pub fn restore(&mut self, sandbox: &str, name: &str, mapping: &Mapping) -> Result<(), PublishError> {
        let bound = bind_port(mapping.transport, mapping.host);
        let (fd, outcome) = match bound {
            Ok((_, fd)) => (fd, Ok(())),
            Err(source) => {
                let Mapping { transport, host, .. } = *mapping;
                (None, Err(PublishError::of(transport, host, source)))
            }
        };
        self.hold(sandbox, name, mapping.transport, mapping.host, fd);
        outcome
    }

    /// Gives back one port that nobody knows of yet.
    pub fn give_back(&mut self, mapping: &Mapping) {
        self.held.remove(&(mapping.transport, mapping.host.port(), mapping.host.ip()));
    }

    /// Another name for whoever is refused a port of this sandbox.
    pub fn rename(&mut self, sandbox: &str, name: &str) {
        for held in self.held.values_mut().filter(|r| r.sandbox == sandbox) {
            name.clone_into(&mut held.name);
        }
    }

    /// Lets the host's programs have a sandbox's ports: podman binds those that it has a plugin publish.
    pub fn share(&mut self, sandbox: &str) {
        for held in self.held.values_mut().filter(|r| r.sandbox == sandbox) {
            (held.socket, held.shared) = (None, true);
        }
    }

    /// Takes a port that is shared without looking at the host.
    pub fn restore_shared(&mut self, sandbox: &str, name: &str, mapping: &Mapping) {
        self.hold(sandbox, name, mapping.transport, mapping.host, None);
        self.share(sandbox);
    }

    /// Ports that nothing holds.
    pub fn lost(&self) -> Vec<(SocketAddr, Transport)> {
        let lost = self
            .held
            .iter()
            .filter(|((transport, ..), r)| r.socket.is_none() && !r.shared && transport.holds());
        lost.map(|((transport, port, ip), _)| (SocketAddr::new(*ip, *port), *transport)).collect()
    }

    /// Binds those again.
    ///
    /// # Errors
    /// The first that is refused; all were tried.
    pub fn reserve_lost(&mut self) -> Result<(), PublishError> {
        let mut outcome = Ok(());
        let lost = self
            .held
            .iter_mut()
            .filter(|((transport, ..), r)| r.socket.is_none() && !r.shared && transport.holds());
        for (at @ (transport, port, ip), held) in lost {
            let (transport, host) = (*transport, SocketAddr::new(*ip, *port));
            match bind_port(transport, host) {
                Ok((_, fd)) => {
                    held.socket = fd.map(Arc::new);
                    if let Some(key) = key(at) {
                        held.answer(&mut self.relay, key);
                    }
                }
                Err(source) => outcome = outcome.and(Err(PublishError::of(transport, host, source))),
            }
        }
        outcome
    }

    /// Has those of a sandbox's ports answered that the kernel does not redirect all packets of. One that was answered and is
    /// not among them resets who comes.
    pub fn answer(&mut self, sandbox: &str, relayed: &[Relayed]) {
        for (at, held) in self.held.iter_mut().filter(|(_, r)| r.sandbox == sandbox) {
            let Some(key) = key(at) else { continue };
            let to = relayed.iter().find(|r| (r.transport, r.host) == key).map(|r| r.to);
            if to.is_some() || held.relayed {
                (held.relayed, held.to) = (true, to);
                held.answer(&mut self.relay, key);
            }
        }
    }

    /// Says who is not answered there.
    pub fn refuse(&mut self, refused: Refused) {
        self.relay.refuse(refused);
    }

    /// Ends what answers, when there is no port left that it is for.
    pub fn rest(&mut self) {
        if !self.held.values().any(|r| r.relayed) {
            self.relay.end();
        }
    }

    /// Gives back all ports of a sandbox. Connections that were answered for it end.
    pub fn release(&mut self, sandbox: &str) {
        let answered = self.held.iter().filter(|(_, r)| r.sandbox == sandbox && r.relayed);
        self.relay.leave(answered.filter_map(|(at, _)| key(at)).collect());
        self.held.retain(|_, r| r.sandbox != sandbox);
    }

    fn hold(
        &mut self,
        sandbox: &str,
        name: &str,
        transport: Transport,
        host: SocketAddr,
        fd: Option<OwnedFd>,
    ) {
        let reservation = Reservation {
            sandbox: sandbox.into(),
            name: name.into(),
            socket: fd.map(Arc::new),
            relayed: false,
            to: None,
            shared: false,
        };
        self.held.insert((transport, host.port(), host.ip()), reservation);
    }

    fn bind_free(
        &self,
        transport: Transport,
        host: SocketAddr,
        shared: bool,
    ) -> Result<(SocketAddr, Option<OwnedFd>), PublishError> {
        if let Some((_, by)) = self.holders(transport, host).next() {
            return Err(PublishError::Ours { host, transport, by: by.to_owned() });
        }
        let bound = match bind_port(transport, host) {
            Ok((bound, None)) if bound.port() == 0 => Ok((self.unheld(transport, host), None)),
            Err(source) if shared && source.raw_os_error() == Some(libc::EADDRINUSE) => Ok((host, None)),
            other => other,
        };
        bound.map_err(|source| PublishError::of(transport, host, source))
    }

    /// A random port that no container has, where no socket can tell.
    fn unheld(&self, transport: Transport, mut host: SocketAddr) -> SocketAddr {
        let first: u16 = rand::random();
        for n in 0..DYNAMIC.len() as u16 {
            host.set_port(DYNAMIC.start() + (first.wrapping_add(n)) % DYNAMIC.len() as u16);
            if self.holders(transport, host).next().is_none() {
                break;
            }
        }
        host
    }

    /// Who has the port on an address that meets this one: sandboxes and names of containers.
    pub fn holders(&self, transport: Transport, host: SocketAddr) -> impl Iterator<Item = (&str, &str)> {
        let lowest = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        self.held
            .range((transport, host.port(), lowest)..)
            .take_while(move |((t, port, _), _)| *t == transport && *port == host.port() && *port != 0)
            .filter(move |((_, _, ip), _)| meet(*ip, host.ip()))
            .map(|(_, r)| (r.sandbox.as_str(), r.name.as_str()))
    }
}

/// Whether a port on one address is also one on the other.
pub fn meet(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4() && (one == other || one.is_unspecified() || other.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn wanted(transport: Transport, port: u16) -> Wanted {
        let host_ip = Ipv4Addr::LOCALHOST.into();
        Wanted { transport, host_ip, everywhere: false, first: port, last: port, container_port: 80 }
    }

    #[test]
    fn a_port_of_another_container_names_it_until_released() {
        let mut ports = Ports::default();
        let got = ports.reserve("a", "web", wanted(Transport::Tcp, 0)).unwrap();
        let again = wanted(Transport::Tcp, got.host.port());
        let e = ports.reserve("b", "other", again).unwrap_err();
        assert!(matches!(&e, PublishError::Ours { by, .. } if by == "web"), "{e}");
        // The same number of the other transport is another port.
        ports.release("a");
        ports.reserve("b", "other", again).unwrap();
    }

    #[test]
    fn a_port_of_a_program_is_in_use_and_a_held_port_cannot_be_taken_by_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ports = Ports::default();
        let e = ports.reserve("a", "web", wanted(Transport::Tcp, listener.local_addr().unwrap().port()));
        let text = e.unwrap_err().to_string();
        assert!(text.contains("in use by") && text.contains(&std::process::id().to_string()), "{text}");

        for transport in [Transport::Tcp, Transport::Udp] {
            let host = ports.reserve("a", "web", wanted(transport, 0)).unwrap().host;
            match transport {
                // std sets SO_REUSEADDR, as servers do.
                Transport::Tcp => assert!(TcpListener::bind(host).is_err()),
                _ => assert!(UdpSocket::bind(host).is_err()),
            }
        }
    }

    #[test]
    fn a_shared_port_is_the_programs_too_but_no_other_containers() {
        let mut ports = Ports::default();
        let host = ports.reserve("a", "pod", wanted(Transport::Tcp, 0)).unwrap().host;
        ports.share("a");
        let _theirs = TcpListener::bind(host).unwrap();
        assert!(ports.lost().is_empty());
        let e = ports.reserve("b", "other", wanted(Transport::Tcp, host.port())).unwrap_err();
        assert!(matches!(&e, PublishError::Ours { by, .. } if by == "pod"), "{e}");
    }

    #[test]
    fn a_port_of_a_program_can_be_shared_and_of_a_range_it_is_passed_over() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut ports = Ports::default();
        let range = Wanted { last: port.saturating_add(20), ..wanted(Transport::Tcp, port) };
        assert_ne!(ports.reserve_shared("a", "pod", range).unwrap().host.port(), port);
        ports.reserve_shared("a", "pod", wanted(Transport::Tcp, port)).unwrap();
        let e = ports.reserve_shared("b", "other", wanted(Transport::Tcp, port)).unwrap_err();
        assert!(matches!(&e, PublishError::Ours { by, .. } if by == "pod"), "{e}");
    }

    #[test]
    fn sctp_ports_are_kept_apart_with_or_without_sockets() {
        let mut ports = Ports::default();
        let host = ports.reserve("a", "web", wanted(Transport::Sctp, 0)).unwrap().host;
        assert_ne!(host.port(), 0);
        let e = ports.reserve("b", "other", wanted(Transport::Sctp, host.port())).unwrap_err();
        assert!(matches!(&e, PublishError::Ours { by, .. } if by == "web"), "{e}");
    }

    #[test]
    fn a_range_gives_its_first_free_port() {
        let mut ports = Ports::default();
        let first = ports.reserve("a", "web", wanted(Transport::Udp, 0)).unwrap().host.port();
        let range = Wanted { last: first.saturating_add(20), ..wanted(Transport::Udp, first) };
        let second = ports.reserve("a", "web", range).unwrap().host.port();
        assert!(second > first && second <= range.last);
    }
}
