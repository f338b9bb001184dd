//! A sandbox's side of a check.

use std::os::fd::{AsFd, BorrowedFd};

use davit_contracts::id::NetworkId;

use super::super::attach::open_namespace;
use super::super::{Engine, EngineError};
use super::inside::{self, Sight, WantedInside, WantedInterface};
use super::mend::Mend;
use super::{Fault, Found, NOT_OURS};
use crate::driver::inside::setting_path;
use crate::driver::owned::{End, Within};
use crate::driver::{self, DriverError, Unplug, bridge};
use crate::endpoint::{Endpoint, Phase, Sandbox};
use crate::netlink::route::{self, PortMode};
use crate::netlink::tc::{self, Bucket, Limit};
use crate::netlink::view::{self, Link};
use crate::network::sublink::Mode;
use crate::network::{Driver, Network};

/// Why an interface inside that is not ours stays as it is.
const IN_THE_WAY: &str = "it is the container's own: have it removed or renamed inside first";

impl Engine {
    pub(super) fn look_at_sandbox(&mut self, id: &str) -> Vec<Found> {
        let Some(sandbox) = self.sandboxes.get(id).cloned() else { return Vec::new() };
        // Plugins are at work on it.
        if sandbox.phase == Phase::Preparing || sandbox.endpoints.iter().any(Endpoint::is_unfinished) {
            return Vec::new();
        }
        let mut found = Vec::new();
        if sandbox.holder.is_alive() {
            match self.look_at_wired(&sandbox, &mut found) {
                // It ended while it was looked at.
                Err(_) if !sandbox.holder.is_alive() => return Vec::new(),
                Err(error) => found.push(Found::unseen("interfaces of the container", &error)),
                Ok(()) => {}
            }
        } else {
            let detail = "its network namespace is gone";
            let mend = Mend::Detach(sandbox.id.clone());
            found.push(Found::new(Fault::Stray, format!("record of {}", sandbox.id), detail, mend));
        }
        found.into_iter().map(|f| f.of_sandbox(&sandbox.name)).collect()
    }

    fn look_at_wired(&mut self, sandbox: &Sandbox, found: &mut Vec<Found>) -> Result<(), EngineError> {
        if !sandbox.endpoints.iter().any(Endpoint::is_wired) {
            return Ok(());
        }
        let links = self.links_around(sandbox)?;
        let limited = links.iter().any(|l| l.limited);
        let limits = if limited { tc::limits(&self.socket)? } else { Vec::new() };
        for endpoint in sandbox.endpoints.iter().filter(|e| e.is_bridged()) {
            let network = self.networks.get(&endpoint.network).map_or("", |n| n.name.as_str()).to_owned();
            let ends = self.look_at_host_end(sandbox, endpoint, &links, &limits)?;
            found.extend(ends.into_iter().map(|f| f.of_network(&network)));
        }
        let netns = open_namespace(sandbox)?;
        let mut wanted = self.wanted_inside(sandbox, netns.as_fd())?;
        // The interfaces went with it, and come back with it: that it is gone is told of the host.
        let orphans = sandbox.endpoints.iter().filter(|e| self.lacks_parent(e, &links));
        for orphan in orphans.map(|e| &e.interface) {
            wanted.interfaces.retain(|i| i.setup.name != *orphan);
            wanted.routes.retain(|way| way.interface != *orphan);
        }
        let seen = inside::look(netns.as_fd(), &wanted)
            .map_err(|source| EngineError::Inside { container: sandbox.name.clone(), source })?;
        found.extend(seen.into_iter().map(|one| {
            let foreign =
                |id: &NetworkId| sandbox.endpoints.iter().any(|e| e.network == *id && e.foreign.is_some());
            let mend = match &one.rewire {
                _ if one.in_the_way => Mend::Nothing(IN_THE_WAY),
                Some(network) if foreign(network) => Mend::Nothing(
                    "plugins made it: disconnect the container from the network and connect it again",
                ),
                Some(network) => Mend::Rewire(sandbox.id.clone(), network.clone()),
                None if one.resolver => Mend::Resolver(sandbox.id.clone()),
                None => Mend::Inside(sandbox.id.clone()),
            };
            Found::new(one.fault, one.object, one.detail, mend).of_network(&one.network)
        }));
        if sandbox.resolver.is_some() && !self.names.serves(&sandbox.id) {
            let mend = Mend::Resolver(sandbox.id.clone());
            found.push(Found::new(Fault::Missing, "resolver", "nobody answers at 127.0.0.11", mend));
        }
        Ok(())
    }

