//! What is inside a sandbox's namespace, beside what should be: one visit each to look and to mend.
//!
//! What a container adds by itself (addresses, routes, rules) is its own affair; what we gave it must be there.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use davit_contracts::id::NetworkId;
use davit_sys::netns;

use super::Fault;
use super::sandbox::limit_words;
use crate::driver::inside::{InsideError, Interface, RESOLVER, setting_path};
use crate::driver::inward;
use crate::endpoint::Way;
use crate::netlink::route::{self, Mac};
use crate::netlink::view::{self, Address, Fate, Link, Route};
use crate::netlink::{Batch, Protocol, Socket, adjust, tc};
use crate::{firewall, sysctl};

/// An interface as it should be.
#[derive(Debug, Clone)]
pub(super) struct WantedInterface {
    pub(super) network: NetworkId,
    pub(super) network_name: String,
    pub(super) setup: Interface,
    pub(super) mac: Option<Mac>,
    pub(super) mtu: Option<u32>,
}

/// All that should be inside.
#[derive(Debug, Clone)]
pub(super) struct WantedInside {
    pub(super) interfaces: Vec<WantedInterface>,
    /// Default routes.
    pub(super) routes: Vec<Way>,
    /// Any other default route of the family will do.
    pub(super) yields: bool,
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
    /// It is the resolver's.
    pub(super) resolver: bool,
}

impl Seen {
    fn new(fault: Fault, object: String, detail: impl Into<String>) -> Self {
        Self { fault, object, detail: detail.into(), network: String::new(), rewire: None, resolver: false }
    }
}

/// The kernel's side of a namespace.
#[derive(Debug, Default)]
struct Present {
    links: Vec<Link>,
    addresses: Vec<Address>,
    routes: Vec<Route>,
    limits: Vec<(u32, u64)>,
    /// Of what enters, by the interface's name, where that is wanted.
    inward: BTreeMap<String, u64>,
    /// Those that were asked for.
    settings: BTreeMap<String, String>,
}

fn read(socket: &Socket, wanted: &WantedInside) -> Result<Present, InsideError> {
    let asked = wanted.interfaces.iter().map(|i| &i.setup);
    let paths = asked.flat_map(|i| i.sysctls.iter().map(|(setting, _)| setting_path(setting, &i.name)));
    let (links, limits) = (view::links(socket)?, view::limits(socket)?);
    let mut inwards = BTreeMap::new();
    for setup in wanted.interfaces.iter().map(|i| &i.setup).filter(|s| s.inward.is_some()) {
        if let Some(link) = links.iter().find(|l| l.name == setup.name)
            && let Some(rate) = inward::rate(socket, link, &links, &limits)?
        {
            inwards.insert(setup.name.clone(), rate);
        }
    }
    Ok(Present {
        settings: paths.filter_map(|path| Some((path.clone(), sysctl::get(&path).ok()?))).collect(),
        links,
        addresses: view::addresses(socket)?,
        routes: view::routes(socket)?,
        limits,
        inward: inwards,
    })
}

/// Looks; changes nothing.
pub(super) fn look(netns: BorrowedFd<'_>, wanted: &WantedInside) -> Result<Vec<Seen>, InsideError> {
    netns::visit(netns, || {
        let mut seen = differences(&read(&Socket::open(Protocol::Route)?, wanted)?, wanted);
        if let Some(ports) = wanted.resolver {
            let differences = firewall::resolver_differences(RESOLVER.into(), ports)?;
            seen.extend(differences.into_iter().map(|d| {
                let object = format!("{} inside", d.object);
                Seen { resolver: true, ..Seen::new(d.fault, object, d.detail) }
            }));
        }
        Ok(seen)
    })?
}

fn differences(present: &Present, wanted: &WantedInside) -> Vec<Seen> {
    let mut seen = Vec::new();
    if !present.links.iter().any(|l| l.name == "lo" && l.up) {
        seen.push(Seen::new(Fault::Differs, "interface lo inside".into(), "it is down"));
    }
    for interface in &wanted.interfaces {
        let of = interface_differences(present, interface);
        seen.extend(of.into_iter().map(|s| Seen { network: interface.network_name.clone(), ..s }));
    }
    for way in wanted.routes.iter().filter(|way| !present.has(way, wanted.yields)) {
        let by = way.gateway.map_or_else(|| format!("by {}", way.interface), |ip| format!("via {ip}"));
        let object = format!("default route {by} inside");
        seen.push(Seen::new(Fault::Missing, object, "the container has no way out"));
    }
    seen
}

