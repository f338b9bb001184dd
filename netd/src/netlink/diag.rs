//! Sockets that take packets or connections from anybody, asked from sock_diag(7). /proc/net/tcp6 does not say which of those
//! on `[::]` serve IPv4 too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::message::{Batch, Flags, attributes};
use super::{NetlinkError, Socket};

/// `SOCK_DIAG_BY_FAMILY`, of requests and of answers.
const BY_FAMILY: u16 = 20;
/// `struct inet_diag_req_v2` and `struct inet_diag_msg` (linux/inet_diag.h).
const REQUEST: usize = 56;
const ANSWER: usize = 72;
/// `INET_DIAG_SKV6ONLY`: comes unasked with each socket of IPv6 that listens or is not connected (Linux 4.5 and newer). There
/// is no bit for it in `idiag_ext`, which is one byte.
const ONLY_V6: u16 = 11;
/// `TCP_CLOSE`, which an unconnected UDP socket shows, and `TCP_LISTEN`.
const CLOSED: u32 = 7;
const LISTENING: u32 = 10;

/// Where a socket takes what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Address and port.
    pub at: SocketAddr,
    /// On `[::]`, not for IPv4 (`IPV6_V6ONLY`, ipv6(7)).
    pub only_v6: bool,
}

/// Listening TCP sockets of the socket's namespace.
pub fn tcp(socket: &Socket) -> Result<Vec<Listener>, NetlinkError> {
    all(socket, libc::IPPROTO_TCP as u8, LISTENING)
}

/// Its UDP sockets that are not connected to somebody.
pub fn udp(socket: &Socket) -> Result<Vec<Listener>, NetlinkError> {
    all(socket, libc::IPPROTO_UDP as u8, CLOSED)
}

fn all(socket: &Socket, protocol: u8, state: u32) -> Result<Vec<Listener>, NetlinkError> {
    let mut found = Vec::new();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let batch = request(family, protocol, state);
        socket.each(&batch, BY_FAMILY, |payload| found.extend(parse(payload)))?;
    }
    // An unconnected UDP socket that was never bound has no port, and hears nothing.
    found.retain(|l| l.at.port() != 0);
    Ok(found)
}

fn request(family: u8, protocol: u8, state: u32) -> Batch {
    let mut head = [0; REQUEST];
    head[0] = family;
    head[1] = protocol;
    head[4..8].copy_from_slice(&(1u32 << state).to_ne_bytes());
    let mut batch = Batch::new();
    batch.push("list listening sockets", BY_FAMILY, Flags::DUMP, &head, |_| {});
    batch
}

fn parse(payload: &[u8]) -> Option<Listener> {
    let (head, rest) = payload.split_at_checked(ANSWER)?;
    let port = u16::from_be_bytes([head[4], head[5]]);
    let ip: IpAddr = match i32::from(head[0]) {
        libc::AF_INET => Ipv4Addr::from(<[u8; 4]>::try_from(&head[8..12]).ok()?).into(),
        libc::AF_INET6 => Ipv6Addr::from(<[u8; 16]>::try_from(&head[8..24]).ok()?).into(),
        _ => return None,
    };
    let only_v6 = attributes(rest).any(|(kind, value)| kind == ONLY_V6 && value.first() == Some(&1));
    Some(Listener { at: SocketAddr::new(ip, port), only_v6 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_written_byte_for_byte() {
        let batch = request(10, 6, LISTENING);
        let mut wanted = vec![72, 0, 0, 0, 20, 0, 1, 3, 1, 0, 0, 0, 0, 0, 0, 0, 10, 6, 0, 0, 0, 4, 0, 0];
        wanted.resize(72, 0);
        assert_eq!(batch.bytes(), wanted);
    }

    #[test]
    fn an_answer_is_read() {
        let mut answer = vec![0; ANSWER];
        answer[..6].copy_from_slice(&[10, 10, 0, 0, 0x1f, 0x90]);
        // INET_DIAG_SHUTDOWN, INET_DIAG_SKV6ONLY.
        answer.extend([5, 0, 8, 0, 1, 0, 0, 0, 5, 0, 11, 0, 1, 0, 0, 0]);
        let wanted = Listener { at: "[::]:8080".parse().unwrap(), only_v6: true };
        assert_eq!(parse(&answer), Some(wanted));
        answer[ANSWER + 12] = 0;
        assert_eq!(parse(&answer), Some(Listener { only_v6: false, ..wanted }));
        answer[..12].copy_from_slice(&[2, 10, 0, 0, 0, 80, 0, 0, 10, 0, 0, 2]);
        assert_eq!(parse(&answer[..ANSWER]).unwrap().at, "10.0.0.2:80".parse().unwrap());
        assert_eq!(parse(&answer[..ANSWER - 1]), None);
    }

    proptest! {
        #[test]
        fn garbage_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
