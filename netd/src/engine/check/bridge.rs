//! Bridges, as they are on the host.

use super::super::Engine;
use super::mend::Mend;
use super::{Fault, Found, NOT_OURS};
use crate::driver::{bridge, owned};
use crate::netlink::view::{Address, Link};
use crate::network::Network;
use crate::sysctl;

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
        addresses: &[Address],
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
}
