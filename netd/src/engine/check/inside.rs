//! What is inside a sandbox's namespace, beside what should be: one visit each to look and to mend.
//!
//! What a container adds by itself (addresses, routes, rules) is its own affair; what we gave it must be there.

mod mend;
mod place;
mod routes;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use davit_contracts::id::NetworkId;
use davit_sys::netns;

use super::super::chain;
use super::Fault;
use super::sandbox::limit_words;
use crate::driver::inside::{InsideError, Interface, RESOLVER};
use crate::driver::inward;
use crate::endpoint::Way;
use crate::netlink::route::Mac;
use crate::netlink::tc::{self, Bucket};
use crate::netlink::view::{self, Address, Link, Route};
use crate::netlink::{Protocol, Socket};
use crate::{firewall, sysctl};
pub(super) use mend::{mend, rename_back};
pub(super) use place::Sight;

/// An interface as it should be.
#[derive(Debug, Clone)]
pub(super) struct WantedInterface {
    pub(super) network: NetworkId,
    pub(super) network_name: String,
    pub(super) setup: Interface,
    pub(super) sight: Sight,
    pub(super) mac: Option<Mac>,
    pub(super) mtu: Option<u32>,
    /// Its MTU went down with its parent's at some time, and does not go up with it by itself.
    pub(super) follows: bool,
    /// Paths of settings, and values.
    pub(super) settings: Vec<(String, String)>,
    /// Whether neighbours are asked for by it.
    pub(super) asks: bool,
    /// Of `enum macvlan_mode`, where it is one.
    pub(super) macvlan_mode: Option<u32>,
}

/// All that should be inside.
#[derive(Debug, Clone)]
pub(super) struct WantedInside {
    pub(super) interfaces: Vec<WantedInterface>,
    /// Default routes.
    pub(super) routes: Vec<Way>,
    /// All default routes that we could have given: what is none of them is the container's own.
    pub(super) ways: Vec<Way>,
    /// Any other default route of the family will do.
    pub(super) yields: bool,
    /// Indices of ours that other sandboxes of the namespace have.
    pub(super) others: Vec<u32>,
    /// Ports of our DNS sockets.
    pub(super) resolver: Option<(u16, u16)>,
}

/// Something that is not as it should be inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) fault: Fault,
    pub(super) object: String,
    pub(super) detail: String,
    pub(super) network: String,
    /// The network whose pair of interfaces must be made anew.
    pub(super) rewire: Option<NetworkId>,
    /// Something of the container's own has the name of ours.
    pub(super) in_the_way: bool,
    /// It is the resolver's.
    pub(super) resolver: bool,
}

impl Seen {
    fn new(fault: Fault, object: String, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let network = String::new();
        Self { fault, object, detail, network, rewire: None, in_the_way: false, resolver: false }
    }
}

/// The kernel's side of a namespace.
#[derive(Debug, Default)]
struct Present {
    links: Vec<Link>,
    addresses: Vec<Address>,
    routes: Vec<Route>,
    limits: Vec<Bucket>,
    /// Of what enters, by the interface's name, where that is wanted.
    inward: BTreeMap<String, Bucket>,
    /// Those that were asked for.
    settings: BTreeMap<String, String>,
}

fn read(socket: &Socket, wanted: &WantedInside) -> Result<Present, InsideError> {
    let paths = wanted.interfaces.iter().flat_map(|i| &i.settings).map(|(path, _)| path);
    let (links, limits) = (view::links(socket)?, tc::limits(socket)?);
    let mut inwards = BTreeMap::new();
    for setup in wanted.interfaces.iter().map(|i| &i.setup).filter(|s| s.inward.is_some()) {
        if let Some(link) = links.iter().find(|l| l.name == setup.name)
            && let Some(bucket) = inward::bucket(socket, link, &links, &limits)?
        {
            inwards.insert(setup.name.clone(), bucket);
        }
    }
    Ok(Present {
        settings: paths.filter_map(|path| Some((path.clone(), sysctl::get(path).ok()?))).collect(),
        links,
        addresses: view::addresses(socket)?,
        routes: view::routes(socket)?,
        limits,
        inward: inwards,
    })
}

impl WantedInterface {
    /// The MTU that a link should have and has not. A lower one does no harm: who asks for it inside has a tunnel to think
    /// of. On a parent it is more likely to be what a dip of the parent's left.
    fn other_mtu(&self, link: &Link) -> Option<u32> {
        self.mtu.filter(|mtu| link.mtu > *mtu || (self.follows && link.mtu < *mtu))
    }
}

impl WantedInside {
    /// Without what IPv6 would need on interfaces that have none: turned off by the container's own settings (`--sysctl`, or
    /// from inside), or with an MTU that is too small for it. That is its own affair.
    fn as_the_container_has_it(&self) -> Self {
        let mut wanted = self.clone();
        for interface in &mut wanted.interfaces {
            if interface.setup.has_ipv6() {
                continue;
            }
            let setup = &mut interface.setup;
            setup.addresses.retain(|a| a.addr().is_ipv4());
            wanted.routes.retain(|way| way.ipv4 || way.interface != setup.name);
        }
        wanted
    }

    /// Addresses of our other interfaces that one of ours has, and whose they are: two that have the same answer for one
    /// another.
    fn strays<'a>(
        &'a self,
        present: &'a Present,
        interface: &'a WantedInterface,
    ) -> impl Iterator<Item = (&'a Address, &'a str)> {
        let setup = &interface.setup;
        let index = present.index(&setup.name);
        let there = present.addresses.iter().filter(move |a| Some(a.index) == index);
        there.filter(|a| !setup.addresses.contains(&a.net)).filter_map(|address| {
            let theirs = self.interfaces.iter().find(|i| i.setup.addresses.contains(&address.net))?;
            Some((address, theirs.setup.name.as_str()))
        })
    }
}

