//! Connections that the kernel remembers (linux/netfilter/nfnetlink_conntrack.h): listed, and forgotten when what they were
//! let through for has changed.
//!
//! A connection keeps the address that its first packet was sent on to. For UDP, which has no end, that outlives a
//! container, and a client that goes on sending would never reach the next one.

use std::net::IpAddr;

use super::message::attributes;
use super::{Attrs, Batch, Flags, NetlinkError, Socket};

const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
/// `struct nfgenmsg`.
const HEAD: usize = 4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
/// Which parts of a tuple a filter compares (net/netfilter/nf_internals.h).
const BY_SOURCE: u32 = 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_PORT: u32 = 1 << 5;

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// Who sends.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// Number in an IP header.
    pub protocol: u8,
    /// 0 where the protocol has none.
    pub source_port: u16,
    /// 0 where the protocol has none.
    pub port: u16,
    /// Identifier, type and code of an echo and the like; absent for others.
    pub echo: Option<(u16, u8, u8)>,
}

/// A connection: as its first packet was, and as answers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// As its first packet was.
    pub original: Tuple,
    /// As answers are: their source is who really has the connection.
    pub reply: Tuple,
}

fn head(ipv6: bool) -> [u8; HEAD] {
    [if ipv6 { libc::AF_INET6 as u8 } else { libc::AF_INET as u8 }, 0, 0, 0]
}

/// All connections of both IP versions.
pub fn all(socket: &Socket) -> Result<Vec<Connection>, NetlinkError> {
    let mut found = Vec::new();
    for ipv6 in [false, true] {
        let mut batch = Batch::new();
        batch.push("list connections", GET, Flags::DUMP, &head(ipv6), |_| {});
        found.extend(socket.dump(&batch, NEW)?.iter().filter_map(|p| parse(p)));
    }
    Ok(found)
}

/// Forgets one connection; fine when it is gone.
pub fn forget(socket: &Socket, connection: &Connection) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    let tuple = &connection.original;
    batch.push("forget a connection", DELETE, Flags::ACK, &head(tuple.source.is_ipv6()), |a| {
        a.nested(CTA_TUPLE_ORIG, |a| write(a, tuple));
    });
    fine_when_gone(socket.run(&batch))
}

/// Forgets UDP that was sent to a port of the host, whoever has it: its next packet finds the way anew.
pub fn forget_udp_to(socket: &Socket, ports: &[u16], ipv6: bool) -> Result<(), NetlinkError> {
    for port in ports {
        let mut batch = Batch::new();
        let what = format!("forget connections to port {port}/udp");
        batch.push(what, DELETE, Flags::ACK, &head(ipv6), |a| {
            a.nested(CTA_TUPLE_ORIG, |a| {
                a.nested(CTA_TUPLE_PROTO, |a| {
                    a.byte(1, libc::IPPROTO_UDP as u8);
                    a.bytes(3, &port.to_be_bytes());
                });
            });
            a.nested(CTA_FILTER, |a| {
                a.number(CTA_FILTER_ORIG_FLAGS, BY_PROTOCOL | BY_PORT);
                a.number(CTA_FILTER_REPLY_FLAGS, 0);
            });
        });
        fine_when_gone(socket.run(&batch))?;
    }
    Ok(())
}

/// Forgets everything that an address has begun or answers.
pub fn forget_address(socket: &Socket, ip: IpAddr) -> Result<(), NetlinkError> {
    for (tuple, orig, reply) in [(CTA_TUPLE_ORIG, BY_SOURCE, 0), (CTA_TUPLE_REPLY, 0, BY_SOURCE)] {
        let mut batch = Batch::new();
        batch.push(format!("forget connections of {ip}"), DELETE, Flags::ACK, &head(ip.is_ipv6()), |a| {
            a.nested(tuple, |a| a.nested(CTA_TUPLE_IP, |a| a.ip(if ip.is_ipv4() { 1 } else { 3 }, ip)));
            a.nested(CTA_FILTER, |a| {
                a.number(CTA_FILTER_ORIG_FLAGS, orig);
                a.number(CTA_FILTER_REPLY_FLAGS, reply);
            });
        });
        fine_when_gone(socket.run(&batch))?;
    }
    Ok(())
}

fn fine_when_gone(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(e) if e.is_missing() => Ok(()),
        other => other,
    }
}

