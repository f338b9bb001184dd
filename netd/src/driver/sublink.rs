//! macvlan and ipvlan: an interface of the host carries interfaces of sandboxes.
//!
//! An endpoint's interface is born inside the sandbox by one message, so there is no moment at which a kill leaves it on
//! the host. The parent is the host's own, unless it is one that the network's record says how to make: `eth0.50`, or
//! a dummy for a network that leads nowhere. Only such a one bears our mark, and only such a one is ever removed.

use davit_sys::netns;

use super::bridge::mac_of;
use super::{Base, DriverError, Ground, Plug, Plumbing, Unplug};
use crate::endpoint::Endpoint;
use crate::netlink::link::{self, Sub};
use crate::netlink::route::{self, Link};
use crate::netlink::{Batch, NetlinkError, Protocol, Socket};
use crate::network::options::{distance, nearest};
use crate::network::sublink::{Made, Mode};
use crate::network::{Driver, Network, Sublink};
use nix::errno::Errno;

/// Networks on an interface of the host.
#[derive(Debug, Clone, Copy)]
pub struct SublinkDriver;

fn options(network: &Network) -> &Sublink {
    network.sublink.as_ref().expect("a network of this driver has its options")
}

impl Plumbing for SublinkDriver {
    fn find(&self, ground: Ground<'_>, network: &Network) -> Result<Option<Base>, DriverError> {
        let options = options(network);
        let Some(parent) = route::link(ground.socket, &options.parent)? else { return Ok(None) };
        if options.made == Some(Made::Dummy) && parent.group != ground.group {
            return Err(DriverError::Foreign(parent.name));
        }
        Ok(Some(base_on(&parent, options)?))
    }

    fn make(&self, ground: Ground<'_>, network: &Network) -> Result<Base, DriverError> {
        let options = options(network);
        let name = &options.parent;
        let mut batch = Batch::new();
        match &options.made {
            None => return Err(no_parent(ground.socket, name)?),
            Some(Made::Dummy) => link::add_dummy(&mut batch, name, ground.group),
            Some(Made::Vlan { on, id }) => {
                let below = route::link(ground.socket, on)?;
                let Some(below) = below else { return Err(no_parent(ground.socket, on)?) };
                check_parent(&below)?;
                link::add_vlan(&mut batch, name, below.index, *id, ground.group);
            }
        }
        let (kind, module) = match options.made {
            Some(Made::Dummy) => ("dummy interfaces, which a network without a parent needs", "dummy"),
            _ => ("802.1Q vlan interfaces", "8021q"),
        };
        ground.socket.run(&batch).map_err(|e| unsupported(e, kind, module))?;
        let parent = route::link(ground.socket, name)?.ok_or_else(|| DriverError::Vanished(name.clone()))?;
        base_on(&parent, options)
    }

    fn remove(&self, ground: Ground<'_>, network: &Network, shared: bool) -> Result<(), DriverError> {
        let options = options(network);
        if shared || options.made.is_none() {
            return Ok(());
        }
        // A vlan that was there before the network is not ours.
        match route::link(ground.socket, &options.parent)? {
            Some(link) if link.group == ground.group => {
                Ok(super::bridge::remove_link(ground.socket, &options.parent)?)
            }
            _ => Ok(()),
        }
    }

    /// Anybody may remove or replace the parent: its index is looked up each time.
    fn is_lasting(&self) -> bool {
        false
    }