    /// Whether an endpoint's parent is gone that is not ours to make.
    fn lacks_parent(&self, endpoint: &Endpoint, links: &[Link]) -> bool {
        let sublink = self.networks.get(&endpoint.network).and_then(|n| n.sublink.as_ref());
        sublink.is_some_and(|s| s.made.is_none() && !links.iter().any(|l| l.name == s.parent))
    }

    /// What tells which ends on the host are a sandbox's.
    pub(super) fn within(&self, sandbox: &Sandbox) -> Result<Within, DriverError> {
        match sandbox.holder.namespace() {
            Ok(netns) => {
                let all = self.siblings(sandbox).chain([sandbox]).flat_map(|s| &s.endpoints);
                Within::look(self.ground(), netns.as_fd(), all)
            }
            Err(_) => Ok(Within::default()),
        }
    }

    fn look_at_host_end(
        &self,
        sandbox: &Sandbox,
        endpoint: &Endpoint,
        links: &[Link],
        limits: &[Bucket],
    ) -> Result<Vec<Found>, EngineError> {
        let name = &endpoint.host_interface;
        let differs =
            |detail: String, mend| Found::new(Fault::Differs, format!("interface {name}"), detail, mend);
        let mend = || Mend::Port(sandbox.id.clone(), endpoint.network.clone());
        let end = End::find(links, endpoint, self.instance.group, || self.within(sandbox));
        let (link, renamed) = match end.map_err(|source| self.of_wire(sandbox, endpoint, source))? {
            End::Ours(link) => (link, None),
            End::Renamed(link) => (link, Some(format!("it is called {}", link.name))),
            End::Foreign(_) => {
                let why = Mend::Nothing("it may be somebody else's: remove or rename it first");
                return Ok(vec![differs(NOT_OURS.to_owned(), why)]);
            }
            End::Gone => {
                let rewire = Mend::Rewire(sandbox.id.clone(), endpoint.network.clone());
                let object = format!("interface {name}");
                return Ok(vec![Found::new(Fault::Missing, object, "the container is not wired", rewire)]);
            }
        };
        let mut wrong: Vec<String> = renamed.into_iter().collect();
        wrong.extend(self.port_words(sandbox, endpoint, link, links, limits));
        Ok(if wrong.is_empty() { Vec::new() } else { vec![differs(wrong.join("; "), mend())] })
    }

    /// What is wrong with our end of a pair.
    fn port_words(
        &self,
        sandbox: &Sandbox,
        endpoint: &Endpoint,
        link: &Link,
        links: &[Link],
        limits: &[Bucket],
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        if link.group != self.instance.group {
            wrong.push("it does not bear our mark".to_owned());
        }
        if !link.up {
            wrong.push("it is down".to_owned());
        }
        let Some(network) = self.networks.get(&endpoint.network) else { return wrong };
        let bridge = self.bridge_of(network, links);
        if link.master.is_some() && link.master == bridge.map(|b| b.index) {
            let wanted = bridge::port_mode(network, sandbox);
            if let Some((_, mode)) = link.port.filter(|(_, mode)| *mode != wanted) {
                wrong.push(format!("its bridge treats it as {}, not as {}", words(mode), words(wanted)));
            }
            let up = link.carrier && bridge.is_some_and(|b| b.up);
            if up && !bridge::forwards_soon(&self.socket, &link.name).unwrap_or(true) {
                wrong.push("its bridge does not forward for it".to_owned());
            }
            if !link.oddities.is_empty() {
                wrong.push(format!("its bridge has it with {}", link.oddities.join(", ")));
            }
            if let Some(entry) = self.diverted(endpoint, link).first() {
                let all = view::links(&self.socket).unwrap_or_default();
                let to = all.iter().find(|l| l.index == entry.port).map_or("", |l| l.name.as_str());
                wrong.push(format!("its bridge sends what is for {} to {to}", entry.mac));
            }
        } else {
            wrong.push(format!("it is not on bridge {}", network.interface));
        }
        if let Some(mtu) = self.bases.get(&endpoint.network).map(|b| b.mtu).filter(|mtu| *mtu != link.mtu) {
            wrong.push(format!("its MTU is {}, and should be {mtu}", link.mtu));
        }
        let limit = endpoint.bandwidth.as_ref().and_then(|b| b.ingress());
        let present = limits.iter().find(|b| b.index == link.index).copied();
        wrong.extend(limit_words(limit, present));
        wrong
    }

