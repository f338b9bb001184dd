//! Who listens in a namespace: sock_diag(7) says it; a kernel without it has /proc/thread-self/net/{tcp,udp}{,6} (proc(5)), which do
//! not tell those of IPv6 only.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::firewall::Transport;
use crate::netlink::diag::{self, Listener};
use crate::netlink::{NetlinkError, Protocol, Socket};

/// `TCP_LISTEN`, and what an unconnected UDP socket shows.
const LISTENING: &str = "0A";
const UNCONNECTED: &str = "07";

/// A socket that takes packets or connections from anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) at: SocketAddr,
    /// One on `[::]` takes IPv4 too unless it said otherwise.
    pub(super) only_v6: bool,
}

impl Bound {
    /// Whether it takes what is sent there.
    pub(super) fn meets(&self, to: IpAddr, port: u16) -> bool {
        let ip = self.at.ip();
        let family = ip.is_ipv4() == to.is_ipv4() || (ip.is_ipv6() && !self.only_v6);
        self.at.port() == port && ((ip.is_unspecified() && family) || ip.to_canonical() == to)
    }

    pub(super) fn shown(&self, transport: Transport) -> String {
        let only = if self.only_v6 && self.at.ip().is_unspecified() { " (IPv6 only)" } else { "" };
        format!("{}/{}{only}", self.at, transport.name())
    }
}

/// Those of the calling thread's namespace.
pub(super) fn bound(transport: Transport) -> Vec<Bound> {
    asked(transport).unwrap_or_else(|_| read(transport))
}

fn asked(transport: Transport) -> Result<Vec<Bound>, NetlinkError> {
    let socket = Socket::open(Protocol::Diag)?;
    let found = match transport {
        Transport::Tcp => diag::tcp(&socket)?,
        Transport::Udp => diag::udp(&socket)?,
        Transport::Sctp => Vec::new(),
    };
    Ok(found.into_iter().map(|Listener { at, only_v6 }| Bound { at, only_v6 }).collect())
}

fn read(transport: Transport) -> Vec<Bound> {
    let (v4, v6, wanted) = match transport {
        Transport::Tcp => ("tcp", "tcp6", LISTENING),
        Transport::Udp => ("udp", "udp6", UNCONNECTED),
        Transport::Sctp => return Vec::new(),
    };
    let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    let mut all = parse(&read(v4), wanted);
    all.extend(parse(&read(v6), wanted));
    all
}

fn parse(table: &str, wanted: &str) -> Vec<Bound> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
        (state == wanted).then(|| address(local)).flatten().map(|at| Bound { at, only_v6: false })
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// Words of the machine's byte order in hexadecimal, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for start in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(start..start + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip: IpAddr = match bytes.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Bound {
        Bound { at: text.parse().unwrap(), only_v6: false }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn listening_sockets_are_read() {
        let table = "  sl  local_address rem_address   st\n   \
            0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0\n   \
            1: 0200000A:0050 0300000A:1234 01 0:0 0:0 0\n   \
            2: garbage 00000000:0000 0A\n";
        assert_eq!(parse(table, LISTENING), [at("127.0.0.1:8080")]);
        let table = "  sl  local_address rem_address   st\n   \
            0: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 0\n";
        assert_eq!(parse(table, UNCONNECTED), [at("[::1]:53")]);
    }

    #[test]
    fn what_a_socket_takes() {
        let v4: IpAddr = "10.0.0.2".parse().unwrap();
        let v6: IpAddr = "fd00::2".parse().unwrap();
        assert!(at("0.0.0.0:80").meets(v4, 80) && !at("0.0.0.0:80").meets(v6, 80));
        assert!(at("[::]:80").meets(v4, 80) && at("[::]:80").meets(v6, 80));
        let only = Bound { only_v6: true, ..at("[::]:80") };
        assert!(!only.meets(v4, 80) && only.meets(v6, 80));
        assert!(at("[::ffff:10.0.0.2]:80").meets(v4, 80));
        assert!(!at("127.0.0.1:80").meets(v4, 80) && !at("0.0.0.0:80").meets(v4, 81));
    }

    #[test]
    fn a_socket_of_this_process_is_found_either_way() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let datagrams = std::net::UdpSocket::bind("[::1]:0").unwrap();
        for (transport, here) in [
            (Transport::Tcp, listener.local_addr().unwrap()),
            (Transport::Udp, datagrams.local_addr().unwrap()),
        ] {
            for found in [asked(transport).unwrap(), read(transport)] {
                assert!(found.iter().any(|b| b.meets(here.ip(), here.port())), "{transport:?}");
            }
        }
    }
}