/// Looks; changes nothing.
pub(super) fn look(netns: BorrowedFd<'_>, wanted: &WantedInside) -> Result<Vec<Seen>, InsideError> {
    netns::visit(netns, || {
        let wanted = &wanted.as_the_container_has_it();
        let mut seen = differences(&read(&Socket::open(Protocol::Route)?, wanted)?, wanted);
        if let Some(ports) = wanted.resolver {
            let of_resolver = |fault, object: String, detail| Seen {
                resolver: true,
                ..Seen::new(fault, format!("{object} inside"), detail)
            };
            match firewall::resolver_differences(RESOLVER.into(), ports) {
                Ok(found) => seen.extend(found.into_iter().map(|d| of_resolver(d.fault, d.object, d.detail))),
                Err(error) => seen.push(of_resolver(Fault::Differs, "firewall".to_owned(), chain(&error))),
            }
        }
        Ok(seen)
    })?
}

fn differences(present: &Present, wanted: &WantedInside) -> Vec<Seen> {
    let mut seen = Vec::new();
    if !present.links.iter().any(|l| l.name == "lo" && l.up) {
        seen.push(Seen::new(Fault::Differs, "interface lo inside".into(), "it is down"));
    }
    if !present.answers_itself() {
        let object = "address 127.0.0.1/8 on lo inside".to_owned();
        seen.push(Seen::new(Fault::Missing, object, "the resolver cannot be reached"));
    }
    let (wanted, misplaced) = place::place(&present.links, wanted);
    seen.extend(misplaced);
    for interface in &wanted.interfaces {
        let mut of = interface_differences(present, interface);
        of.extend(wanted.strays(present, interface).map(|(address, theirs)| {
            let object = format!("address {} on {} inside", address.net, interface.setup.name);
            Seen::new(Fault::Stray, object, format!("it is that of {theirs}"))
        }));
        seen.extend(of.into_iter().map(|s| Seen { network: interface.network_name.clone(), ..s }));
    }
    seen.extend(routes::differences(present, &wanted));
    seen
}

impl Present {
    fn index(&self, name: &str) -> Option<u32> {
        self.links.iter().find(|l| l.name == name).map(|l| l.index)
    }

    /// Whether the resolver's address is the namespace's own, as far as that does not follow from something else.
    fn answers_itself(&self) -> bool {
        let up = self.links.iter().find(|l| l.name == "lo" && l.up);
        let resolver = IpAddr::from(RESOLVER);
        up.is_none_or(|lo| self.addresses.iter().any(|a| a.index == lo.index && a.net.contains(&resolver)))
    }
}

fn interface_differences(present: &Present, wanted: &WantedInterface) -> Vec<Seen> {
    let name = &wanted.setup.name;
    let Some(link) = present.links.iter().find(|l| l.name == *name) else { return Vec::new() };
    let mut seen = Vec::new();
    if !link.up {
        seen.push(Seen::new(Fault::Differs, format!("interface {name} inside"), "it is down"));
    }
    if wanted.asks && link.mute {
        seen.push(Seen::new(Fault::Differs, format!("interface {name} inside"), "ARP is off"));
    }
    if wanted.macvlan_mode.is_some()
        && link.macvlan_mode.is_some()
        && link.macvlan_mode != wanted.macvlan_mode
    {
        let detail = "it is in another macvlan mode than its network";
        seen.push(Seen::new(Fault::Differs, format!("interface {name} inside"), detail));
    }
    if let (Some(mac), Some(is)) = (wanted.mac, link.mac)
        && mac != is
    {
        let detail = format!("it is {is}, and should be {mac}");
        seen.push(Seen::new(Fault::Differs, format!("mac of {name} inside"), detail));
    }
    if let Some(mtu) = wanted.other_mtu(link) {
        let detail = format!("it is {}, and should be {mtu}", link.mtu);
        seen.push(Seen::new(Fault::Differs, format!("MTU of {name} inside"), detail));
    }
    // What a container limits by itself is its own affair.
    if let Some(limit) = wanted.setup.limit {
        let is = present.limits.iter().find(|b| b.index == link.index).copied();
        if let Some(detail) = limit_words(Some(limit), is) {
            seen.push(Seen::new(Fault::Differs, format!("limit of {name} inside"), detail));
        }
    }
    if let Some(limit) = wanted.setup.inward
        && let Some(detail) = limit_words(Some(limit), present.inward.get(name).copied())
    {
        seen.push(Seen::new(Fault::Differs, format!("limit of what enters {name} inside"), detail));
    }
    // IPv6 goes when an interface is set down, and comes back with it.
    for address in wanted.setup.addresses.iter().filter(|a| link.up || a.addr().is_ipv4()) {
        if !present.addresses.iter().any(|a| a.index == link.index && a.net == *address) {
            seen.push(Seen::new(Fault::Missing, format!("address {address} on {name} inside"), ""));
        }
    }
    for (setting, value) in &wanted.settings {
        if let Some(is) = present.settings.get(setting).filter(|is| *is != value) {
            let detail = format!("it is {is}, and should be {value}");
            seen.push(Seen::new(Fault::Differs, format!("setting {setting} inside"), detail));
        }
    }
    seen
}

#[cfg(test)]
mod tests;
