//! macvlan and ipvlan: an interface of the host carries interfaces of sandboxes.
//!
//! An endpoint's interface is born inside the sandbox by one message, so there is no moment at which a kill leaves it on
//! the host. The parent is the host's own, unless it is one that the network's record says how to make: `eth0.50`, or
//! a dummy for a network that leads nowhere. Only such a one bears our mark, and only such a one is ever removed.

use davit_sys::netns;

use super::bridge::mac_of;
use super::{Base, DriverError, Ground, Plug, Plumbing, Unplug, inward};
use crate::endpoint::Endpoint;
use crate::netlink::link::{self, Sub};
use crate::netlink::route::{self, Link};
use crate::netlink::{Batch, NetlinkError, Protocol, Socket, view};
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
        let wanted = Wanted::of(ground, of)?;
        netns::visit(sandbox, || Ok(!wanted.find(&Socket::open(Protocol::Route)?)?.is_empty()))?
    }

    fn index_inside(&self, ground: Ground<'_>, of: &Unplug<'_>) -> Result<Option<u32>, DriverError> {
        let Some(sandbox) = of.netns else { return Ok(None) };
        let wanted = Wanted::of(ground, of)?;
        netns::visit(sandbox, || Ok(wanted.likeliest(&view::links(&Socket::open(Protocol::Route)?)?)))?
    }

    fn unplug(&self, ground: Ground<'_>, of: &Unplug<'_>) -> Result<(), DriverError> {
        let Some(sandbox) = of.netns else { return Ok(()) };
        let wanted = Wanted::of(ground, of)?;
        netns::visit(sandbox, || {
            let socket = Socket::open(Protocol::Route)?;
            for index in wanted.find(&socket)? {
                let mut batch = Batch::new();
                link::delete(&mut batch, index);
                match socket.run(&batch) {
                    Err(e) if !e.is_missing() => return Err(e.into()),
                    _ => {}
                }
            }
            // Last: an interface that is there after a kill is taken to be whole.
            if of.endpoint.bandwidth.as_ref().is_some_and(|b| b.ingress().is_some()) {
                inward::release(&socket, &of.endpoint.interface)?;
            }
            Ok(())
        })?
    }
}

/// How an endpoint's interface is known inside. A container that may administer its network can rename it, mark it
/// otherwise, give it another mac, and put more like it on the same parent; what they are and what they sit on it cannot
/// change. An interface that has the endpoint's name may be another's, when it was the reason why ours could not be made.
struct Wanted<'a> {
    kinds: [&'static str; 2],
    group: u32,
    /// The parent's index on the host.
    parent: Option<u32>,
    endpoint: &'a Endpoint,
    /// The sandbox's other endpoints without an end on the host.
    others: Vec<&'a Endpoint>,
    /// Whether the namespace is this sandbox's alone. Of one that is named by a path several may have some on a parent.
    alone: bool,
}

impl<'a> Wanted<'a> {
    fn of(ground: Ground<'_>, of: &Unplug<'a>) -> Result<Self, NetlinkError> {
        let ipvlan = of.network.driver == Driver::Ipvlan;
        let other = |e: &&Endpoint| e.id != of.endpoint.id && e.is_wired() && !e.is_bridged();
        Ok(Self {
            kinds: if ipvlan { ["ipvlan", "ipvtap"] } else { ["macvlan", "macvtap"] },
            group: ground.group,
            parent: route::link(ground.socket, &options(of.network).parent)?.map(|l| l.index),
            endpoint: of.endpoint,
            others: of.sandbox.endpoints.iter().filter(other).collect(),
            alone: of.sandbox.holder.process().is_some(),
        })
    }

    /// The indices of all that the endpoint brought.
    fn find(&self, socket: &Socket) -> Result<Vec<u32>, NetlinkError> {
        let links = view::links(socket)?;
        Ok(links.iter().filter(|l| self.is_one(l)).map(|l| l.index).collect())
    }

