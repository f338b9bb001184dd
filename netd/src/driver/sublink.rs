//! macvlan and ipvlan: an interface of the host carries interfaces of sandboxes.
//!
//! An endpoint's interface is born inside the sandbox by one message, so there is no moment at which a kill leaves it on
//! the host. The parent is the host's own, unless it is one that the network's record says how to make: `eth0.50`, or
//! a dummy for a network that leads nowhere. Only such a one bears our mark, and only such a one is ever removed.

use davit_sys::netns;

use super::bridge::mac_of;
use super::{Base, DriverError, Ground, Plug, Plumbing, Unplug, claims, inward};
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
/// All endpoints without an end on the host claim together, so that none is taken for a neighbour's.
struct Wanted<'a> {
    group: u32,
    /// The endpoint, and the others of the namespace.
    claims: Vec<Claim<'a>>,
    /// Whether the namespace is one sandbox's alone. Of one that is named by a path several may have some on a parent.
    alone: bool,
}

/// What one endpoint's interface is.
struct Claim<'a> {
    kinds: &'static [&'static str],
    /// The parent's index on the host.
    parent: Option<u32>,
    endpoint: &'a Endpoint,
}

impl<'a> Claim<'a> {
    fn of(ground: Ground<'_>, network: &Network, endpoint: &'a Endpoint) -> Result<Self, NetlinkError> {
        let kinds: &[_] = match network.driver {
            Driver::Macvlan => &["macvlan", "macvtap"],
            Driver::Ipvlan => &["ipvlan", "ipvtap"],
            // What plugins made.
            _ => &["macvlan", "macvtap", "ipvlan", "ipvtap"],
        };
        let parent = network.sublink.as_ref().map(|s| route::link(ground.socket, &s.parent)).transpose()?;
        Ok(Self { kinds, parent: parent.flatten().map(|l| l.index), endpoint })
    }
}

impl<'a> Wanted<'a> {
    fn of(ground: Ground<'_>, of: &Unplug<'a>) -> Result<Self, NetlinkError> {
        let others = of.peers.iter().filter(|p| !p.endpoint.is_bridged()).map(|p| (p.network, p.endpoint));
        let all = std::iter::once((of.network, of.endpoint)).chain(others);
        Ok(Self {
            group: ground.group,
            claims: all.map(|(network, e)| Claim::of(ground, network, e)).collect::<Result<_, _>>()?,
            alone: of.sandbox.holder.process().is_some(),
        })
    }

    /// The indices of all that the endpoint brought: a container may have put more like it on the same parent, also under
    /// its name.
    fn find(&self, socket: &Socket) -> Result<Vec<u32>, NetlinkError> {
        Ok(self.brought(&view::links(socket)?))
    }

    fn brought(&self, links: &[view::Link]) -> Vec<u32> {
        let given = self.given(links);
        let others = |at: usize| given[1..].contains(&Some(at));
        let brought = |(at, link): &(usize, &view::Link)| self.strength(0, link) > 0 && !others(*at);
        links.iter().enumerate().filter(brought).map(|(_, l)| l.index).collect()
    }

    /// The index of the one that we made, of all that the endpoint brought.
    fn likeliest(&self, links: &[view::Link]) -> Option<u32> {
        self.given(links)[0].map(|at| links[at].index)
    }

    fn given(&self, links: &[view::Link]) -> Vec<Option<usize>> {
        claims::give(self.claims.len(), links.len(), |claim, link| self.strength(claim, &links[link]))
    }

