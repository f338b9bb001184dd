//! Links, read in full (rtnetlink(7), linux/if_link.h).

use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::mac::Mac;
use super::message::{Batch, Flags, attributes};
use super::route::PortMode;
use super::socket::{NetlinkError, Socket};
use super::view::{dump, number, text};

const NEWLINK: u16 = 16;
const GETLINK: u16 = 18;
const NEWNSID: u16 = 88;
const GETNSID: u16 = 90;

const IFF_UP: u32 = 1;
const IFF_NOARP: u32 = 0x80;
const IFF_LOWER_UP: u32 = 0x1_0000;

/// A link with all that netd sets on one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `bridge`, `veth`, ...; empty for hardware.
    pub kind: String,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// Its MTU.
    pub mtu: u32,
    /// Its group; ours is the instance's mark.
    pub group: u32,
    /// The index of the bridge that it is a port of.
    pub master: Option<u32>,
    /// The index of the interface that it sits on, or of its peer.
    pub parent: Option<u32>,
    /// The number that its namespace has for the one where that is; none where it is the same.
    pub beyond: Option<i32>,
    /// Set up.
    pub up: bool,
    /// Up with something at the other end.
    pub carrier: bool,
    /// Does not ask for neighbours, nor answer who asks for it.
    pub mute: bool,
    /// What leaves it is held back by a token bucket ([`super::tc`]).
    pub limited: bool,
    /// As a bridge: whether it speaks the spanning tree protocol.
    pub stp: bool,
    /// As a bridge: whether its ports have VLANs (`vlan_filtering`).
    pub vlans: bool,
    /// As a macvlan: its mode, of `enum macvlan_mode`.
    pub macvlan_mode: Option<u32>,
    /// As a bridge: whether it hands packets to the packet filter, IPv4 and IPv6.
    pub filters: Option<[bool; 2]>,
    /// As a bridge's port: `BR_STATE_*` (3 is forwarding), and its mode.
    pub port: Option<(u8, PortMode)>,
    /// As a bridge's port: what is not as the kernel makes one, such as `learning off`.
    pub oddities: Vec<&'static str>,
}

/// Flags of a bridge's port: attribute, what the kernel gives one, and how the other is called.
pub(super) const PORT_FLAGS: [(u16, u8, &str); 6] = [
    (8, 1, "learning off"),
    (9, 1, "flood off"),
    (27, 1, "mcast_flood off"),
    (30, 1, "bcast_flood off"),
    (32, 0, "neigh_suppress on"),
    (39, 0, "locked on"),
];

pub(super) fn parse_link(payload: &[u8]) -> Option<Link> {
    let flags = number(payload.get(8..12)?);
    let mut link = Link {
        index: number(payload.get(4..8)?),
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_UP != 0 && flags & IFF_LOWER_UP != 0,
        mute: flags & IFF_NOARP != 0,
        ..Link::default()
    };
    for (kind, value) in attributes(payload.get(16..)?) {
        match kind {
            1 => link.mac = value.try_into().ok().map(Mac),
            3 => link.name = text(value),
            4 => link.mtu = number(value),
            5 => link.parent = Some(number(value)),
            // IFLA_QDISC
            6 => link.limited = text(value) == "tbf",
            10 => link.master = Some(number(value)),
            18 => parse_info(&mut link, value),
            27 => link.group = number(value),
            // IFLA_LINK_NETNSID
            37 => link.beyond = Some(number(value).cast_signed()),
            _ => {}
        }
    }
    Some(link)
}