impl Present {
    fn index(&self, name: &str) -> Option<u32> {
        self.links.iter().find(|l| l.name == name).map(|l| l.index)
    }

    fn has(&self, way: &Way, any: bool) -> bool {
        let index = self.index(&way.interface);
        let default = |r: &&Route| {
            r.net.prefix_len() == 0 && r.net.addr().is_ipv4() == way.ipv4 && r.fate == Fate::Unicast
        };
        let same = |r: &Route| r.gateway == way.gateway && Some(r.index) == index;
        self.routes.iter().filter(default).any(|r| any || same(r))
    }
}

fn interface_differences(present: &Present, wanted: &WantedInterface) -> Vec<Seen> {
    let name = &wanted.setup.name;
    let Some(link) = present.links.iter().find(|l| l.name == *name) else {
        let object = format!("interface {name} inside");
        let seen = Seen::new(Fault::Missing, object, "the container is not wired");
        return vec![Seen { rewire: Some(wanted.network.clone()), ..seen }];
    };
    let mut seen = Vec::new();
    if !link.up {
        seen.push(Seen::new(Fault::Differs, format!("interface {name} inside"), "it is down"));
    }
    if let (Some(mac), Some(is)) = (wanted.mac, link.mac)
        && mac != is
    {
        let detail = format!("it is {is}, and should be {mac}");
        seen.push(Seen::new(Fault::Differs, format!("mac of {name} inside"), detail));
    }
    if let Some(mtu) = wanted.mtu.filter(|mtu| *mtu != link.mtu) {
        let detail = format!("it is {}, and should be {mtu}", link.mtu);
        seen.push(Seen::new(Fault::Differs, format!("MTU of {name} inside"), detail));
    }
    // What a container limits by itself is its own affair.
    if let Some(limit) = wanted.setup.limit {
        let is = present.limits.iter().find(|(index, _)| *index == link.index).map(|(_, rate)| *rate);
        if let Some(detail) = limit_words(Some(limit), is) {
            seen.push(Seen::new(Fault::Differs, format!("limit of {name} inside"), detail));
        }
    }
    if let Some(limit) = wanted.setup.inward
        && let Some(detail) = limit_words(Some(limit), present.inward.get(name).copied())
    {
        seen.push(Seen::new(Fault::Differs, format!("limit of what enters {name} inside"), detail));
    }
    for address in &wanted.setup.addresses {
        if !present.addresses.iter().any(|a| a.index == link.index && a.net == *address) {
            seen.push(Seen::new(Fault::Missing, format!("address {address} on {name} inside"), ""));
        }
    }
    for (setting, value) in &wanted.setup.sysctls {
        let setting = setting_path(setting, name);
        if let Some(is) = present.settings.get(&setting).filter(|is| *is != value) {
            let detail = format!("it is {is}, and should be {value}");
            seen.push(Seen::new(Fault::Differs, format!("setting {setting} inside"), detail));
        }
    }
    seen
}

/// Sets everything as it should be that has an interface.
pub(super) fn mend(netns: BorrowedFd<'_>, wanted: &WantedInside) -> Result<(), InsideError> {
    netns::visit(netns, || {
        let socket = Socket::open(Protocol::Route)?;
        let links = view::links(&socket)?;
        let mut batch = Batch::new();
        for link in links.iter().filter(|l| l.name == "lo") {
            route::set_up(&mut batch, link.index);
        }
        for interface in &wanted.interfaces {
            let setup = &interface.setup;
            let Some(link) = links.iter().find(|l| l.name == setup.name) else { continue };
            if let Some(mac) = interface.mac.filter(|mac| link.mac != Some(*mac)) {
                adjust::set_mac(&mut batch, link.index, mac);
            }
            if let Some(mtu) = interface.mtu.filter(|mtu| *mtu != link.mtu) {
                adjust::set_mtu(&mut batch, link.index, mtu);
            }
            for (setting, value) in &setup.sysctls {
                sysctl::set(&setting_path(setting, &setup.name), value)?;
            }
            if let Some(limit) = setup.inward
                && let Some(link) = route::link(&socket, &setup.name)?
            {
                inward::hold_back(&socket, &link, limit)?;
            }
            if let Some(limit) = setup.limit {
                tc::limit(&mut batch, &setup.name, link.index, limit);
            }
            for address in &setup.addresses {
                route::add_address(&mut batch, link.index, *address);
            }
            route::set_up(&mut batch, link.index);
        }
        socket.run(&batch)?;
        mend_routes(&socket, wanted)
    })?
}

