//! Which Ethernet addresses the kernel has for the addresses of neighbours (arp(7), linux/neighbour.h).

use std::net::IpAddr;

use super::mac::Mac;
use super::message::{Batch, Flags, attributes};
use super::socket::{NetlinkError, Socket};
use super::view::{dump, ip, number};

const NEWNEIGH: u16 = 28;
const DELNEIGH: u16 = 29;
const GETNEIGH: u16 = 30;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_INCOMPLETE: u16 = 0x01;
const NUD_FAILED: u16 = 0x20;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;

/// What is known of an address on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The link's index.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// The state's bits (`NUD_*`).
    pub state: u16,
}

impl Neighbour {
    /// Nobody answered when it was last asked for, or it is being asked for.
    pub fn is_silent(&self) -> bool {
        self.state & (NUD_FAILED | NUD_INCOMPLETE) != 0
    }

    /// Somebody set it, and no answer of the neighbour changes it.
    pub fn is_set(&self) -> bool {
        self.state & (NUD_PERMANENT | NUD_NOARP) != 0
    }

    /// The word that `ip neigh` has for the state.
    pub fn word(&self) -> &'static str {
        match self.state {
            NUD_INCOMPLETE => "incomplete",
            0x02 => "reachable",
            0x04 => "stale",
            0x08 => "delay",
            0x10 => "probe",
            NUD_FAILED => "failed",
            NUD_NOARP => "noarp",
            NUD_PERMANENT => "permanent",
            _ => "unknown",
        }
    }
}

fn parse(payload: &[u8]) -> Option<Neighbour> {
    let head = payload.get(..12)?;
    let find = |wanted| attributes(&payload[12..]).find(|(k, _)| *k == wanted).map(|(_, v)| v);
    Some(Neighbour {
        index: number(&head[4..8]),
        ip: ip(find(NDA_DST)?)?,
        mac: find(NDA_LLADDR).and_then(|v| v.try_into().ok()).map(Mac),
        state: u16::from_ne_bytes([head[8], head[9]]),
    })
}

fn of_family(socket: &Socket, family: u8) -> Result<Vec<Neighbour>, NetlinkError> {
    let head = [family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let found = dump(socket, "list neighbours", GETNEIGH, &head, NEWNEIGH)?;
    Ok(found.iter().filter_map(|p| parse(p)).collect())
}

/// All neighbours of both families.
pub fn neighbours(socket: &Socket) -> Result<Vec<Neighbour>, NetlinkError> {
    let mut all = of_family(socket, AF_INET)?;
    all.append(&mut of_family(socket, AF_INET6)?);
    Ok(all)
}

/// The neighbour with this address on a link, when the kernel has an entry.
pub fn neighbour(socket: &Socket, index: u32, of: IpAddr) -> Result<Option<Neighbour>, NetlinkError> {
    let all = of_family(socket, if of.is_ipv4() { AF_INET } else { AF_INET6 })?;
    Ok(all.into_iter().find(|n| n.index == index && n.ip == of))
}

/// Takes an entry away: who the neighbour is, is asked again.
pub fn remove(batch: &mut Batch, index: u32, ip: IpAddr) {
    let mut head = [if ip.is_ipv4() { AF_INET } else { AF_INET6 }, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    batch.push(format!("remove the neighbour {ip} of interface {index}"), DELNEIGH, Flags::ACK, &head, |a| {
        a.ip(NDA_DST, ip);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::messages;

    #[test]
    fn an_entry_is_read_and_removed() {
        let ip: IpAddr = "10.0.0.2".parse().unwrap();
        let mut batch = Batch::new();
        let mut head = [AF_INET, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
        head[8] = 0x80;
        batch.push("x", NEWNEIGH, Flags::REQUEST, &head, |a| {
            a.ip(NDA_DST, ip);
            a.bytes(NDA_LLADDR, &[2, 0, 0, 0, 0, 1]);
        });
        let read = parse(messages(batch.bytes()).next().unwrap().2).unwrap();
        assert_eq!((read.index, read.ip, read.mac), (7, ip, Some(Mac([2, 0, 0, 0, 0, 1]))));
        assert!(read.is_set() && !read.is_silent() && read.word() == "permanent");
        let mut batch = Batch::new();
        remove(&mut batch, 7, ip);
        let expected = [36, 0, 0, 0, 29, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(batch.bytes()[..16], expected);
        assert_eq!(batch.bytes()[16..], [2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 1, 0, 10, 0, 0, 2]);
    }
}