/// `IFLA_LINKINFO`: the kind, and how its bridge treats it.
fn parse_info(link: &mut Link, info: &[u8]) {
    let mut of_bridge = false;
    for (kind, value) in attributes(info) {
        match kind {
            1 => link.kind = text(value),
            2 if link.kind == "bridge" => {
                let on = |wanted| attributes(value).find(|(k, _)| *k == wanted).map(|(_, v)| v != [0]);
                link.stp = attributes(value).any(|(k, v)| k == 5 && number(v) != 0);
                link.vlans = on(7) == Some(true);
                link.filters = on(36).zip(on(37)).map(|(v4, v6)| [v4, v6]);
            }
            2 if link.kind == "macvlan" => {
                link.macvlan_mode = attributes(value).find(|(k, _)| *k == 1).map(|(_, v)| number(v));
            }
            4 => of_bridge = text(value) == "bridge",
            5 if of_bridge => {
                let byte = |wanted| attributes(value).find(|(k, _)| *k == wanted).map_or(0, |(_, v)| v[0]);
                let mode = PortMode { hairpin: byte(4) != 0, isolated: byte(33) != 0 };
                link.port = Some((byte(1), mode));
                let odd = |(kind, usual, _): &&(u16, u8, _)| {
                    attributes(value).any(|(k, v)| k == *kind && v != [*usual])
                };
                link.oddities = PORT_FLAGS.iter().filter(odd).map(|(.., word)| *word).collect();
            }
            _ => {}
        }
    }
}

/// All links.
pub fn links(socket: &Socket) -> Result<Vec<Link>, NetlinkError> {
    let found = dump(socket, "list interfaces", GETLINK, &[0; 16], NEWLINK)?;
    Ok(found.iter().filter_map(|p| parse_link(p)).collect())
}

/// The number that the socket's namespace has for another, which [`Link::beyond`] tells; none when no link leads there
/// (linux/net_namespace.h).
pub fn namespace_number(socket: &Socket, netns: BorrowedFd<'_>) -> Result<Option<i32>, NetlinkError> {
    let mut batch = Batch::new();
    batch.push("ask for the number of a namespace", GETNSID, Flags::REQUEST, &[0; 4], |a| {
        a.number(3, netns.as_raw_fd() as u32);
    });
    let answer = socket.get(&batch, NEWNSID)?;
    let told = answer.as_deref().and_then(|p| attributes(p.get(4..)?).find(|(kind, _)| *kind == 1));
    // NETNSA_NSID_NOT_ASSIGNED is -1.
    Ok(told.map(|(_, value)| number(value).cast_signed()).filter(|n| *n >= 0))
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
    fn a_bridge_port_is_read_with_its_mode() {
        let mut head = [0; 16];
        head[4..8].copy_from_slice(&7u32.to_ne_bytes());
        head[8..12].copy_from_slice(&(IFF_UP | IFF_LOWER_UP).to_ne_bytes());
        let read = parse_link(&payload(&head, |a| {
            a.text(3, "dvh1");
            a.bytes(1, &[2, 0, 0, 0, 0, 1]);
            a.number(10, 4);
            a.nested(18, |a| {
                a.text(1, "veth");
                a.text(4, "bridge");
                a.nested(5, |a| {
                    a.byte(1, 3);
                    a.byte(4, 1);
                    a.byte(8, 0);
                    a.byte(9, 1);
                    a.byte(33, 0);
                });
            });
        }))
        .unwrap();
        assert_eq!((read.name.as_str(), read.kind.as_str(), read.master), ("dvh1", "veth", Some(4)));
        assert!(read.up && read.carrier);
        assert_eq!(read.port, Some((3, PortMode { hairpin: true, isolated: false })));
        assert_eq!(read.oddities, ["learning off"]);
        assert_eq!(parse_link(&[0; 8]), None);
    }

    #[test]
    fn a_bridge_is_read_with_what_it_does_to_frames() {
        let read = |stp: u32, vlans: u8| {
            parse_link(&payload(&[0; 16], |a| {
                a.nested(18, |a| {
                    a.text(1, "bridge");
                    a.nested(2, |a| {
                        a.number(5, stp);
                        a.byte(7, vlans);
                    });
                });
            }))
            .map(|l| (l.stp, l.vlans))
        };
        assert_eq!(read(0, 0), Some((false, false)));
        assert_eq!(read(1, 0), Some((true, false)));
        assert_eq!(read(0, 1), Some((false, true)));
    }
}
