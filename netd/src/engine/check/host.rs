//! The host's side of a check.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::{Engine, EngineError};
use super::mend::Mend;
use super::{Fault, Found};
use crate::driver::bridge::PREFIXES;
use crate::endpoint::Endpoint;
use crate::netlink::view::{self, Link};
use crate::network::{Driver, Network};
use crate::sysctl;

impl Engine {
    pub(super) fn look_at_host(&mut self, detached: &[String]) -> Result<Vec<Found>, EngineError> {
        let links = view::links(&self.socket)?;
        let addresses = view::addresses(&self.socket)?;
        let routes = view::routes(&self.socket)?;
        let mut found = Vec::new();
        for network in self.networks.values() {
            match network.driver {
                Driver::Bridge if self.needs_bridge(network) => {
                    self.look_at_bridge(network, &links, (&addresses, &routes), &mut found);
                }
                Driver::Macvlan | Driver::Ipvlan => look_at_parent(network, &links, &mut found),
                _ => {}
            }
        }
        self.look_for_strays(&links, &mut found);
        if let Err(error) = self.look_at_neighbours(&links, &mut found) {
            found.push(Found::unseen("neighbours", &error));
        }
        self.look_at_uplinks(&links, &routes, &mut found);
        if let Err(error) = self.look_at_rules(&mut found) {
            found.push(Found::unseen("firewall rules", &error));
        }
        self.look_at_forwarding(&mut found);
        if let Err(error) = self.look_at_records(detached, &mut found) {
            found.push(Found::unseen("records of containers", &error));
        }
        self.look_at_addresses(&mut found);
        for (id, problems) in &self.problems {
            let Some(network) = self.networks.get(id) else { continue };
            for problem in problems {
                let why = Mend::Nothing("the host's address or route must go, or the network be made anew");
                let object = format!("subnets of network {}", network.name);
                found
                    .push(Found::new(Fault::Differs, object, problem.clone(), why).of_network(&network.name));
            }
        }
        for (host, transport) in self.ports.lost() {
            let object = format!("reservation of port {host}/{}", transport.name());
            let detail = "a program of the host may have the port; it is redirected all the same";
            found.push(Found::new(Fault::Missing, object, detail, Mend::Reservations));
        }
        Ok(found)
    }

    /// Whether it is an end of ours that lost its name.
    fn is_renamed_end(&self, link: &Link, links: &[Link]) -> bool {
        let named = |e: &Endpoint| links.iter().any(|l| l.name == e.host_interface);
        link.beyond.is_some()
            && self.sandboxes.values().any(|sandbox| {
                let mut lost = sandbox.endpoints.iter().filter(|e| e.is_bridged() && !named(e)).peekable();
                let looked = lost.peek().and_then(|_| self.within(sandbox).ok());
                looked.is_some_and(|within| lost.any(|e| within.end_of(links, e) == Some(link)))
            })
    }

    fn look_for_strays(&self, links: &[Link], found: &mut Vec<Found>) {
        let mut known: BTreeSet<&str> = self.networks.values().map(|n| n.interface.as_str()).collect();
        known.extend(self.networks.values().filter_map(|n| n.sublink.as_ref()).map(|s| s.parent.as_str()));
        known.extend(self.sandboxes.values().flat_map(|s| &s.endpoints).map(|e| e.host_interface.as_str()));
        let bridges = self.networks.values().filter(|n| n.driver == Driver::Bridge);
        let bridges: Vec<_> = bridges.filter_map(|n| self.bridge_of(n, links)).map(|l| l.index).collect();
        for link in links.iter().filter(|l| l.group == self.instance.group) {
            // What only has another name is told where it is looked for.
            if known.contains(link.name.as_str())
                || bridges.contains(&link.index)
                || self.is_renamed_end(link, links)
            {
                continue;
            }
            let mend = if link.kind == "vlan" || PREFIXES.iter().any(|p| link.name.starts_with(p)) {
                Mend::RemoveInterface(link.name.clone())
            } else {
                Mend::Nothing(
                    "it bears our mark but not a name of ours: remove it by hand, or take the mark away",
                )
            };
            let detail = "it bears our mark, and no record names it";
            found.push(Found::new(Fault::Stray, format!("interface {}", link.name), detail, mend));
        }
    }

