//! The rtnetlink messages that netd sends and the answers that it reads (rtnetlink(7), linux/if_link.h).

use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;

pub use super::mac::Mac;
use super::message::{Attrs, Batch, Flags, attributes};
pub use super::reach::{Reach, addresses, own_addresses, routes};
use super::socket::{NetlinkError, Socket};
use crate::endpoint::Way;

pub(super) const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
pub(super) const NEWADDR: u16 = 20;
pub(super) const DELADDR: u16 = 21;
pub(super) const NEWROUTE: u16 = 24;
pub(super) const DELROUTE: u16 = 25;

pub(super) const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
pub(super) const IFLA_NUM_TX_QUEUES: u16 = 31;
pub(super) const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_OPERSTATE: u16 = 16;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_GROUP: u16 = 27;
pub(super) const IFLA_NET_NS_FD: u16 = 28;
pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BR_NF_CALL_IPTABLES: u16 = 36;
const IFLA_BR_NF_CALL_IP6TABLES: u16 = 37;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;

pub(super) const IFA_ADDRESS: u16 = 1;
pub(super) const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
pub(super) const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const OPER_UP: u8 = 6;
pub(super) const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
const IFA_F_NODAD: u8 = 2;
pub(super) const AF_UNSPEC: u8 = 0;
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;
pub(super) const TABLE_MAIN: u8 = 254;
const PROTO_STATIC: u8 = 4;
pub(super) const TYPE_UNICAST: u8 = 1;
const SCOPE_LINK: u8 = 253;

/// A veth pair: one end on a bridge here, the other in a sandbox with its final name.
#[derive(Debug)]
pub struct Veth<'a> {
    /// Our end.
    pub host: &'a str,
    /// The sandbox's end.
    pub inside: &'a str,
    /// Address of the sandbox's end.
    pub mac: Mac,
    /// Of both ends.
    pub mtu: u32,
    /// The bridge's index.
    pub bridge: u32,
    /// Interface group that marks it as ours.
    pub group: u32,
    /// The sandbox's namespace.
    pub netns: BorrowedFd<'a>,
}

pub(super) fn link_head(family: u8, index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut head = [0; 16];
    head[0] = family;
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..12].copy_from_slice(&flags.to_ne_bytes());
    head[12..16].copy_from_slice(&change.to_ne_bytes());
    head
}

/// Makes a bridge that is up, with a fixed mac: a bridge without one changes its address with its ports, and every
/// neighbour cache would go stale.
pub fn add_bridge(batch: &mut Batch, name: &str, mac: Mac, mtu: u32, group: u32) {
    let head = link_head(AF_UNSPEC, 0, IFF_UP, IFF_UP);
    batch.push(format!("make bridge {name}"), NEWLINK, Flags::CREATE_NEW, &head, |a| {
        a.text(IFLA_IFNAME, name);
        a.bytes(IFLA_ADDRESS, &mac.0);
        a.number(IFLA_MTU, mtu);
        a.number(IFLA_GROUP, group);
        a.nested(IFLA_LINKINFO, |a| a.text(IFLA_INFO_KIND, "bridge"));
    });
}

/// Has the host's packet filter see what a bridge passes on (`ip link set NAME type bridge nf_call_iptables 1`).
pub fn set_bridge_filter(batch: &mut Batch, name: &str, on: bool) {
    let head = link_head(AF_UNSPEC, 0, 0, 0);
    batch.push(format!("have packets of bridge {name} filtered"), NEWLINK, Flags::ACK, &head, |a| {
        a.text(IFLA_IFNAME, name);
        a.nested(IFLA_LINKINFO, |a| {
            a.text(IFLA_INFO_KIND, "bridge");
            a.nested(IFLA_INFO_DATA, |a| {
                a.byte(IFLA_BR_NF_CALL_IPTABLES, u8::from(on));
                a.byte(IFLA_BR_NF_CALL_IP6TABLES, u8::from(on));
            });
        });
    });
}

/// Makes a veth pair in one message: our end up and on the bridge, the peer born inside the sandbox.
///
/// Unasked, the kernel makes a queue for each CPU and then uses one; taking the others away costs it a grace period for each
/// direction of each end.
pub fn add_veth(batch: &mut Batch, veth: &Veth<'_>) {
    let head = link_head(AF_UNSPEC, 0, IFF_UP, IFF_UP);
    let label = format!("make veth pair {} - {}", veth.host, veth.inside);
    batch.push(label, NEWLINK, Flags::CREATE_NEW, &head, |a| {
        a.text(IFLA_IFNAME, veth.host);
        a.number(IFLA_MTU, veth.mtu);
        a.number(IFLA_GROUP, veth.group);
        a.number(IFLA_MASTER, veth.bridge);
        one_queue(a);
        a.nested(IFLA_LINKINFO, |a| {
            a.text(IFLA_INFO_KIND, "veth");
            a.nested(IFLA_INFO_DATA, |a| {
                a.group(VETH_INFO_PEER, &link_head(AF_UNSPEC, 0, 0, 0), |a| {
                    a.text(IFLA_IFNAME, veth.inside);
                    a.bytes(IFLA_ADDRESS, &veth.mac.0);
                    a.number(IFLA_MTU, veth.mtu);
                    one_queue(a);
                    a.number(IFLA_NET_NS_FD, veth.netns.as_raw_fd() as u32);
                });
            });
        });
    });
}