fn write(a: &mut Attrs<'_>, tuple: &Tuple) {
    a.nested(CTA_TUPLE_IP, |a| {
        let (source, destination) = if tuple.source.is_ipv4() { (1, 2) } else { (3, 4) };
        a.ip(source, tuple.source);
        a.ip(destination, tuple.destination);
    });
    a.nested(CTA_TUPLE_PROTO, |a| {
        a.byte(1, tuple.protocol);
        if let Some((id, kind, code)) = tuple.echo {
            let first = if tuple.source.is_ipv4() { 4 } else { 7 };
            a.bytes(first, &id.to_be_bytes());
            a.byte(first + 1, kind);
            a.byte(first + 2, code);
        } else {
            a.bytes(2, &tuple.source_port.to_be_bytes());
            a.bytes(3, &tuple.port.to_be_bytes());
        }
    });
}

fn parse(payload: &[u8]) -> Option<Connection> {
    let (mut original, mut reply) = (None, None);
    for (kind, value) in attributes(payload.get(HEAD..)?) {
        match kind {
            CTA_TUPLE_ORIG => original = parse_tuple(value),
            CTA_TUPLE_REPLY => reply = parse_tuple(value),
            _ => {}
        }
    }
    Some(Connection { original: original?, reply: reply? })
}

fn parse_tuple(bytes: &[u8]) -> Option<Tuple> {
    let any = IpAddr::from([0; 4]);
    let mut tuple = Tuple { source: any, destination: any, protocol: 0, source_port: 0, port: 0, echo: None };
    let be16 = |v: &[u8]| v.try_into().ok().map(u16::from_be_bytes);
    for (kind, value) in attributes(bytes) {
        for (inner, v) in attributes(value) {
            let echo = &mut tuple.echo;
            match (kind, inner) {
                (CTA_TUPLE_IP, 1) => tuple.source = <[u8; 4]>::try_from(v).ok()?.into(),
                (CTA_TUPLE_IP, 2) => tuple.destination = <[u8; 4]>::try_from(v).ok()?.into(),
                (CTA_TUPLE_IP, 3) => tuple.source = <[u8; 16]>::try_from(v).ok()?.into(),
                (CTA_TUPLE_IP, 4) => tuple.destination = <[u8; 16]>::try_from(v).ok()?.into(),
                (CTA_TUPLE_PROTO, 1) => tuple.protocol = *v.first()?,
                (CTA_TUPLE_PROTO, 2) => tuple.source_port = be16(v)?,
                (CTA_TUPLE_PROTO, 3) => tuple.port = be16(v)?,
                (CTA_TUPLE_PROTO, 4 | 7) => echo.get_or_insert_default().0 = be16(v)?,
                (CTA_TUPLE_PROTO, 5 | 8) => echo.get_or_insert_default().1 = *v.first()?,
                (CTA_TUPLE_PROTO, 6 | 9) => echo.get_or_insert_default().2 = *v.first()?,
                _ => {}
            }
        }
    }
    Some(tuple)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::message::messages;

    fn tuple(source: &str, source_port: u16, destination: &str, port: u16) -> Tuple {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Tuple { source, destination, protocol: 17, source_port, port, echo: None }
    }

    #[test]
    fn a_connection_is_written_as_it_is_read_byte_for_byte() {
        let mut batch = Batch::new();
        let wanted = tuple("10.0.0.1", 1024, "10.0.0.2", 53);
        batch.push("x", NEW, Flags::ACK, &head(false), |a| {
            a.nested(CTA_TUPLE_ORIG, |a| write(a, &wanted));
            a.nested(CTA_TUPLE_REPLY, |a| write(a, &tuple("10.0.0.2", 53, "10.0.0.1", 1024)));
        });
        let (_, _, payload) = messages(batch.bytes()).next().unwrap();
        #[rustfmt::skip]
        let expected: Vec<u8> = [
            &[52, 0, 1, 0x80, 20, 0, 1, 0x80, 8, 0, 1, 0, 10, 0, 0, 1, 8, 0, 2, 0, 10, 0, 0, 2][..],
            &[28, 0, 2, 0x80, 5, 0, 1, 0, 17, 0, 0, 0, 6, 0, 2, 0, 4, 0, 0, 0, 6, 0, 3, 0, 0, 53, 0, 0],
        ].concat();
        assert_eq!(payload[HEAD..HEAD + expected.len()], expected);
        assert_eq!(parse(payload).unwrap().original, wanted);
    }

    proptest! {
        #[test]
        fn garbage_is_no_connection(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
