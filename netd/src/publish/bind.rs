//! The socket that holds a port.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, getsockname, setsockopt, socket,
    sockopt,
};

use crate::firewall::Transport;

/// Binds without listening and answers the port that it became; without a socket where the kernel has none for SCTP.
pub(super) fn bind_port(transport: Transport, host: SocketAddr) -> io::Result<(SocketAddr, Option<OwnedFd>)> {
    match attempt(transport, host, false) {
        Err(Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT) if transport == Transport::Sctp => {
            return Ok((host, None));
        }
        // Connections in TIME-WAIT also say "in use", but let a socket with SO_REUSEADDR in; one that is listened
        // on, or bound by somebody who does not share, refuses again.
        Err(Errno::EADDRINUSE) if transport == Transport::Tcp => attempt(transport, host, true),
        other => other,
    }
    .map(|(host, fd)| (host, Some(fd)))
    .map_err(Into::into)
}

fn attempt(transport: Transport, host: SocketAddr, reuse: bool) -> Result<(SocketAddr, OwnedFd), Errno> {
    let family = if host.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let (kind, protocol) = match transport {
        Transport::Tcp => (SockType::Stream, None),
        Transport::Udp => (SockType::Datagram, None),
        Transport::Sctp => (SockType::Stream, Some(SockProtocol::Sctp)),
    };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol)?;
    if host.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    if reuse {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    if transport == Transport::Udp {
        // What arrives in spite of the redirection is not read, unless a relay says otherwise; let it take no memory.
        setsockopt(&fd, sockopt::RcvBuf, &0)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(host))?;
    let bound: SockaddrStorage = getsockname(fd.as_raw_fd())?;
    let port = match host {
        SocketAddr::V4(_) => bound.as_sockaddr_in().map(nix::sys::socket::SockaddrIn::port),
        SocketAddr::V6(_) => bound.as_sockaddr_in6().map(nix::sys::socket::SockaddrIn6::port),
    };
    Ok((SocketAddr::new(host.ip(), port.unwrap_or(host.port())), fd))
}
