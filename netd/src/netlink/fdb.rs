//! Where bridges send frames by their addresses: the entries that somebody set, not those that were learned
//! (linux/neighbour.h, bridge(8)).

use std::collections::HashSet;

use super::mac::Mac;
use super::message::{Batch, Flags, attributes};
use super::socket::{NetlinkError, Socket};
use super::view::{dump, number};

const NEWNEIGH: u16 = 28;
const DELNEIGH: u16 = 29;
const GETNEIGH: u16 = 30;
const AF_BRIDGE: u8 = 7;
const NDA_LLADDR: u16 = 2;
const NDA_MASTER: u16 = 9;
/// `NUD_NOARP`: set by somebody; `NUD_PERMANENT`: the port's own address.
const STATIC: u16 = 0x40 | 0x80;
const NTF_MASTER: u8 = 4;

/// An entry that somebody set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// For frames to this address.
    pub mac: Mac,
    /// They leave by this interface; the bridge's own index when the host keeps them.
    pub port: u32,
    /// Of this bridge.
    pub bridge: u32,
}

fn parse(payload: &[u8]) -> Option<Entry> {
    let head = payload.get(..12)?;
    let find = |wanted| attributes(&payload[12..]).find(|(k, _)| *k == wanted).map(|(_, v)| v);
    if head[0] != AF_BRIDGE || u16::from_ne_bytes([head[8], head[9]]) & STATIC == 0 {
        return None;
    }
    Some(Entry {
        mac: Mac(find(NDA_LLADDR)?.try_into().ok()?),
        port: number(&head[4..8]),
        bridge: number(find(NDA_MASTER)?),
    })
}

/// What somebody set for an address on a bridge that has no VLANs.
pub fn set_entry(socket: &Socket, bridge: u32, mac: Mac) -> Result<Option<Entry>, NetlinkError> {
    let mut batch = Batch::new();
    let head = [AF_BRIDGE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    batch.push(format!("ask a bridge for {mac}"), GETNEIGH, Flags::REQUEST, &head, |a| {
        a.number(NDA_MASTER, bridge);
        a.bytes(NDA_LLADDR, &mac.0);
    });
    Ok(socket.get(&batch, NEWNEIGH)?.as_deref().and_then(parse))
}

/// All that somebody set, of all bridges. One that is in several VLANs is told once.
pub fn set_entries(socket: &Socket) -> Result<Vec<Entry>, NetlinkError> {
    let head = [AF_BRIDGE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let found = dump(socket, "list bridges' entries", GETNEIGH, &head, NEWNEIGH)?;
    let mut seen = HashSet::new();
    Ok(found.iter().filter_map(|p| parse(p)).filter(|entry| seen.insert(*entry)).collect())
}

/// Takes an entry away, in all VLANs of its port: the bridge learns again where the address is.
pub fn remove(batch: &mut Batch, entry: &Entry) {
    let mut head = [AF_BRIDGE, 0, 0, 0, 0, 0, 0, 0, 0, 0, NTF_MASTER, 0];
    head[4..8].copy_from_slice(&entry.port.to_ne_bytes());
    batch.push(format!("remove the bridge's entry for {}", entry.mac), DELNEIGH, Flags::ACK, &head, |a| {
        a.bytes(NDA_LLADDR, &entry.mac.0);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::messages;

    #[test]
    fn what_was_learned_is_left_out() {
        let payload = |state: u16| {
            let mut head = [AF_BRIDGE, 0, 0, 0, 7, 0, 0, 0, 0, 0, NTF_MASTER, 0];
            head[8..10].copy_from_slice(&state.to_ne_bytes());
            let mut batch = Batch::new();
            batch.push("x", NEWNEIGH, Flags::REQUEST, &head, |a| {
                a.bytes(NDA_LLADDR, &[2, 0, 0, 0, 0, 1]);
                a.number(NDA_MASTER, 4);
            });
            messages(batch.bytes()).next().unwrap().2.to_vec()
        };
        let entry = Entry { mac: Mac([2, 0, 0, 0, 0, 1]), port: 7, bridge: 4 };
        assert_eq!(parse(&payload(0x40)), Some(entry));
        assert_eq!(parse(&payload(0x02)), None);
    }
}