    fn look_at_rules(&mut self, found: &mut Vec<Found>) -> Result<(), EngineError> {
        let differences =
            self.firewall.guard_differences(&self.wanted_guard()).map_err(EngineError::Firewall)?;
        found.extend(differences.into_iter().map(|mut d| {
            d.object.push_str(" of the guard against strangers");
            Found::of_table(d, Mend::Guard)
        }));
        if self.walled.is_empty() {
            if !self.table && self.firewall.is_there().map_err(EngineError::Firewall)? {
                let detail = "no network needs it";
                found.push(Found::new(Fault::Stray, "firewall table", detail, Mend::RemoveRules));
            }
            return Ok(());
        }
        let differences = self.firewall.differences(&self.rules()).map_err(EngineError::Firewall)?;
        found.extend(differences.into_iter().map(|d| Found::of_table(d, Mend::Rules)));
        let policed = self.policed();
        if !policed.is_empty() {
            let differences = self.firewall.policy_differences(&policed).map_err(EngineError::Firewall)?;
            let of_policy = |mut d: crate::firewall::compare::Difference| {
                d.object.push_str(" of policies");
                Found::of_table(d, Mend::Policies)
            };
            found.extend(differences.into_iter().map(of_policy));
        }
        for (setting, value) in self.wanted_settings() {
            match sysctl::get(setting) {
                Ok(now) if now == value => {}
                Ok(now) => {
                    let detail = format!("it is {now}, and should be {value}");
                    found.push(Found::new(Fault::Differs, format!("setting {setting}"), detail, Mend::Rules));
                }
                Err(e) => {
                    let detail = super::super::reconcile::chain(&e);
                    found.push(Found::new(Fault::Missing, format!("setting {setting}"), detail, Mend::Rules));
                }
            }
        }
        Ok(())
    }

    /// Addresses that are taken, and that no endpoint has.
    fn look_at_addresses(&self, found: &mut Vec<Found>) {
        for network in self.networks.values() {
            let held: BTreeSet<IpAddr> = self
                .endpoints_of(&network.id)
                .flat_map(|(_, e)| Endpoint::addresses(e))
                .map(|a| a.addr())
                .collect();
            for ip in self.pools.get(&network.id).into_iter().flatten().flat_map(crate::ipam::Pool::taken) {
                if !held.contains(&ip) {
                    let mend = Mend::Release(network.id.clone(), ip);
                    let detail = "it is reserved, and no endpoint has it";
                    let one = Found::new(Fault::Stray, format!("reserved address {ip}"), detail, mend);
                    found.push(one.of_network(&network.name));
                }
            }
        }
    }
}

/// The interface that a macvlan or ipvlan network stands on.
fn look_at_parent(network: &Network, links: &[Link], found: &mut Vec<Found>) {
    let Some(sublink) = &network.sublink else { return };
    let object = format!("parent interface {}", sublink.parent);
    let one = match links.iter().find(|l| l.name == sublink.parent) {
        None if sublink.made.is_some() => {
            Found::new(Fault::Missing, object, "", Mend::Base(network.id.clone()))
        }
        None => {
            let why = Mend::Nothing("it is the host's own: make it again, or remove the network");
            Found::new(Fault::Missing, object, "nothing can be connected to the network", why)
        }
        Some(link) if !link.up => {
            let why = Mend::Nothing("it is the host's own: set it up with 'ip link set'");
            Found::new(Fault::Differs, object, "it is down", why)
        }
        Some(link) => match sublink.mtu.filter(|wanted| *wanted > link.mtu) {
            Some(wanted) => {
                let detail = format!("its MTU is {}, and the network's is {wanted}", link.mtu);
                let why = Mend::Nothing(
                    "it is the host's own: set it with 'ip link set', or make the network anew",
                );
                Found::new(Fault::Differs, object, detail, why)
            }
            None => return,
        },
    };
    found.push(one.of_network(&network.name));
}