fn one_queue(attributes: &mut Attrs<'_>) {
    attributes.number(IFLA_NUM_TX_QUEUES, 1);
    attributes.number(IFLA_NUM_RX_QUEUES, 1);
}

/// How a bridge treats one of its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortMode {
    /// Cut off from other isolated ports.
    pub isolated: bool,
    /// Frames may leave through the port that they came in by.
    pub hairpin: bool,
}

/// Sets a bridge port's mode (`ip link set NAME type bridge_slave ...`).
pub fn set_port_mode(batch: &mut Batch, name: &str, mode: PortMode) {
    let head = link_head(AF_UNSPEC, 0, 0, 0);
    batch.push(format!("set the bridge port mode of {name}"), NEWLINK, Flags::ACK, &head, |a| {
        a.text(IFLA_IFNAME, name);
        a.nested(IFLA_LINKINFO, |a| {
            a.text(IFLA_INFO_SLAVE_KIND, "bridge");
            a.nested(IFLA_INFO_SLAVE_DATA, |a| {
                a.byte(IFLA_BRPORT_MODE, u8::from(mode.hairpin));
                a.byte(IFLA_BRPORT_ISOLATED, u8::from(mode.isolated));
            });
        });
    });
}

/// Removes a link by name.
pub fn delete_link(batch: &mut Batch, name: &str) {
    let head = link_head(AF_UNSPEC, 0, 0, 0);
    batch.push(format!("delete interface {name}"), DELLINK, Flags::ACK, &head, |a| a.text(IFLA_IFNAME, name));
}

/// Sets a link up.
pub fn set_up(batch: &mut Batch, index: u32) {
    let head = link_head(AF_UNSPEC, index, IFF_UP, IFF_UP);
    batch.push(format!("set interface {index} up"), NEWLINK, Flags::ACK, &head, |_| {});
}

/// Adds an address. IPv6 addresses are chosen by us, so duplicate detection would only delay their use.
pub fn add_address(batch: &mut Batch, index: u32, address: IpNet) {
    let (family, flags) = if address.addr().is_ipv4() { (AF_INET, 0) } else { (AF_INET6, IFA_F_NODAD) };
    let mut head = [family, address.prefix_len(), flags, 0, 0, 0, 0, 0];
    head[4..].copy_from_slice(&index.to_ne_bytes());
    batch.push(format!("add address {address}"), NEWADDR, Flags::REPLACE, &head, |a| {
        a.ip(IFA_LOCAL, address.addr());
        a.ip(IFA_ADDRESS, address.addr());
        if let IpNet::V4(v4) = address {
            a.ip(IFA_BROADCAST, v4.broadcast().into());
        }
    });
}

fn default_route(batch: &mut Batch, what: &str, kind: u16, flags: Flags, way: &Way, index: u32) {
    let family = if way.ipv4 { AF_INET } else { AF_INET6 };
    // Without a gateway everything is a neighbour, as far as IPv4 knows (RT_SCOPE_LINK).
    let scope = if way.gateway.is_none() && way.ipv4 { SCOPE_LINK } else { 0 };
    let head = [family, 0, 0, 0, TABLE_MAIN, PROTO_STATIC, scope, TYPE_UNICAST, 0, 0, 0, 0];
    let via = way.gateway.map_or_else(|| way.interface.clone(), |g| g.to_string());
    batch.push(format!("{what} default route via {via}"), kind, flags, &head, |a| {
        if let Some(gateway) = way.gateway {
            a.ip(RTA_GATEWAY, gateway);
        }
        a.number(RTA_OIF, index);
    });
}

/// Sets the default route through the interface with this index, in place of another.
pub fn add_default_route(batch: &mut Batch, way: &Way, index: u32) {
    default_route(batch, "set", NEWROUTE, Flags::REPLACE, way, index);
}

/// Adds the default route through the interface with this index; refused when one is there already.
pub fn add_missing_default_route(batch: &mut Batch, way: &Way, index: u32) {
    default_route(batch, "add", NEWROUTE, Flags::CREATE_NEW, way, index);
}

/// Removes a default route.
pub fn delete_default_route(batch: &mut Batch, way: &Way, index: u32) {
    default_route(batch, "remove", DELROUTE, Flags::ACK, way, index);
}

/// A link as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU.
    pub mtu: u32,
    /// Its group; ours is the instance's mark.
    pub group: u32,
    /// Whether it passes packets: `IF_OPER_UP` (RFC 2863).
    pub operational: bool,
    /// Whether somebody set it up (`IFF_UP`).
    pub is_up: bool,
    /// Whether it is the loopback.
    pub is_loopback: bool,
    /// `bridge`, `veth`, ...; empty for hardware.
    pub kind: String,
}

