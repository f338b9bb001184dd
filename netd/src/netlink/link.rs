//! Messages that make interfaces on top of others: macvlan, ipvlan, 802.1Q, and a dummy (linux/if_link.h).

use std::os::fd::{AsRawFd, BorrowedFd};

use super::mac::Mac;
use super::message::{Attrs, Batch, Flags};
use super::route::{
    AF_UNSPEC, IFF_UP, IFLA_ADDRESS, IFLA_GROUP, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO,
    IFLA_MTU, IFLA_NET_NS_FD, NEWLINK, link_head,
};

const DELLINK: u16 = 17;
const IFLA_LINK: u16 = 5;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_FLAGS: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;

/// An interface on top of one of ours, born in another namespace with its final name.
#[derive(Debug)]
pub struct Sub<'a> {
    /// Its name.
    pub inside: &'a str,
    /// The index of what it is on, in the socket's namespace.
    pub parent: u32,
    /// Its address; the kernel's choice when absent.
    pub mac: Option<Mac>,
    /// Its MTU.
    pub mtu: u32,
    /// Interface group that marks it as ours.
    pub group: u32,
    /// The namespace that it is born in.
    pub netns: BorrowedFd<'a>,
}

/// Without `IFLA_LINK_NETNSID` the kernel looks `IFLA_LINK` up where the socket is, not where the interface will be.
fn add_sub(batch: &mut Batch, kind: &str, sub: &Sub<'_>, data: impl FnOnce(&mut Attrs<'_>)) {
    let head = link_head(AF_UNSPEC, 0, 0, 0);
    let label = format!("make {kind} interface {}", sub.inside);
    batch.push(label, NEWLINK, Flags::CREATE_NEW, &head, |a| {
        a.text(IFLA_IFNAME, sub.inside);
        if let Some(mac) = sub.mac {
            a.bytes(IFLA_ADDRESS, &mac.0);
        }
        a.number(IFLA_MTU, sub.mtu);
        a.number(IFLA_LINK, sub.parent);
        a.number(IFLA_GROUP, sub.group);
        a.number(IFLA_NET_NS_FD, sub.netns.as_raw_fd() as u32);
        a.nested(IFLA_LINKINFO, |a| {
            a.text(IFLA_INFO_KIND, kind);
            a.nested(IFLA_INFO_DATA, data);
        });
    });
}

/// Makes a macvlan interface; `mode` is of `enum macvlan_mode`.
pub fn add_macvlan(batch: &mut Batch, sub: &Sub<'_>, mode: u32) {
    add_sub(batch, "macvlan", sub, |a| a.number(IFLA_MACVLAN_MODE, mode));
}

/// Makes an ipvlan interface; `mode` is of `enum ipvlan_mode`, `flags` of `IPVLAN_F_*`.
pub fn add_ipvlan(batch: &mut Batch, sub: &Sub<'_>, mode: u16, flags: u16) {
    add_sub(batch, "ipvlan", sub, |a| {
        a.bytes(IFLA_IPVLAN_MODE, &mode.to_ne_bytes());
        a.bytes(IFLA_IPVLAN_FLAGS, &flags.to_ne_bytes());
    });
}

/// Makes an 802.1Q interface that is up, on the interface with this index.
pub fn add_vlan(batch: &mut Batch, name: &str, on: u32, id: u16, group: u32) {
    let head = link_head(AF_UNSPEC, 0, IFF_UP, IFF_UP);
    batch.push(format!("make vlan interface {name}"), NEWLINK, Flags::CREATE_NEW, &head, |a| {
        a.text(IFLA_IFNAME, name);
        a.number(IFLA_LINK, on);
        a.number(IFLA_GROUP, group);
        a.nested(IFLA_LINKINFO, |a| {
            a.text(IFLA_INFO_KIND, "vlan");
            a.nested(IFLA_INFO_DATA, |a| a.bytes(IFLA_VLAN_ID, &id.to_ne_bytes()));
        });
    });
}

/// Removes the interface with this index, whatever it is called.
pub fn delete(batch: &mut Batch, index: u32) {
    let head = link_head(AF_UNSPEC, index, 0, 0);
    batch.push(format!("delete interface {index}"), DELLINK, Flags::ACK, &head, |_| {});
}

