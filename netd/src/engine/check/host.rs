//! The host's side of a check.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::{Engine, EngineError};
use super::mend::Mend;
use super::{Fault, Found};
use crate::driver::bridge::{self, PREFIXES};
use crate::endpoint::Endpoint;
use crate::netlink::view::{self, Address, Link};
use crate::network::{Driver, Network};
use crate::sysctl;

impl Engine {
    pub(super) fn look_at_host(&mut self, detached: &[String]) -> Result<Vec<Found>, EngineError> {
        let links = view::links(&self.socket)?;
        let addresses = view::addresses(&self.socket)?;
        let mut found = Vec::new();
        for network in self.networks.values() {
            match network.driver {
                Driver::Bridge if self.needs_bridge(network) => {
                    self.look_at_bridge(network, &links, &addresses, &mut found);
                }
                Driver::Macvlan | Driver::Ipvlan => look_at_parent(network, &links, &mut found),
                _ => {}
            }
        }
        self.look_for_strays(&links, &mut found);
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

    /// The default bridge is made with its first endpoint, and may be absent until then.
    fn needs_bridge(&self, network: &Network) -> bool {
        !network.predefined
            || self.bases.contains_key(&network.id)
            || self.endpoints_of(&network.id).any(|(_, e)| e.is_bridged())
    }

    fn look_at_bridge(
        &self,
        network: &Network,
        links: &[Link],
        addresses: &[Address],
        found: &mut Vec<Found>,
    ) {
        let name = &network.interface;
        let mend = || Mend::Base(network.id.clone());
        let mut tell = |fault, object: String, detail: String, mend| {
            found.push(Found::new(fault, object, detail, mend).of_network(&network.name));
        };
        let Some(link) = links.iter().find(|l| l.name == *name) else {
            return tell(Fault::Missing, format!("bridge {name}"), String::new(), mend());
        };
        if link.kind != "bridge" || link.group != self.instance.group {
            let detail = "an interface of this name is there that is not ours".to_owned();
            let why = Mend::Nothing("it may be somebody else's: remove or rename it first");
            return tell(Fault::Differs, format!("bridge {name}"), detail, why);
        }
        if !link.up {
            tell(Fault::Differs, format!("bridge {name}"), "it is down".into(), mend());
        }
        let mtu = network.mtu().or(self.bases.get(&network.id).map(|b| b.mtu));
        if let Some(mtu) = mtu.filter(|mtu| *mtu != link.mtu) {
            let detail = format!("it is {}, and should be {mtu}", link.mtu);
            tell(Fault::Differs, format!("MTU of bridge {name}"), detail, mend());
        }
        let wanted = bridge::mac(network);
        if let Some(mac) = link.mac.filter(|mac| *mac != wanted) {
            let detail = format!("it is {mac}, and should be {wanted}");
            tell(Fault::Differs, format!("mac of bridge {name}"), detail, mend());
        }
        let has: Vec<&Address> = addresses.iter().filter(|a| a.index == link.index && a.global).collect();
        let wanted = bridge::addresses(network);
        for address in wanted.iter().filter(|w| !has.iter().any(|a| a.net == **w)) {
            tell(Fault::Missing, format!("address {address} on {name}"), String::new(), mend());
        }
        for stray in has.iter().filter(|a| !wanted.contains(&a.net)) {
            let object = format!("address {} on {name}", stray.net);
            tell(Fault::Stray, object, String::new(), Mend::TakeAddress(link.index, stray.net));
        }
        if network.policy.is_some() && link.filters.is_some_and(|on| on != [true; 2]) {
            let detail = "its packets are not filtered, and the policy does not hold".to_owned();
            tell(Fault::Differs, format!("filter of bridge {name}"), detail, mend());
        }
        for (setting, value) in bridge::settings(network) {
            if let Ok(now) = sysctl::get(&setting)
                && now != value
            {
                let detail = format!("it is {now}, and should be {value}");
                tell(Fault::Differs, format!("setting {setting}"), detail, mend());
            }
        }
    }

    fn look_for_strays(&self, links: &[Link], found: &mut Vec<Found>) {
        let mut known: BTreeSet<&str> = self.networks.values().map(|n| n.interface.as_str()).collect();
        known.extend(self.networks.values().filter_map(|n| n.sublink.as_ref()).map(|s| s.parent.as_str()));
        known.extend(self.sandboxes.values().flat_map(|s| &s.endpoints).map(|e| e.host_interface.as_str()));
        for link in links.iter().filter(|l| l.group == self.instance.group) {
            if known.contains(link.name.as_str()) {
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
        Some(_) => return,
    };
    found.push(one.of_network(&network.name));
}