    /// The MTU that an endpoint's interface inside got; on a parent, as far as that lets it be now.
    fn mtu_inside(&self, network: &Network, endpoint: &Endpoint) -> Option<u32> {
        let Some(sublink) = &network.sublink else {
            return self.bases.get(&network.id).map(|b| b.mtu).or(network.mtu());
        };
        let parent = route::link(&self.socket, &sublink.parent).ok().flatten()?.mtu;
        endpoint.mtu.map(|given| given.min(parent))
    }

    /// By what an endpoint's interface is found inside.
    fn sight(&self, sandbox: &Sandbox, e: &Endpoint, netns: BorrowedFd<'_>) -> Result<Sight, EngineError> {
        let network = &self.networks[&e.network];
        // In a namespace with a sandbox a network others may have some on the same parent.
        let alone = network.driver == Driver::Bridge || sandbox.holder.process().is_some();
        let Some(driver) = driver::of(network.driver) else { return Ok(Sight::Name(e.mac)) };
        let peers = &self.peers(sandbox, e);
        let of = Unplug { network, sandbox, endpoint: e, netns: Some(netns), peers };
        let index = driver.index_inside(self.ground(), &of);
        let index = index.map_err(|source| self.of_wire(sandbox, e, source))?;
        Ok(index.map_or(if alone { Sight::Gone } else { Sight::Name(None) }, Sight::Index))
    }

    /// The indices of what other sandboxes have in a sandbox's namespace.
    fn others_inside(&self, sandbox: &Sandbox, netns: BorrowedFd<'_>) -> Result<Vec<u32>, EngineError> {
        let mut others = Vec::new();
        for sibling in self.siblings(sandbox) {
            for e in
                sibling.endpoints.iter().filter(|e| e.is_wired() && self.networks.contains_key(&e.network))
            {
                match self.sight(sibling, e, netns)? {
                    Sight::Index(index) => others.push(index),
                    Sight::Name(_) | Sight::Gone => {}
                }
            }
        }
        Ok(others)
    }

    /// What should be inside a sandbox.
    pub(super) fn wanted_inside(
        &self,
        sandbox: &Sandbox,
        netns: BorrowedFd<'_>,
    ) -> Result<WantedInside, EngineError> {
        let interface = |e: &Endpoint| {
            let network = self.networks.get(&e.network)?;
            let sight = match self.sight(sandbox, e, netns) {
                Ok(sight) => sight,
                Err(e) => return Some(Err(e)),
            };
            // ipvlan and passthru have the parent's.
            let own_mac = match network.driver {
                Driver::Bridge => true,
                Driver::Macvlan => network.sublink.as_ref().is_none_or(|s| s.mode != Mode::Passthru),
                _ => false,
            };
            let sub = |driver| network.sublink.as_ref().filter(|_| network.driver == driver);
            let asked =
                |(setting, value): &(String, String)| (setting_path(setting, &e.interface), value.clone());
            let settings = e.sysctls.iter().map(asked).collect();
            Some(Ok(WantedInterface {
                sight,
                settings,
                asks: e.foreign.is_none() && matches!(network.driver, Driver::Bridge | Driver::Macvlan),
                network: e.network.clone(),
                network_name: network.name.clone(),
                setup: self.interface(e),
                mac: e.mac.filter(|_| own_mac),
                macvlan_mode: sub(Driver::Macvlan).map(|s| s.mode.number()),
                mtu: self.mtu_inside(network, e),
                follows: network.sublink.is_some(),
            }))
        };
        Ok(WantedInside {
            interfaces: sandbox
                .endpoints
                .iter()
                .filter(|e| e.is_wired() && !e.pending)
                .filter_map(interface)
                .collect::<Result<_, EngineError>>()?,
            others: self.others_inside(sandbox, netns)?,
            routes: sandbox.ways(),
            ways: sandbox.all_ways(),
            yields: sandbox.holder.process().is_none(),
            resolver: sandbox.resolver,
        })
    }
}

fn words(mode: PortMode) -> &'static str {
    match (mode.isolated, mode.hairpin) {
        (false, false) => "an ordinary port",
        (true, false) => "an isolated port",
        (false, true) => "a hairpin port",
        (true, true) => "an isolated hairpin port",
    }
}

/// What is wrong with a limit, if anything is.
pub(super) fn limit_words(wanted: Option<Limit>, present: Option<Bucket>) -> Option<String> {
    match (wanted, present) {
        (Some(limit), None) => Some(format!("it lacks its limit of {} bit/s", limit.bytes() * 8)),
        (Some(limit), Some(is)) => is.differs_from(limit),
        (None, Some(is)) => Some(format!("it is limited to {} bit/s", is.rate * 8)),
        (None, None) => None,
    }
}
