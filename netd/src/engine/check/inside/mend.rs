//! Mending of what is inside: what an attach gives, given again.

use std::os::fd::BorrowedFd;

use davit_sys::netns;

use super::{WantedInside, WantedInterface, place, read, routes};
use crate::driver::inside::InsideError;
use crate::driver::inward;
use crate::netlink::view::{self, Link};
use crate::netlink::{Batch, Protocol, Socket, adjust, route, tc};
use crate::sysctl;

/// Sets everything as it should be that has an interface, also one that has another name.
pub(in super::super) fn mend(netns: BorrowedFd<'_>, wanted: &WantedInside) -> Result<(), InsideError> {
    netns::visit(netns, || {
        let socket = Socket::open(Protocol::Route)?;
        let named = place::rename_back(&socket, wanted);
        let (wanted, _) = place::place(&view::links(&socket)?, wanted);
        let wanted = &wanted.as_the_container_has_it();
        let present = read(&socket, wanted)?;
        let mut batch = Batch::new();
        for link in present.links.iter().filter(|l| l.name == "lo") {
            route::set_up(&mut batch, link.index);
            if !present.answers_itself() {
                adjust::add_loopback_address(&mut batch, link.index);
            }
        }
        for (setting, value) in wanted.interfaces.iter().flat_map(|i| &i.settings) {
            if present.settings.get(setting).is_some_and(|is| is != value) {
                sysctl::set(setting, value)?;
            }
        }
        for interface in &wanted.interfaces {
            if let Some(link) = present.links.iter().find(|l| l.name == interface.setup.name) {
                for (address, _) in wanted.strays(&present, interface) {
                    adjust::delete_address(&mut batch, link.index, address.net);
                }
                mend_interface(&socket, interface, link, &mut batch)?;
            }
        }
        let changed = socket.run(&batch);
        // After the addresses: a gateway must be reachable first. What did not succeed need not be in the way.
        routes::mend(&socket, &read(&socket, wanted)?, wanted)?;
        Ok(changed.and(named)?)
    })?
}

/// Gives interfaces their names back.
pub(in super::super) fn rename_back(netns: BorrowedFd<'_>, wanted: &WantedInside) -> Result<(), InsideError> {
    netns::visit(netns, || Ok(place::rename_back(&Socket::open(Protocol::Route)?, wanted)?))?
}

fn mend_interface(
    socket: &Socket,
    interface: &WantedInterface,
    link: &Link,
    batch: &mut Batch,
) -> Result<(), InsideError> {
    let setup = &interface.setup;
    if let Some(mode) = interface.macvlan_mode.filter(|m| link.macvlan_mode.is_some_and(|is| is != *m)) {
        adjust::set_macvlan_mode(batch, link.index, mode);
    }
    if let Some(mac) = interface.mac.filter(|mac| link.mac != Some(*mac)) {
        adjust::set_mac(batch, link.index, mac);
    }
    if let Some(mtu) = interface.other_mtu(link) {
        adjust::set_mtu(batch, link.index, mtu);
    }
    if interface.asks && link.mute {
        adjust::set_arp(batch, link.index);
    }
    if let Some(limit) = setup.inward
        && let Some(link) = route::link(socket, &setup.name)?
    {
        inward::hold_back(socket, &link, limit)?;
    }
    if let Some(limit) = setup.limit {
        tc::limit(batch, &setup.name, link.index, limit);
    }
    for address in &setup.addresses {
        route::add_address(batch, link.index, *address);
    }
    route::set_up(batch, link.index);
    Ok(())
}