    fn plug(&self, ground: Ground<'_>, plug: &Plug<'_>) -> Result<Option<Endpoint>, DriverError> {
        let (endpoint, options) = (plug.endpoint, options(plug.network));
        let fallback = endpoint.addresses().next().map(|a| mac_of(a.addr()));
        let sub = Sub {
            inside: &endpoint.interface,
            parent: plug.base.index,
            mac: endpoint.mac.or(fallback).filter(|_| has_own_mac(plug.network)),
            mtu: plug.base.mtu,
            group: ground.group,
            netns: plug.netns,
        };
        let mut batch = Batch::new();
        let kind = if plug.network.driver == Driver::Ipvlan {
            link::add_ipvlan(&mut batch, &sub, options.mode.number() as u16, options.flag.number());
            "ipvlan"
        } else {
            link::add_macvlan(&mut batch, &sub, options.mode.number());
            "macvlan"
        };
        ground.socket.run(&batch).map(|()| None).map_err(|e| match e.errno() {
            Some(Errno::EEXIST) => DriverError::NameTaken(endpoint.interface.clone()),
            // Another macvlan network of the parent is passthru, or this one is and the parent has endpoints.
            Some(Errno::EBUSY | Errno::EINVAL) => DriverError::ParentBusy(options.parent.clone()),
            _ => unsupported(e, kind, kind),
        })
    }

    fn is_plugged(&self, ground: Ground<'_>, of: &Unplug<'_>) -> Result<bool, DriverError> {
        let Some(sandbox) = of.netns else { return Ok(false) };
        let (name, group) = (&of.endpoint.interface, ground.group);
        netns::visit(sandbox, || {
            let socket = Socket::open(Protocol::Route)?;
            Ok(route::link(&socket, name)?.is_some_and(|l| is_ours(&l, group)))
        })?
    }

    fn unplug(&self, ground: Ground<'_>, of: &Unplug<'_>) -> Result<(), DriverError> {
        let Some(sandbox) = of.netns else { return Ok(()) };
        let (name, group) = (&of.endpoint.interface, ground.group);
        netns::visit(sandbox, || {
            let socket = Socket::open(Protocol::Route)?;
            // An interface of that name may be another's, when it was the reason why ours could not be made.
            match route::link(&socket, name)? {
                Some(link) if is_ours(&link, group) => Ok(super::bridge::remove_link(&socket, name)?),
                _ => Ok(()),
            }
        })?
    }
}

fn is_ours(link: &Link, group: u32) -> bool {
    link.group == group && matches!(link.kind.as_str(), "macvlan" | "ipvlan")
}

/// ipvlan's endpoints have the parent's mac. So has passthru's, which would change the parent's otherwise.
fn has_own_mac(network: &Network) -> bool {
    network.driver == Driver::Macvlan && options(network).mode != Mode::Passthru
}

fn base_on(parent: &Link, options: &Sublink) -> Result<Base, DriverError> {
    check_parent(parent)?;
    match options.mtu {
        Some(wanted) if wanted > parent.mtu => {
            Err(DriverError::Mtu { wanted, most: parent.mtu, parent: parent.name.clone() })
        }
        mtu => Ok(Base { index: parent.index, mtu: mtu.unwrap_or(parent.mtu) }),
    }
}

fn check_parent(parent: &Link) -> Result<(), DriverError> {
    let unfit = |what| Err(DriverError::Unfit { name: parent.name.clone(), what });
    if parent.is_loopback {
        return unfit("the loopback");
    }
    if parent.kind == "ipvlan" || parent.name.starts_with("dvh") {
        return unfit("an endpoint of a network itself");
    }
    if parent.is_up { Ok(()) } else { Err(DriverError::ParentDown(parent.name.clone())) }
}

fn no_parent(socket: &Socket, name: &str) -> Result<DriverError, NetlinkError> {
    let all = route::links(socket)?;
    let near = nearest(name, all.iter().map(|l| l.name.as_str()).filter(|n| *n != "lo"));
    let close = distance(name, near) <= name.len().max(3) / 2;
    Ok(DriverError::NoParent { name: name.to_owned(), nearest: close.then(|| near.to_owned()) })
}

/// "Not supported" is what the kernel answers for a kind of interface that it does not know.
fn unsupported(error: NetlinkError, kind: &'static str, module: &'static str) -> DriverError {
    match error.errno() {
        Some(Errno::EOPNOTSUPP) => DriverError::Unsupported { kind, module },
        _ => error.into(),
    }
}