pub(super) fn number(value: &[u8]) -> u32 {
    value.try_into().map_or(0, u32::from_ne_bytes)
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn parse_link(payload: &[u8]) -> Option<Link> {
    let index = number(payload.get(4..8)?);
    let flags = number(payload.get(8..12)?);
    let mut link = Link {
        index,
        name: String::new(),
        mtu: 0,
        group: 0,
        operational: false,
        is_up: flags & IFF_UP != 0,
        is_loopback: flags & IFF_LOOPBACK != 0,
        kind: String::new(),
    };
    for (kind, value) in attributes(payload.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = number(value),
            IFLA_OPERSTATE => link.operational = value == [OPER_UP],
            IFLA_GROUP => link.group = number(value),
            IFLA_LINKINFO => {
                for (inner, value) in attributes(value) {
                    if inner == IFLA_INFO_KIND {
                        link.kind = text(value);
                    }
                }
            }
            _ => {}
        }
    }
    Some(link)
}

/// Looks a link up by name.
pub fn link(socket: &Socket, name: &str) -> Result<Option<Link>, NetlinkError> {
    Ok(get_link(socket, name)?.as_deref().and_then(parse_link))
}

pub(super) fn get_link(socket: &Socket, name: &str) -> Result<Option<Vec<u8>>, NetlinkError> {
    let mut batch = Batch::new();
    let head = link_head(AF_UNSPEC, 0, 0, 0);
    batch.push(format!("look up interface {name}"), GETLINK, Flags::REQUEST, &head, |a| {
        a.text(IFLA_IFNAME, name);
    });
    socket.get(&batch, NEWLINK)
}

/// The state of a bridge port (`BR_STATE_*`, 3 is forwarding); `None` when it is none.
pub fn port_state(socket: &Socket, name: &str) -> Result<Option<u8>, NetlinkError> {
    let Some(payload) = get_link(socket, name)? else { return Ok(None) };
    let inside = |bytes: &[u8], wanted| {
        attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value.to_vec())
    };
    let state = payload
        .get(16..)
        .and_then(|body| inside(body, IFLA_LINKINFO))
        .and_then(|info| inside(&info, IFLA_INFO_SLAVE_DATA))
        .and_then(|data| inside(&data, IFLA_BRPORT_STATE));
    Ok(state.and_then(|value| value.first().copied()))
}

/// All links.
pub fn links(socket: &Socket) -> Result<Vec<Link>, NetlinkError> {
    let mut batch = Batch::new();
    batch.push("list interfaces", GETLINK, Flags::DUMP, &link_head(AF_UNSPEC, 0, 0, 0), |_| {});
    Ok(socket.dump(&batch, NEWLINK)?.iter().filter_map(|p| parse_link(p)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_bridge_filter_message_byte_for_byte() {
        let mut batch = Batch::new();
        set_bridge_filter(&mut batch, "dv-a", true);
        #[rustfmt::skip]
        let expected: Vec<u8> = [
            &[80, 0, 0, 0, 16, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0][..],
            &[0; 16],
            &[9, 0, 3, 0], b"dv-a\0\0\0\0",
            &[36, 0, 18, 0x80, 11, 0, 1, 0], b"bridge\0\0",
            &[20, 0, 2, 0x80, 5, 0, 36, 0, 1, 0, 0, 0, 5, 0, 37, 0, 1, 0, 0, 0],
        ].concat();
        assert_eq!(batch.bytes(), expected);
    }

    #[test]
    fn a_veth_message_names_the_peer_and_its_namespace() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut batch = Batch::new();
        let veth = Veth {
            host: "dvh1",
            inside: "eth0",
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            bridge: 7,
            group: 9,
            netns: null.as_fd(),
        };
        add_veth(&mut batch, &veth);
        let body = &batch.bytes()[32..];
        let find = |bytes: &[u8], wanted: u16| {
            attributes(bytes).find(|(k, _)| *k == wanted).map(|(_, v)| v.to_vec()).unwrap()
        };
        assert_eq!(find(body, IFLA_IFNAME), b"dvh1\0");
        assert_eq!(find(body, IFLA_MASTER), 7u32.to_ne_bytes());
        let info = find(body, IFLA_LINKINFO);
        assert_eq!(find(&info, IFLA_INFO_KIND), b"veth\0");
        let peer = find(&find(&info, IFLA_INFO_DATA), VETH_INFO_PEER);
        for end in [body, &peer[16..]] {
            assert_eq!(find(end, IFLA_NUM_TX_QUEUES), 1u32.to_ne_bytes());
            assert_eq!(find(end, IFLA_NUM_RX_QUEUES), 1u32.to_ne_bytes());
        }
        assert_eq!(find(&peer[16..], IFLA_IFNAME), b"eth0\0");
        assert_eq!(find(&peer[16..], IFLA_ADDRESS), [2, 0, 0, 0, 0, 1]);
        assert_eq!(find(&peer[16..], IFLA_NET_NS_FD), (null.as_raw_fd() as u32).to_ne_bytes());
    }
}