/// After the addresses: a gateway must be reachable first.
fn mend_routes(socket: &Socket, wanted: &WantedInside) -> Result<(), InsideError> {
    let present = read(socket, wanted)?;
    let mut batch = Batch::new();
    for way in wanted.routes.iter().filter(|way| !present.has(way, wanted.yields)) {
        if let Some(index) = present.index(&way.interface) {
            route::add_default_route(&mut batch, way, index);
        }
    }
    if batch.is_empty() { Ok(()) } else { Ok(socket.run(&batch)?) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> WantedInside {
        WantedInside {
            interfaces: vec![WantedInterface {
                network: NetworkId::from_random([7; 32]),
                network_name: "n".into(),
                setup: Interface {
                    name: "eth0".into(),
                    addresses: vec!["10.0.0.2/24".parse().unwrap()],
                    sysctls: Vec::new(),
                    limit: None,
                    inward: None,
                    announced: false,
                },
                mac: Some(Mac([2, 0, 0, 0, 0, 1])),
                mtu: Some(1500),
            }],
            routes: vec![Way {
                ipv4: true,
                gateway: Some("10.0.0.1".parse().unwrap()),
                interface: "eth0".into(),
            }],
            yields: false,
            resolver: None,
        }
    }

    fn present() -> Present {
        let link = |index, name: &str| Link { index, name: name.into(), up: true, ..Link::default() };
        Present {
            links: vec![
                link(1, "lo"),
                Link { mac: Some(Mac([2, 0, 0, 0, 0, 1])), mtu: 1500, ..link(2, "eth0") },
            ],
            addresses: vec![Address { index: 2, net: "10.0.0.2/24".parse().unwrap(), global: true }],
            routes: vec![Route {
                net: "0.0.0.0/0".parse().unwrap(),
                fate: Fate::Unicast,
                gateway: Some("10.0.0.1".parse().unwrap()),
                index: 2,
                source: None,
            }],
            settings: BTreeMap::new(),
            limits: Vec::new(),
            inward: BTreeMap::new(),
        }
    }

    fn told(change: impl FnOnce(&mut Present)) -> Vec<String> {
        let mut present = present();
        change(&mut present);
        differences(&present, &wanted()).into_iter().map(|s| s.object).collect()
    }

    #[test]
    fn each_thing_that_is_not_as_given_is_told() {
        assert_eq!(told(|_| {}), Vec::<String>::new());
        assert_eq!(told(|p| p.links[0].up = false), ["interface lo inside"]);
        assert_eq!(told(|p| p.links[1].up = false), ["interface eth0 inside"]);
        assert_eq!(told(|p| p.links[1].mtu = 9000), ["MTU of eth0 inside"]);
        assert_eq!(told(|p| p.links[1].mac = Some(Mac([2; 6]))), ["mac of eth0 inside"]);
        assert_eq!(told(|p| p.addresses.clear()), ["address 10.0.0.2/24 on eth0 inside"]);
        assert_eq!(told(|p| p.routes.clear()), ["default route via 10.0.0.1 inside"]);
        assert_eq!(
            told(|p| p.links.truncate(1)),
            ["interface eth0 inside", "default route via 10.0.0.1 inside"]
        );
        // What a container adds is its own affair.
        assert_eq!(
            told(|p| p.addresses.push(Address {
                index: 2,
                net: "10.9.0.2/24".parse().unwrap(),
                global: true
            })),
            Vec::<String>::new()
        );
    }
}