/// Makes an interface that leads nowhere and is up.
pub fn add_dummy(batch: &mut Batch, name: &str, group: u32) {
    let head = link_head(AF_UNSPEC, 0, IFF_UP, IFF_UP);
    batch.push(format!("make dummy interface {name}"), NEWLINK, Flags::CREATE_NEW, &head, |a| {
        a.text(IFLA_IFNAME, name);
        a.number(IFLA_GROUP, group);
        a.nested(IFLA_LINKINFO, |a| a.text(IFLA_INFO_KIND, "dummy"));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// Length, RTM_NEWLINK, request + ack + exclusive + create, sequence 1.
    fn header(len: u8) -> Vec<u8> {
        vec![len, 0, 0, 0, 16, 0, 5, 6, 1, 0, 0, 0, 0, 0, 0, 0]
    }

    fn built(build: impl FnOnce(&mut Batch, &Sub<'_>)) -> (Vec<u8>, u8) {
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut batch = Batch::new();
        let mac = Some(Mac([2, 0xda, 10, 0, 0, 2]));
        let sub = Sub { inside: "eth0", parent: 3, mac, mtu: 1500, group: 9, netns: null.as_fd() };
        build(&mut batch, &sub);
        (batch.bytes().to_vec(), null.as_raw_fd() as u8)
    }

    #[rustfmt::skip]
    fn common(fd: u8, mac: bool) -> Vec<u8> {
        let mut bytes = vec![
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,                  // ifinfomsg: down
            9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0,                  // IFLA_IFNAME
        ];
        if mac {
            bytes.extend([10, 0, 1, 0, 2, 0xda, 10, 0, 0, 2, 0, 0]);         // IFLA_ADDRESS
        }
        bytes.extend([
            8, 0, 4, 0, 0xdc, 5, 0, 0,                                       // IFLA_MTU 1500
            8, 0, 5, 0, 3, 0, 0, 0,                                          // IFLA_LINK
            8, 0, 27, 0, 9, 0, 0, 0,                                         // IFLA_GROUP
            8, 0, 28, 0, fd, 0, 0, 0,                                        // IFLA_NET_NS_FD
        ]);
        bytes
    }

    #[test]
    #[rustfmt::skip]
    fn macvlan_byte_for_byte() {
        let (bytes, fd) = built(|batch, sub| add_macvlan(batch, sub, 4));
        let info = [
            28, 0, 18, 0x80,                                                 // IFLA_LINKINFO
            12, 0, 1, 0, b'm', b'a', b'c', b'v', b'l', b'a', b'n', 0,        // kind
            12, 0, 2, 0x80, 8, 0, 1, 0, 4, 0, 0, 0,                          // IFLA_MACVLAN_MODE: bridge
        ];
        assert_eq!(bytes, [header(116), common(fd, true), info.to_vec()].concat());
    }

    #[test]
    #[rustfmt::skip]
    fn ipvlan_byte_for_byte_and_without_a_mac_of_its_own() {
        let (bytes, fd) = built(|batch, sub| {
            let sub = Sub { mac: None, inside: sub.inside, netns: sub.netns, ..*sub };
            add_ipvlan(batch, &sub, 2, 1);
        });
        let info = [
            36, 0, 18, 0x80,                                                 // IFLA_LINKINFO
            11, 0, 1, 0, b'i', b'p', b'v', b'l', b'a', b'n', 0, 0,           // kind
            20, 0, 2, 0x80,
            6, 0, 1, 0, 2, 0, 0, 0,                                          // IFLA_IPVLAN_MODE: l3s
            6, 0, 2, 0, 1, 0, 0, 0,                                          // IFLA_IPVLAN_FLAGS: private
        ];
        assert_eq!(bytes, [header(112), common(fd, false), info.to_vec()].concat());
    }

    #[test]
    #[rustfmt::skip]
    fn vlan_byte_for_byte() {
        let mut batch = Batch::new();
        add_vlan(&mut batch, "eth0.50", 3, 50, 9);
        let body = [
            0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0,                  // ifinfomsg: up
            12, 0, 3, 0, b'e', b't', b'h', b'0', b'.', b'5', b'0', 0,
            8, 0, 5, 0, 3, 0, 0, 0,                                          // IFLA_LINK
            8, 0, 27, 0, 9, 0, 0, 0,                                         // IFLA_GROUP
            28, 0, 18, 0x80,                                                 // IFLA_LINKINFO
            9, 0, 1, 0, b'v', b'l', b'a', b'n', 0, 0, 0, 0,                  // kind
            12, 0, 2, 0x80, 6, 0, 1, 0, 50, 0, 0, 0,                         // IFLA_VLAN_ID
        ];
        assert_eq!(batch.bytes(), [header(88), body.to_vec()].concat());
    }

    #[test]
    #[rustfmt::skip]
    fn dummy_byte_for_byte() {
        let mut batch = Batch::new();
        add_dummy(&mut batch, "dv-1", 9);
        let body = [
            0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0,                  // ifinfomsg: up
            9, 0, 3, 0, b'd', b'v', b'-', b'1', 0, 0, 0, 0,
            8, 0, 27, 0, 9, 0, 0, 0,                                         // IFLA_GROUP
            16, 0, 18, 0x80,                                                 // IFLA_LINKINFO
            10, 0, 1, 0, b'd', b'u', b'm', b'm', b'y', 0, 0, 0,              // kind
        ];
        assert_eq!(batch.bytes(), [header(68), body.to_vec()].concat());
    }
}
