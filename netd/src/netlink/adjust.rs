//! Changes of what is there already, for repairs (rtnetlink(7)). Each repeats without harm.

use std::net::IpAddr;

use ipnet::IpNet;

use super::links::PORT_FLAGS;
use super::mac::Mac;
use super::message::{Batch, Flags};

const NEWLINK: u16 = 16;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const DELQDISC: u16 = 37;

fn link(batch: &mut Batch, label: String, index: u32, body: impl FnOnce(&mut super::Attrs<'_>)) {
    let mut head = [0; 16];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    batch.push(label, NEWLINK, Flags::ACK, &head, body);
}

fn set_flags(batch: &mut Batch, label: String, index: u32, flags: u32, change: u32) {
    let mut head = [0; 16];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..12].copy_from_slice(&flags.to_ne_bytes());
    head[12..].copy_from_slice(&change.to_ne_bytes());
    batch.push(label, NEWLINK, Flags::ACK, &head, |_| {});
}

/// Sets an MTU.
pub fn set_mtu(batch: &mut Batch, index: u32, mtu: u32) {
    link(batch, format!("set the MTU of interface {index} to {mtu}"), index, |a| a.number(4, mtu));
}

/// Sets an Ethernet address.
pub fn set_mac(batch: &mut Batch, index: u32, mac: Mac) {
    link(batch, format!("set the address of interface {index} to {mac}"), index, |a| a.bytes(1, &mac.0));
}

/// Makes a link a port of a bridge.
pub fn set_master(batch: &mut Batch, index: u32, bridge: u32) {
    link(batch, format!("put interface {index} on bridge {bridge}"), index, |a| a.number(10, bridge));
}

/// Sets the group.
pub fn set_group(batch: &mut Batch, index: u32, group: u32) {
    link(batch, format!("mark interface {index} as ours"), index, |a| a.number(27, group));
}

/// Gives an interface another name.
pub fn set_name(batch: &mut Batch, index: u32, name: &str) {
    link(batch, format!("name interface {index} {name}"), index, |a| a.text(3, name));
}

/// Sets a link down.
pub fn set_down(batch: &mut Batch, index: u32) {
    set_flags(batch, format!("set interface {index} down"), index, 0, 1);
}

/// Has an interface ask for neighbours and answer for itself.
pub fn set_arp(batch: &mut Batch, index: u32) {
    set_flags(batch, format!("turn ARP on for interface {index}"), index, 0, 0x80);
}

/// Turns the spanning tree protocol of a bridge off.
pub fn unset_stp(batch: &mut Batch, index: u32) {
    set_bridge(batch, format!("turn spanning tree off for bridge {index}"), index, |a| a.number(5, 0));
}

/// Has a bridge pass frames on without regard to VLANs. A kernel that knows none for bridges refuses it.
pub fn unset_vlans(batch: &mut Batch, index: u32) {
    set_bridge(batch, format!("turn VLANs off for bridge {index}"), index, |a| a.byte(7, 0));
}

