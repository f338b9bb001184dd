//! Addresses and routes that are there, as the kernel lists them (rtnetlink(7)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::message::{Batch, Flags, attributes};
use super::route::{
    AF_INET, AF_INET6, IFA_ADDRESS, IFA_LOCAL, NEWADDR, NEWROUTE, RTA_OIF, TABLE_MAIN, TYPE_UNICAST, number,
};
use super::socket::{NetlinkError, Socket};

const GETADDR: u16 = 22;
const GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;

fn parse_ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(|b| Ipv4Addr::from(b).into()),
        16 => <[u8; 16]>::try_from(value).ok().map(|b| Ipv6Addr::from(b).into()),
        _ => None,
    }
}

/// An address or a route of the host: which network, and through which interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// What is reached; a default route has prefix length 0.
    pub net: IpNet,
    /// The interface's index.
    pub index: u32,
}

fn address_of(payload: &[u8], wanted: u16) -> Option<(IpAddr, u8, u32)> {
    let (prefix, index) = (*payload.get(1)?, number(payload.get(4..8)?));
    let (_, value) = attributes(payload.get(8..)?).find(|(kind, _)| *kind == wanted)?;
    Some((parse_ip(value)?, prefix, index))
}

pub(super) fn parse_address(payload: &[u8]) -> Option<Reach> {
    let (ip, prefix, index) = address_of(payload, IFA_ADDRESS)?;
    Some(Reach { net: IpNet::new(ip, prefix).ok()?.trunc(), index })
}

fn dump_addresses(socket: &Socket) -> Result<Vec<Vec<u8>>, NetlinkError> {
    let mut batch = Batch::new();
    batch.push("list addresses", GETADDR, Flags::DUMP, &[0; 8], |_| {});
    socket.dump(&batch, NEWADDR)
}

/// The networks of all addresses.
pub fn addresses(socket: &Socket) -> Result<Vec<Reach>, NetlinkError> {
    Ok(dump_addresses(socket)?.iter().filter_map(|p| parse_address(p)).collect())
}

/// All addresses themselves. `IFA_ADDRESS` is the peer's where there is one (rtnetlink(7)).
pub fn own_addresses(socket: &Socket) -> Result<Vec<IpAddr>, NetlinkError> {
    let own =
        |p: &Vec<u8>| address_of(p, IFA_LOCAL).or_else(|| address_of(p, IFA_ADDRESS)).map(|(ip, ..)| ip);
    Ok(dump_addresses(socket)?.iter().filter_map(own).collect())
}

/// The unicast routes of the main table.
pub fn routes(socket: &Socket) -> Result<Vec<Reach>, NetlinkError> {
    let mut batch = Batch::new();
    batch.push("list routes", GETROUTE, Flags::DUMP, &[0; 12], |_| {});
    let mut found = Vec::new();
    socket.each(&batch, NEWROUTE, |payload| found.extend(parse_route(payload)))?;
    Ok(found)
}

pub(super) fn parse_route(payload: &[u8]) -> Option<Reach> {
    let head = payload.get(..12)?;
    if head[4] != TABLE_MAIN || head[7] != TYPE_UNICAST {
        return None;
    }
    let mut ip: IpAddr = match head[0] {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut index = 0;
    for (kind, value) in attributes(&payload[12..]) {
        match kind {
            RTA_DST => ip = parse_ip(value)?,
            RTA_OIF => index = number(value),
            _ => {}
        }
    }
    Some(Reach { net: IpNet::new(ip, head[1]).ok()?, index })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_route_has_prefix_length_zero_and_other_tables_are_left_out() {
        let head = [AF_INET, 0, 0, 0, TABLE_MAIN, 0, 0, TYPE_UNICAST, 0, 0, 0, 0];
        assert_eq!(parse_route(&head).unwrap().net, "0.0.0.0/0".parse::<IpNet>().unwrap());
        let mut local = head;
        local[4] = 255;
        assert_eq!(parse_route(&local), None);
    }
}
