//! Changes of what is there already, for repairs (rtnetlink(7)). Each repeats without harm.

use std::net::IpAddr;

use ipnet::IpNet;

use super::mac::Mac;
use super::message::{Batch, Flags};

const NEWLINK: u16 = 16;
const DELADDR: u16 = 21;
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
    }
}