    /// How strong a claim to a link is. A container can fake the rest, so that only tells which of several it is: the mac
    /// before the mark, the mark before the name.
    fn strength(&self, claim: usize, link: &view::Link) -> u8 {
        let Claim { kinds, parent, endpoint } = &self.claims[claim];
        if !kinds.contains(&link.kind.as_str()) {
            return 0;
        }
        // The kernel leaves the parent's index out where it is the interface's own.
        let on_parent = parent.is_some() && *parent == Some(link.parent.unwrap_or(link.index));
        let sits = self.alone && link.beyond.is_some() && on_parent;
        let mac = endpoint.mac.is_some() && link.mac == endpoint.mac;
        let (marked, named) = (link.group == self.group, link.name == endpoint.interface);
        if sits || mac || (named && marked) {
            1 + 8 * u8::from(mac) + 4 * u8::from(marked) + 2 * u8::from(named)
        } else {
            0
        }
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
        let claim = |endpoint| Claim { kinds: &["macvlan", "macvtap"], parent: Some(4), endpoint };
        let wanted = Wanted { group: 9, claims: vec![claim(&mine), claim(&other)], alone: true };
        let link = |name: &str, mac: u8, parent: u32| view::Link {
            index: 7,
            name: name.into(),
            kind: "macvlan".into(),
            mac: Some(Mac([2, 0, 0, 0, 0, mac])),
            parent: Some(parent),
            beyond: Some(0),
            ..view::Link::default()
        };
        let brings = |wanted: &Wanted<'_>, link| !wanted.brought(&[link]).is_empty();
        assert!(brings(&wanted, link("renamed", 77, 4)), "another name, group and mac");
        assert!(brings(&wanted, link("renamed", 1, 5)), "a parent of another name");
        assert!(!brings(&wanted, link("renamed", 2, 4)), "the other endpoint's");
        assert!(!brings(&wanted, link("eth0", 77, 5)), "the container's own name for something else");
        let inside = view::Link { beyond: None, ..link("x", 77, 4) };
        assert!(!brings(&wanted, inside), "it sits on an interface of the container");
        let bridge = view::Link { kind: "bridge".into(), ..link("eth0", 1, 4) };
        assert!(!brings(&wanted, bridge));
        let shared = Wanted { claims: vec![claim(&mine)], alone: false, ..wanted };
        assert!(!brings(&shared, link("eth1", 2, 4)), "another sandbox's of the namespace");
        assert!(brings(&shared, link("renamed", 1, 4)));
        let wanted = Wanted { claims: vec![claim(&mine), claim(&other)], alone: true, ..shared };
        let at = |index, link| view::Link { index, ..link };
        let marked = |link| view::Link { group: 9, ..link };
        let likeliest = |links: [view::Link; 2]| wanted.likeliest(&links);
        assert_eq!(likeliest([at(1, link("eth0", 77, 4)), at(2, link("x", 1, 4))]), Some(2), "our mac");
        assert_eq!(
            likeliest([at(1, link("eth0", 77, 4)), at(2, marked(link("x", 78, 4)))]),
            Some(2),
            "our mark"
        );
        assert_eq!(likeliest([at(1, link("x", 2, 4)), at(2, link("y", 77, 5))]), None);
    }

    #[test]
    fn endpoints_of_one_parent_claim_together() {
        let (mine, other) = (endpoint("eth0", 1), endpoint("eth1", 2));
        let claim = |endpoint| Claim { kinds: &["macvlan", "macvtap"], parent: Some(4), endpoint };
        let link = |index, name: &str, mac: u8| view::Link {
            index,
            name: name.into(),
            kind: "macvlan".into(),
            group: 9,
            mac: Some(Mac([2, 0, 0, 0, 0, mac])),
            parent: Some(4),
            beyond: Some(0),
            ..view::Link::default()
        };
        let of = |first, second| Wanted { group: 9, claims: vec![claim(first), claim(second)], alone: true };
        let both = |links: &[view::Link]| {
            let (mine, other) = (of(&mine, &other), of(&other, &mine));
            assert!(mine.brought(links).iter().all(|index| other.likeliest(links) != Some(*index)));
            [mine.likeliest(links), other.likeliest(links)]
        };
        assert_eq!(both(&[link(1, "eth0", 99)]), [Some(1), None], "its mac was changed, the other's is gone");
        assert_eq!(both(&[link(1, "eth1", 99)]), [None, Some(1)]);
        assert_eq!(both(&[link(1, "eth1", 99), link(2, "eth0", 2)]), [Some(1), Some(2)], "the names changed");
        assert_eq!(both(&[link(1, "eth1", 1)]), [Some(1), None], "the mac tells more than the name");
    }
}
