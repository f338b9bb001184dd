//! A sandbox's side of a check.

use std::os::fd::AsFd;

use davit_contracts::id::NetworkId;

use super::super::attach::open_namespace;
use super::super::{Engine, EngineError};
use super::inside::{self, WantedInside, WantedInterface};
use super::mend::Mend;
use super::{Fault, Found};
use crate::driver::bridge;
use crate::endpoint::{Endpoint, Phase, Sandbox};
use crate::netlink::route::PortMode;
use crate::netlink::tc::Limit;
use crate::netlink::view::{self, Link};
use crate::network::Driver;
use crate::network::sublink::Mode;

impl Engine {
    pub(super) fn look_at_sandbox(&mut self, id: &str) -> Result<Vec<Found>, EngineError> {
        let Some(sandbox) = self.sandboxes.get(id).cloned() else { return Ok(Vec::new()) };
        // Plugins are at work on it.
        if sandbox.phase == Phase::Preparing || sandbox.endpoints.iter().any(Endpoint::is_unfinished) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        if sandbox.holder.is_alive() {
            self.look_at_wired(&sandbox, &mut found)?;
        } else {
            let detail = "its network namespace is gone";
            let mend = Mend::Detach(sandbox.id.clone());
            found.push(Found::new(Fault::Stray, format!("record of {}", sandbox.id), detail, mend));
        }
        Ok(found.into_iter().map(|f| f.of_sandbox(&sandbox.name)).collect())
    }

    fn look_at_wired(&mut self, sandbox: &Sandbox, found: &mut Vec<Found>) -> Result<(), EngineError> {
        if !sandbox.endpoints.iter().any(Endpoint::is_wired) {
            return Ok(());
        }
        let links = view::links(&self.socket)?;
        let limits = view::limits(&self.socket)?;
        for endpoint in sandbox.endpoints.iter().filter(|e| e.is_bridged()) {
            let network = self.networks.get(&endpoint.network).map_or("", |n| n.name.as_str()).to_owned();
            let ends = self.look_at_host_end(sandbox, endpoint, &links, &limits);
            found.extend(ends.into_iter().map(|f| f.of_network(&network)));
        }
        let netns = open_namespace(sandbox)?;
        let wanted = self.wanted_inside(sandbox);
        let seen = inside::look(netns.as_fd(), &wanted)
            .map_err(|source| EngineError::Inside { container: sandbox.name.clone(), source })?;
        found.extend(seen.into_iter().map(|one| {
            let foreign =
                |id: &NetworkId| sandbox.endpoints.iter().any(|e| e.network == *id && e.foreign.is_some());
            let mend = match &one.rewire {
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

    fn look_at_host_end(
        &self,
        sandbox: &Sandbox,
        endpoint: &Endpoint,
        links: &[Link],
        limits: &[(u32, u64)],
    ) -> Vec<Found> {
        let name = &endpoint.host_interface;
        let object = || format!("interface {name}");
        let rewire = || Mend::Rewire(sandbox.id.clone(), endpoint.network.clone());
        let mend = || Mend::Port(sandbox.id.clone(), endpoint.network.clone());
        let Some(link) = links.iter().find(|l| l.name == *name) else {
            return vec![Found::new(Fault::Missing, object(), "the container is not wired", rewire())];
        };
        if link.kind != "veth" {
            let why = Mend::Nothing("it is not ours: remove or rename it first");
            return vec![Found::new(Fault::Differs, object(), "it is not one end of a pair", why)];
        }
        let mut wrong = Vec::new();
        if link.group != self.instance.group {
            wrong.push("it does not bear our mark".to_owned());
        }
        if !link.up {
            wrong.push("it is down".to_owned());
        }
        let bridge = self.networks.get(&endpoint.network).map(|n| n.interface.as_str());
        let master = link.master.and_then(|m| links.iter().find(|l| l.index == m)).map(|l| l.name.as_str());
        if master == bridge {
            let wanted = self.networks.get(&endpoint.network).map(|n| bridge::port_mode(n, sandbox));
            if let (Some((_, mode)), Some(wanted)) = (link.port, wanted)
                && mode != wanted
            {
                wrong.push(format!("its bridge treats it as {}, not as {}", words(mode), words(wanted)));
            }
        } else {
            wrong.push(format!("it is not on bridge {}", bridge.unwrap_or("")));
        }
        if let Some(mtu) = self.bases.get(&endpoint.network).map(|b| b.mtu).filter(|mtu| *mtu != link.mtu) {
            wrong.push(format!("its MTU is {}, and should be {mtu}", link.mtu));
        }
        let limit = endpoint.bandwidth.as_ref().and_then(|b| b.ingress());
        let present = limits.iter().find(|(index, _)| *index == link.index).map(|(_, rate)| *rate);
        wrong.extend(limit_words(limit, present));
        if wrong.is_empty() {
            return Vec::new();
        }
        vec![Found::new(Fault::Differs, object(), wrong.join("; "), mend())]
    }

    /// What should be inside a sandbox.
    pub(super) fn wanted_inside(&self, sandbox: &Sandbox) -> WantedInside {
        let interface = |e: &Endpoint| {
            let network = self.networks.get(&e.network)?;
            // ipvlan and passthru have the parent's.
            let own_mac = match network.driver {
                Driver::Bridge => true,
                Driver::Macvlan => network.sublink.as_ref().is_none_or(|s| s.mode != Mode::Passthru),
                _ => false,
            };
            Some(WantedInterface {
                network: e.network.clone(),
                network_name: network.name.clone(),
                setup: self.interface(e),
                mac: e.mac.filter(|_| own_mac),
                mtu: self.bases.get(&e.network).map(|b| b.mtu).or(network.mtu()),
            })
        };
        WantedInside {
            interfaces: sandbox
                .endpoints
                .iter()
                .filter(|e| e.is_wired() && !e.pending)
                .filter_map(interface)
                .collect(),
            routes: sandbox.ways(),
            ways: sandbox.all_ways(),
            yields: sandbox.holder.process().is_none(),
            resolver: sandbox.resolver,
        }
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

/// What is wrong with a limit, if anything is. Rates are in bytes a second.
pub(super) fn limit_words(wanted: Option<Limit>, present: Option<u64>) -> Option<String> {
    match (wanted.map(Limit::bytes), present) {
        (Some(rate), None) => Some(format!("it lacks its limit of {} bit/s", rate * 8)),
        (Some(rate), Some(is)) if is != rate => {
            Some(format!("it is limited to {} bit/s, and should be to {} bit/s", is * 8, rate * 8))
        }
        (None, Some(is)) => Some(format!("it is limited to {} bit/s", is * 8)),
        _ => None,
    }
}
