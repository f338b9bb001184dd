//! What the kernel has, read in full, for checks and explanations; an attach reads only what it needs (see `route`).
//!
//! A socket sees the namespace that it was opened in. Sources: rtnetlink(7), linux/if_link.h.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

pub use super::links::{Link, links, namespace_number};
use super::message::{Batch, Flags, attributes};
pub use super::neighbours::{Neighbour, neighbour};
use super::socket::{NetlinkError, Socket};

const NEWADDR: u16 = 20;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `RTM_F_LOOKUP_TABLE`: the answer names the table that had the route.
const LOOKUP_TABLE: u32 = 0x1000;
const TABLE_MAIN: u8 = 254;
const SCOPE_UNIVERSE: u8 = 0;

pub(super) fn number(value: &[u8]) -> u32 {
    value.try_into().map_or(0, u32::from_ne_bytes)
}

pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

pub(super) fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(|b| Ipv4Addr::from(b).into()),
        16 => <[u8; 16]>::try_from(value).ok().map(|b| Ipv6Addr::from(b).into()),
        _ => None,
    }
}

pub(super) fn dump(
    socket: &Socket,
    what: &str,
    ask: u16,
    head: &[u8],
    answer: u16,
) -> Result<Vec<Vec<u8>>, NetlinkError> {
    let mut batch = Batch::new();
    batch.push(what, ask, Flags::DUMP, head, |_| {});
    socket.dump(&batch, answer)
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The interface's index.
    pub index: u32,
    /// The address itself, with its prefix length.
    pub net: IpNet,
    /// Valid beyond the link; others are made by the kernel.
    pub global: bool,
}

/// All addresses.
pub fn addresses(socket: &Socket) -> Result<Vec<Address>, NetlinkError> {
    let parse = |payload: &Vec<u8>| {
        let head = payload.get(..8)?;
        let find = |wanted| attributes(&payload[8..]).find(|(k, _)| *k == wanted).and_then(|(_, v)| ip(v));
        // IFA_LOCAL is the interface's own where both are there (point to point).
        let address = find(2).or_else(|| find(1))?;
        Some(Address {
            index: number(&head[4..8]),
            net: IpNet::new(address, head[1]).ok()?,
            global: head[3] == SCOPE_UNIVERSE,
        })
    };
    Ok(dump(socket, "list addresses", GETADDR, &[0; 8], NEWADDR)?.iter().filter_map(parse).collect())
}

/// What the kernel does with a packet that a route is for (`RTN_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Sends it on.
    Unicast,
    /// Keeps it: the address is its own.
    Local,
    /// A broadcast or multicast address.
    Group,
    /// Drops it.
    Refused,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What it is for; everything when the prefix length is 0.
    pub net: IpNet,
    /// What becomes of packets.
    pub fate: Fate,
    /// The next hop; none on the link itself.
    pub gateway: Option<IpAddr>,
    /// The outgoing interface's index.
    pub index: u32,
    /// The source address of what is sent by it.
    pub source: Option<IpAddr>,
}

fn parse_route(payload: &[u8]) -> Option<(u8, Route)> {
    let head = payload.get(..12)?;
    let any: IpAddr = match head[0] {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let fate = match head[7] {
        1 => Fate::Unicast,
        2 => Fate::Local,
        3..=5 => Fate::Group,
        _ => Fate::Refused,
    };
    let (mut to, mut gateway, mut index, mut source) = (any, None, 0, None);
    for (kind, value) in attributes(&payload[12..]) {
        match kind {
            1 => to = ip(value)?,
            4 => index = number(value),
            5 => gateway = ip(value),
            7 => source = ip(value),
            _ => {}
        }
    }
    let net = IpNet::new(to, head[1]).ok()?;
    Some((head[4], Route { net, fate, gateway, index, source }))
}

/// One link; `None` when there is none of this name.
pub fn link(socket: &Socket, name: &str) -> Result<Option<Link>, NetlinkError> {
    Ok(super::route::get_link(socket, name)?.as_deref().and_then(super::links::parse_link))
}

/// The routes of the main table.
pub fn routes(socket: &Socket) -> Result<Vec<Route>, NetlinkError> {
    let found = dump(socket, "list routes", GETROUTE, &[0; 12], NEWROUTE)?;
    let main = found.iter().filter_map(|p| parse_route(p)).filter(|(table, _)| *table == TABLE_MAIN);
    Ok(main.map(|(_, route)| route).collect())
}

/// Asks the kernel which way a packet would take; the reason when there is none.
pub fn lookup(socket: &Socket, to: IpAddr) -> Result<Result<Route, io::Error>, NetlinkError> {
    let (family, bits) = if to.is_ipv4() { (AF_INET, 32) } else { (AF_INET6, 128) };
    let mut head = [family, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    head[8..].copy_from_slice(&LOOKUP_TABLE.to_ne_bytes());
    let mut batch = Batch::new();
    batch.push(format!("look up the route to {to}"), GETROUTE, Flags::REQUEST, &head, |a| a.ip(1, to));
    let none = || Err(io::Error::from_raw_os_error(libc::ENETUNREACH));
    match socket.get(&batch, NEWROUTE) {
        Ok(answer) => Ok(answer.and_then(|p| parse_route(&p)).map_or_else(none, |(_, route)| Ok(route))),
        Err(NetlinkError::Refused { source, .. }) => Ok(Err(source)),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::messages;

    fn payload(head: &[u8], body: impl FnOnce(&mut crate::netlink::Attrs<'_>)) -> Vec<u8> {
        let mut batch = Batch::new();
        batch.push("x", 0, Flags::REQUEST, head, body);
        messages(batch.bytes()).next().unwrap().2.to_vec()
    }

    #[test]
    fn a_route_is_read_with_its_next_hop() {
        let head = [AF_INET, 0, 0, 0, TABLE_MAIN, 0, 0, 1, 0, 0, 0, 0];
        let (table, route) = parse_route(&payload(&head, |a| {
            a.number(4, 3);
            a.ip(5, "10.0.0.1".parse().unwrap());
            a.ip(7, "10.0.0.2".parse().unwrap());
        }))
        .unwrap();
        assert_eq!(table, TABLE_MAIN);
        assert_eq!(route.net, "0.0.0.0/0".parse().unwrap());
        assert_eq!((route.gateway, route.index), (Some("10.0.0.1".parse().unwrap()), 3));
        assert_eq!((route.fate, route.source), (Fate::Unicast, Some("10.0.0.2".parse().unwrap())));
    }

    #[test]
    fn the_loopback_of_this_namespace_is_seen() {
        let socket = Socket::open(crate::netlink::Protocol::Route).unwrap();
        let all = links(&socket).unwrap();
        let lo = all.iter().find(|l| l.name == "lo").unwrap();
        let route = lookup(&socket, "127.0.0.1".parse().unwrap()).unwrap();
        if lo.up {
            assert_eq!(route.unwrap().fate, Fate::Local);
            assert!(addresses(&socket).unwrap().iter().any(|a| a.net.addr().is_loopback()));
        }
    }
}
