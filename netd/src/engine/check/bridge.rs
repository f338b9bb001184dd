//! Bridges, as they are on the host.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::super::{Engine, EngineError};
use super::mend::Mend;
use super::{Fault, Found, NOT_OURS};
use crate::driver::{bridge, owned};
use crate::netlink::neighbours::{self, Neighbour};
use crate::netlink::view::{Address, Fate, Link, Route};
use crate::network::{Driver, Network};
use crate::sysctl;

const FORWARDS: (&str, &str) = ("net/ipv4/ip_forward", "1");

impl Engine {
    /// The bridge of a network, whatever it is called.
    pub(super) fn bridge_of<'a>(&self, network: &Network, links: &'a [Link]) -> Option<&'a Link> {
        let index = self.bases.get(&network.id).map(|b| b.index);
        let ends: Vec<&str> =
            self.endpoints_of(&network.id).map(|(_, e)| e.host_interface.as_str()).collect();
        owned::bridge(links, network, self.instance.group, index, &ends)
    }

    /// The default bridge is made with its first endpoint, and may be absent until then.
    pub(super) fn needs_bridge(&self, network: &Network) -> bool {
        !network.predefined
            || self.bases.contains_key(&network.id)
            || self.endpoints_of(&network.id).any(|(_, e)| e.is_bridged())
    }

    pub(super) fn look_at_bridge(
        &self,
        network: &Network,
        links: &[Link],
        (addresses, routes): (&[Address], &[Route]),
        found: &mut Vec<Found>,
    ) {
        let name = &network.interface;
        let mend = || Mend::Base(network.id.clone());
        let mut tell = |fault, object: String, detail: String, mend| {
            found.push(Found::new(fault, object, detail, mend).of_network(&network.name));
        };
        let link = self.bridge_of(network, links);
        let named = links.iter().find(|l| l.name == *name);
        if named.is_some_and(|named| link.is_none_or(|l| l.index != named.index)) {
            let detail = match link {
                Some(link) => format!("it is called {}, and another interface has its name", link.name),
                None => NOT_OURS.to_owned(),
            };
            let why = Mend::Nothing("it may be somebody else's: remove or rename it first");
            return tell(Fault::Differs, format!("bridge {name}"), detail, why);
        }
        let Some(link) = link else {
            return tell(Fault::Missing, format!("bridge {name}"), String::new(), mend());
        };
        if link.name != *name {
            tell(Fault::Differs, format!("bridge {name}"), format!("it is called {}", link.name), mend());
        }
        if link.group != self.instance.group {
            tell(Fault::Differs, format!("bridge {name}"), "it does not bear our mark".into(), mend());
        }
        if !link.up {
            tell(Fault::Differs, format!("bridge {name}"), "it is down".into(), mend());
        }
        if link.mute {
            tell(Fault::Differs, format!("bridge {name}"), "ARP is off".into(), mend());
        }
        if link.stp {
            let detail = "it speaks the spanning tree protocol, and its ports wait".to_owned();
            tell(Fault::Differs, format!("bridge {name}"), detail, mend());
        }
        if link.vlans {
            let detail = "its ports have VLANs, which may keep containers apart".to_owned();
            tell(Fault::Differs, format!("bridge {name}"), detail, mend());
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
        // IPv6 goes when an interface is set down, and comes back with it.
        let lost = |w: &&IpNet| (link.up || w.addr().is_ipv4()) && !has.iter().any(|a| a.net == **w);
        for address in wanted.iter().filter(lost) {
            tell(Fault::Missing, format!("address {address} on {name}"), String::new(), mend());
        }
        for address in lost_routes(network, link, addresses, routes) {
            let object = format!("route to {} by {name}", address.trunc());
            tell(Fault::Missing, object, "the host does not reach the containers".into(), mend());
        }
        for address in self.deaf(network, link, addresses) {
            let object = format!("address {address} on {name}");
            let detail = "the host does not take what is sent to it".to_owned();
            tell(Fault::Differs, object, detail, mend());
        }
        for stray in has.iter().filter(|a| !wanted.contains(&a.net)) {
            let object = format!("address {} on {name}", stray.net);
            tell(Fault::Stray, object, String::new(), Mend::TakeAddress(link.index, stray.net));
        }
        if network.policy.is_some() && link.filters.is_some_and(|on| on != [true; 2]) {
            let detail = "its packets are not filtered, and the policy does not hold".to_owned();
            tell(Fault::Differs, format!("filter of bridge {name}"), detail, mend());
        }
        for (setting, value) in self.bridge_settings(network) {
            if let Ok(now) = sysctl::get(&setting)
                && now != value
            {
                let detail = format!("it is {now}, and should be {value}");
                tell(Fault::Differs, format!("setting {setting}"), detail, mend());
            }
        }
    }

    /// Addresses of a network's bridge that are there and that the kernel does not take to be the host's: their routes of
    /// table `local` are gone, or led past by a rule.
    pub(super) fn deaf(&self, network: &Network, link: &Link, addresses: &[Address]) -> Vec<IpNet> {
        let there = |net: &IpNet| link.up && addresses.iter().any(|a| a.index == link.index && a.net == *net);
        let local = |net: &IpNet| {
            bridge::local_soon(&self.socket, net.addr()).unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot look up the way to an address");
                true
            })
        };
        bridge::addresses(network).into_iter().filter(|net| there(net) && !local(net)).collect()
    }

    /// The settings of a network's bridge, also those that follow from the host's.
    pub(super) fn bridge_settings(&self, network: &Network) -> Vec<(String, &'static str)> {
        let mut settings = bridge::settings(network);
        if network.internal || !self.walled.contains(&network.id) {
            return settings;
        }
        let has = |ipv4: bool| network.subnets.iter().any(|s| s.subnet.addr().is_ipv4() == ipv4);
        // While the host forwards for nobody this is one consequence of it.
        let host = |setting: &str| sysctl::get(setting).is_ok_and(|v| v != "0");
        for (ipv4, version, all) in [(true, 4, FORWARDS.0), (false, 6, "net/ipv6/conf/all/forwarding")] {
            if has(ipv4) && host(all) {
                settings.push((format!("net/ipv{version}/conf/{}/forwarding", network.interface), "1"));
            }
        }
        settings
    }

    /// Entries by which the host sends what is for a container to another Ethernet address, whatever it answers.
    pub(super) fn look_at_neighbours(
        &self,
        links: &[Link],
        found: &mut Vec<Found>,
    ) -> Result<(), EngineError> {
        let all = neighbours::neighbours(&self.socket)?;
        let set: Vec<&Neighbour> = all.iter().filter(|n| n.is_set()).collect();
        for network in self.networks.values().filter(|n| n.driver == Driver::Bridge) {
            // Without ARP the kernel makes up entries of its own.
            let Some(link) = self.bridge_of(network, links).filter(|l| !l.mute) else { continue };
            for (sandbox, endpoint) in self.endpoints_of(&network.id).filter(|(_, e)| e.is_bridged()) {
                let Some(mac) = endpoint.mac else { continue };
                for ip in endpoint.addresses().map(|a| a.addr()) {
                    let wrong = |n: &&&Neighbour| n.index == link.index && n.ip == ip && n.mac != Some(mac);
                    let Some(entry) = set.iter().find(wrong) else { continue };
                    let is = entry.mac.map_or_else(|| "nowhere".to_owned(), |mac| mac.to_string());
                    let detail = format!("the host sends to {is}, and should to {mac}");
                    let object = format!("neighbour {ip} on {}", link.name);
                    let mend = Mend::Neighbour(link.index, ip);
                    let one = Found::new(Fault::Differs, object, detail, mend).of_network(&network.name);
                    found.push(one.of_sandbox(&sandbox.name));
                }
            }
        }
        Ok(())
    }

    /// By which replies come back to the host: it is the host's own, so it is told only.
    pub(super) fn look_at_uplinks(&self, links: &[Link], routes: &[Route], found: &mut Vec<Found>) {
        let (setting, _) = FORWARDS;
        let forwards = sysctl::get(setting).is_ok_and(|v| v != "0");
        if !forwards || !self.wanted_settings().contains(&FORWARDS) {
            return;
        }
        let default =
            |r: &&Route| r.net.prefix_len() == 0 && r.net.addr().is_ipv4() && r.fate == Fate::Unicast;
        let by: BTreeSet<u32> = routes.iter().filter(default).map(|r| r.index).collect();
        for link in links.iter().filter(|l| by.contains(&l.index)) {
            let setting = format!("net/ipv4/conf/{}/forwarding", link.name);
            if sysctl::get(&setting).is_ok_and(|v| v == "0") {
                let why = Mend::Nothing("it is the host's own: set it to 1 with 'sysctl -w'");
                let detail = "it is 0, and what comes in there does not reach containers";
                found.push(Found::new(Fault::Differs, format!("setting {setting}"), detail, why));
            }
        }
    }
}

/// The addresses of a network's bridge that are there without the route to their network.
pub(super) fn lost_routes(
    network: &Network,
    link: &Link,
    addresses: &[Address],
    routes: &[Route],
) -> Vec<IpNet> {
    let there = |net: &IpNet| {
        // IPv6 has no routes by an interface with nothing at its other end.
        let up = if net.addr().is_ipv4() { link.up } else { link.carrier };
        up && addresses.iter().any(|a| a.index == link.index && a.net == *net)
    };
    let routed = |net: &IpNet| {
        routes.iter().any(|r| r.index == link.index && r.net == net.trunc() && r.fate == Fate::Unicast)
    };
    bridge::addresses(network).into_iter().filter(|net| there(net) && !routed(net)).collect()
}