fn set_bridge(batch: &mut Batch, label: String, index: u32, body: impl FnOnce(&mut super::Attrs<'_>)) {
    link(batch, label, index, |a| {
        a.nested(18, |a| {
            a.text(1, "bridge");
            a.nested(2, body);
        });
    });
}

/// Has a macvlan interface have a mode, of `enum macvlan_mode`.
pub fn set_macvlan_mode(batch: &mut Batch, index: u32, mode: u32) {
    link(batch, format!("set the macvlan mode of interface {index}"), index, |a| {
        a.nested(18, |a| {
            a.text(1, "macvlan");
            a.nested(2, |a| a.number(1, mode));
        });
    });
}

/// Gives a bridge's port the flags that the kernel makes one with.
pub fn set_port_flags(batch: &mut Batch, index: u32) {
    set_port(batch, format!("set the bridge port flags of interface {index}"), index, |a| {
        for (kind, usual, _) in PORT_FLAGS {
            a.byte(kind, usual);
        }
    });
}

/// Has a bridge forward for a port, which must have something at its other end.
pub fn set_forwarding(batch: &mut Batch, index: u32) {
    // BR_STATE_FORWARDING
    set_port(batch, format!("have the bridge forward for interface {index}"), index, |a| a.byte(1, 3));
}

fn set_port(batch: &mut Batch, label: String, index: u32, body: impl FnOnce(&mut super::Attrs<'_>)) {
    link(batch, label, index, |a| {
        a.nested(18, |a| {
            a.text(4, "bridge");
            a.nested(5, body);
        });
    });
}

/// Adds the route to the network of an interface's address, as the kernel does with the address.
pub fn add_connected_route(batch: &mut Batch, index: u32, address: IpNet) {
    let ipv4 = address.addr().is_ipv4();
    // RTPROT_KERNEL; RT_SCOPE_LINK, which IPv6 does not have.
    let (family, scope) = if ipv4 { (2, 253) } else { (10, 0) };
    let head = [family, address.prefix_len(), 0, 0, 254, 2, scope, 1, 0, 0, 0, 0];
    let network = address.trunc();
    batch.push(format!("add the route to {network}"), NEWROUTE, Flags::CREATE_NEW, &head, |a| {
        a.ip(1, network.addr());
        a.number(4, index);
        if ipv4 {
            a.ip(7, address.addr());
        } else {
            // IP6_RT_PRIO_ADDRCONF
            a.number(6, 256);
        }
    });
}

/// Gives the loopback the address that it has when it is set up.
pub fn add_loopback_address(batch: &mut Batch, index: u32) {
    let address = IpAddr::from([127, 0, 0, 1]);
    // Permanent, RT_SCOPE_HOST.
    let mut head = [2, 8, 0x80, 254, 0, 0, 0, 0];
    head[4..].copy_from_slice(&index.to_ne_bytes());
    batch.push("give the loopback its address", NEWADDR, Flags::REPLACE, &head, |a| {
        a.ip(2, address);
        a.ip(1, address);
    });
}

/// Takes a limit away: the default queue comes in its place.
pub fn remove_limit(batch: &mut Batch, index: u32) {
    let mut head = [0; 20];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    // TC_H_ROOT
    head[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
    batch.push(format!("remove the limit of interface {index}"), DELQDISC, Flags::ACK, &head, |_| {});
}

/// Takes an address away.
pub fn delete_address(batch: &mut Batch, index: u32, address: IpNet) {
    let family = if address.addr().is_ipv4() { 2 } else { 10 };
    let mut head = [family, address.prefix_len(), 0, 0, 0, 0, 0, 0];
    head[4..].copy_from_slice(&index.to_ne_bytes());
    batch.push(format!("remove address {address}"), DELADDR, Flags::ACK, &head, |a| {
        a.ip(2, address.addr());
        a.ip(1, address.addr());
    });
}

/// Takes a default route away, whoever added it.
pub fn delete_default_route(batch: &mut Batch, ipv4: bool, gateway: Option<IpAddr>, index: u32) {
    // Any protocol, RT_SCOPE_NOWHERE for any scope, any type.
    let head = [if ipv4 { 2 } else { 10 }, 0, 0, 0, 254, 0, 255, 0, 0, 0, 0, 0];
    let label = format!("remove the default route by interface {index}");
    batch.push(label, DELROUTE, Flags::ACK, &head, |a| {
        if let Some(gateway) = gateway {
            a.ip(5, gateway);
        }
        a.number(4, index);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn messages_byte_for_byte() {
        let mut batch = Batch::new();
        set_master(&mut batch, 7, 4);
        delete_address(&mut batch, 7, "10.0.0.1/24".parse().unwrap());
        let expected: Vec<u8> = [
            &[40, 0, 0, 0, 16, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0][..],
            &[0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[8, 0, 10, 0, 4, 0, 0, 0],
            &[40, 0, 0, 0, 21, 0, 5, 0, 2, 0, 0, 0, 0, 0, 0, 0],
            &[2, 24, 0, 0, 7, 0, 0, 0],
            &[8, 0, 2, 0, 10, 0, 0, 1, 8, 0, 1, 0, 10, 0, 0, 1],
        ].concat();
        assert_eq!(batch.bytes(), expected);

        let mut batch = Batch::new();
        unset_vlans(&mut batch, 4);
        let expected: Vec<u8> = [
            &[60, 0, 0, 0, 16, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0][..],
            &[0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[28, 0, 18, 0x80, 11, 0, 1, 0, b'b', b'r', b'i', b'd', b'g', b'e', 0, 0],
            &[12, 0, 2, 0x80, 5, 0, 7, 0, 0, 0, 0, 0],
        ].concat();
        assert_eq!(batch.bytes(), expected);
    }
}