    /// The index of the one that we made, of all that the endpoint brought: a container may have put more like it on the
    /// same parent, also under its name.
    fn likeliest(&self, links: &[view::Link]) -> Option<u32> {
        let signs = |l: &view::Link| {
            let mac = self.endpoint.mac.is_some() && l.mac == self.endpoint.mac;
            let marked = l.group == self.group;
            2 * (u8::from(mac) + u8::from(marked)) + u8::from(l.name == self.endpoint.interface)
        };
        links.iter().filter(|l| self.is_one(l)).max_by_key(|l| signs(l)).map(|l| l.index)
    }

    fn is_one(&self, link: &view::Link) -> bool {
        let named = |e: &Endpoint| link.name == e.interface && link.group == self.group;
        let others = |e: &&Endpoint| e.mac.map_or_else(|| named(e), |mac| link.mac == Some(mac));
        if !self.kinds.contains(&link.kind.as_str()) || self.others.iter().any(others) {
            return false;
        }
        // The kernel leaves the parent's index out where it is the interface's own.
        let sits =
            self.alone && link.beyond.is_some() && self.parent == Some(link.parent.unwrap_or(link.index));
        let mac = self.endpoint.mac.is_some() && link.mac == self.endpoint.mac;
        sits || mac || named(self.endpoint)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::route::Mac;
    use davit_contracts::id::{EndpointId, NetworkId};

    fn endpoint(interface: &str, mac: u8) -> Endpoint {
        Endpoint {
            id: EndpointId::from_random(rand::random()),
            network: NetworkId::from_random(rand::random()),
            interface: interface.into(),
            host_interface: String::new(),
            mac: Some(Mac([2, 0, 0, 0, 0, mac])),
            ip: None,
            gateway: None,
            ip6: None,
            gateway6: None,
            names: Vec::new(),
            links: std::collections::BTreeMap::new(),
            gateway_priority: 0,
            routed: false,
            bandwidth: None,
            sysctls: Vec::new(),
            foreign: None,
            mtu: None,
            pending: false,
        }
    }

    #[test]
    fn what_an_endpoint_brought_is_known_by_what_it_sits_on() {
        let (mine, other) = (endpoint("eth0", 1), endpoint("eth1", 2));
        let kinds = ["macvlan", "macvtap"];
        let wanted =
            Wanted { kinds, group: 9, parent: Some(4), endpoint: &mine, others: vec![&other], alone: true };
        let link = |name: &str, mac: u8, parent: u32| view::Link {
            index: 7,
            name: name.into(),
            kind: "macvlan".into(),
            mac: Some(Mac([2, 0, 0, 0, 0, mac])),
            parent: Some(parent),
            beyond: Some(0),
            ..view::Link::default()
        };
        assert!(wanted.is_one(&link("renamed", 77, 4)), "another name, group and mac");
        assert!(wanted.is_one(&link("renamed", 1, 5)), "a parent of another name");
        assert!(!wanted.is_one(&link("renamed", 2, 4)), "the other endpoint's");
        assert!(!wanted.is_one(&link("eth0", 77, 5)), "the container's own name for something else");
        let inside = view::Link { beyond: None, ..link("x", 77, 4) };
        assert!(!wanted.is_one(&inside), "it sits on an interface of the container");
        let bridge = view::Link { kind: "bridge".into(), ..link("eth0", 1, 4) };
        assert!(!wanted.is_one(&bridge));
        let shared = Wanted { others: Vec::new(), alone: false, ..wanted };
        assert!(!shared.is_one(&link("eth1", 2, 4)), "another sandbox's of the namespace");
        assert!(shared.is_one(&link("renamed", 1, 4)));
        let wanted = Wanted { others: vec![&other], alone: true, ..shared };
        let at = |index, link| view::Link { index, ..link };
        let marked = |link| view::Link { group: 9, ..link };
        let likeliest = |links: [view::Link; 2]| wanted.likeliest(&links);
        assert_eq!(likeliest([at(1, link("eth0", 77, 4)), at(2, link("x", 1, 4))]), Some(2), "our mac");
        assert_eq!(
            likeliest([at(1, link("eth0", 77, 4)), at(2, marked(link("x", 78, 4)))]),
            Some(2),
            "our mark"
        );
        assert_eq!(likeliest([at(1, link("eth0", 77, 4)), at(2, link("x", 78, 4))]), Some(1), "the name");
        assert_eq!(likeliest([at(1, link("x", 2, 4)), at(2, link("y", 77, 5))]), None);
    }
}
