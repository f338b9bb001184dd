//! Bridges, as they are on the host.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::super::Engine;
use super::mend::Mend;
use super::{Fault, Found, NOT_OURS};
use crate::driver::{bridge, owned};
use crate::netlink::view::{Address, Fate, Link, Route};
use crate::network::Network;
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
        for address in lost_routes(network, link, addresses, routes) {
            let object = format!("route to {} by {name}", address.trunc());
            tell(Fault::Missing, object, "the host does not reach the containers".into(), mend());
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

    /// The settings of a network's bridge, also those that follow from the host's.
    pub(super) fn bridge_settings(&self, network: &Network) -> Vec<(String, &'static str)> {
        let mut settings = bridge::settings(network);
        let ipv4 = network.subnets.iter().any(|s| s.subnet.addr().is_ipv4());
        // While the host forwards for nobody this is one consequence of it.
        let host = || sysctl::get("net/ipv4/ip_forward").is_ok_and(|v| v != "0");
        if ipv4 && !network.internal && self.walled.contains(&network.id) && host() {
            settings.push((format!("net/ipv4/conf/{}/forwarding", network.interface), "1"));
        }
        settings
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
