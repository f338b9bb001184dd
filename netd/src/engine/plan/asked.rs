//! What a request asks of one endpoint, checked against what the network and its other endpoints have: macs, limits, links.

use std::collections::BTreeMap;
use std::net::IpAddr;

use davit_contracts::id::NetworkId;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::super::attach::EndpointSpec;
use super::super::{Engine, EngineError};
use super::invalid;
use crate::driver::bridge::{mac_after, mac_of};
use crate::endpoint::options::{IPV6_OFF, turn_ipv6_off};
use crate::endpoint::{Bandwidth, Endpoint, Sandbox};
use crate::netlink::route::Mac;
use crate::netlink::tc;
use crate::network::sublink::Mode;
use crate::network::{Driver, Network};

/// Whether an endpoint's interface has a mac that is not its parent's.
pub(super) fn has_own_mac(network: &Network) -> bool {
    network.driver != Driver::Ipvlan && sublink_mode(network) != Some(Mode::Passthru)
}

fn sublink_mode(network: &Network) -> Option<Mode> {
    network.sublink.as_ref().map(|s| s.mode)
}

impl Engine {
    /// The mac that a person chose, when it is one and nobody has it.
    pub(super) fn asked_mac(
        &self,
        sandbox: &Sandbox,
        wanted: &EndpointSpec,
        network: &Network,
    ) -> Result<Option<Mac>, EngineError> {
        if wanted.mac.is_empty() {
            return Ok(None);
        }
        if !has_own_mac(network) {
            let expected = format!("network '{}' gives all endpoints its parent's", network.name);
            return Err(invalid(sandbox, "mac", &wanted.mac, expected));
        }
        let mac: Mac =
            wanted.mac.parse().map_err(|expected| invalid(sandbox, "mac", &wanted.mac, expected))?;
        match self.mac_holder(sandbox, network, mac) {
            None => Ok(Some(mac)),
            Some(holder) => {
                let network = network.name.clone();
                Err(EngineError::MacTaken { mac: mac.to_string(), holder, network })
            }
        }
    }

    /// The mac that follows from an address, or the next that does when a person chose the first for somebody else.
    pub(super) fn free_mac(&self, sandbox: &Sandbox, network: &Network, ip: IpAddr) -> Mac {
        let mut mac = mac_of(ip);
        while self.mac_holder(sandbox, network, mac).is_some() {
            mac = mac_after(mac, ip);
        }
        mac
    }

    /// Keeps that a bridge has a mac now that does not follow from its address: whoever gets that address next has another.
    pub(in crate::engine) fn note_mac(&mut self, endpoint: &Endpoint) -> Result<(), EngineError> {
        let follows = endpoint.addresses().next().map(|a| mac_of(a.addr()));
        let Some(network) = self.networks.get_mut(&endpoint.network) else { return Ok(()) };
        if network.driver != Driver::Bridge || network.other_macs || endpoint.mac == follows {
            return Ok(());
        }
        let noted = Network { other_macs: true, ..network.clone() };
        self.store.put(&[&noted])?;
        *network = noted;
        Ok(())
    }

    /// Who has a mac where frames of a network are heard; `sandbox` is not known yet when it is being attached.
    fn mac_holder(&self, sandbox: &Sandbox, network: &Network, mac: Mac) -> Option<String> {
        if network.driver == Driver::Bridge && bridge_mac(network) == Some(mac) {
            return Some("the bridge itself".to_owned());
        }
        let has = |e: &Endpoint| e.mac == Some(mac) && self.share_a_wire(&e.network, network);
        let mut all = self.sandboxes.values().chain([sandbox]);
        all.find(|s| s.endpoints.iter().any(has)).map(|s| format!("'{}'", s.name))
    }

    /// Whether frames of one network are heard on another: it is the same, or has the same parent.
    fn share_a_wire(&self, id: &NetworkId, network: &Network) -> bool {
        let parent = |n: &Network| n.sublink.as_ref().map(|s| s.parent.clone());
        let theirs = || self.networks.get(id).and_then(parent);
        *id == network.id || parent(network).is_some_and(|mine| theirs() == Some(mine))
    }

    /// The limits of an endpoint, none when nothing is limited.
    pub(super) fn limits(
        &self,
        sandbox: &Sandbox,
        wanted: &EndpointSpec,
        network: &Network,
    ) -> Result<Option<Box<Bandwidth>>, EngineError> {
        let asked = wanted.bandwidth;
        // With less in the bucket no full packet would ever pass.
        let least = u64::from(self.mtu_of(network)) + tc::HEADERS;
        for (what, burst_of, rate, burst) in [
            ("ingress rate", "ingress burst", asked.ingress_rate, asked.ingress_burst),
            ("egress rate", "egress burst", asked.egress_rate, asked.egress_burst),
        ] {
            if rate == 0 && burst > 0 {
                let expected = "a burst needs a rate".to_owned();
                return Err(invalid(sandbox, what, "0", expected));
            }
            if (1..tc::LEAST_RATE).contains(&rate) {
                let expected = format!("at least {} bits a second are expected", tc::LEAST_RATE);
                return Err(invalid(sandbox, what, &rate.to_string(), expected));
            }
            if u32::try_from(burst).is_err() {
                let expected = "less than 4 GiB are expected at once".to_owned();
                return Err(invalid(sandbox, burst_of, &burst.to_string(), expected));
            }
            if (1..least).contains(&burst) {
                let expected = format!("at least {least} bytes, one full packet, are expected");
                return Err(invalid(sandbox, burst_of, &burst.to_string(), expected));
            }
        }
        let refused = |why| {
            let (container, network) = (sandbox.name.clone(), network.name.clone());
            Err(EngineError::NoLimit { container, network, why })
        };
        if asked != Bandwidth::default() && matches!(network.driver, Driver::Host | Driver::None) {
            return refused("it has no interface of its own there");
        }
        if asked.ingress_rate > 0 && network.sublink.as_ref().is_some_and(|s| s.mode == Mode::L3s) {
            return refused("with ipvlan's mode l3s the kernel looks too early at what enters");
        }
        Ok((asked != Bandwidth::default()).then(|| Box::new(asked)))
    }
}

fn bridge_mac(network: &Network) -> Option<Mac> {
    network.subnets.iter().find_map(|s| s.gateway).map(mac_of)
}

/// What other containers are called here: the alias, and whose it is. Containers that are not running count: they may
/// come later, and whether they exist at all is known to whoever runs them.
pub(super) fn links(sandbox: &Sandbox, links: &[String]) -> Result<BTreeMap<String, String>, EngineError> {
    links
        .iter()
        .map(|link| {
            let (name, alias) = link.split_once(':').unwrap_or((link, link));
            let refused = |expected: &str| Err(invalid(sandbox, "link", link, expected.to_owned()));
            if name.is_empty() || alias.is_empty() {
                return refused("container:alias is expected");
            }
            if let Some(why) = unusable(alias) {
                return refused(&format!("no program could ask for the alias: {why}"));
            }
            if let Some(why) = unusable(linked_name(name)) {
                return refused(&format!("it names no container: {why}"));
            }
            Ok((alias.to_owned(), linked_name(name).to_owned()))
        })
        .collect()
}

/// Whether this host speaks IPv6 at all. `/proc/sys/net/ipv6` would tell as well, but with a thousand namespaces looking it
/// up takes the kernel milliseconds.
pub(super) fn has_ipv6() -> bool {
    socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).is_ok()
}

/// The setting that turns IPv6 off for an endpoint: its own, or its container's for all.
pub(super) fn ipv6_off(sandbox: &Sandbox, endpoint: &Endpoint) -> Option<&'static str> {
    let own = turn_ipv6_off(&endpoint.sysctls).then_some(IPV6_OFF);
    own.or(sandbox.without_ipv6.then_some("net.ipv6.conf.all.disable_ipv6"))
}

/// An endpoint with IPv6 turned off has no address of it, and must have another.
pub(super) fn check_ipv6_off(
    sandbox: &Sandbox,
    wanted: &EndpointSpec,
    network: &Network,
    endpoint: &Endpoint,
) -> Result<(), EngineError> {
    let Some(setting) = ipv6_off(sandbox, endpoint) else { return Ok(()) };
    let expected = if !wanted.ip6.is_empty() {
        format!("it turns IPv6 off, and the address {} was asked for", wanted.ip6)
    } else if network.subnet(true).is_none() && network.subnet(false).is_some() {
        format!("it turns IPv6 off, and network '{}' has nothing else", network.name)
    } else {
        return Ok(());
    };
    Err(invalid(sandbox, "sysctl", &format!("{setting}=1"), expected))
}

/// The names that a container is to have on a network besides its own.
pub(super) fn check_aliases(sandbox: &Sandbox, aliases: &[String]) -> Result<(), EngineError> {
    let bad = aliases.iter().find_map(|alias| Some((alias, unusable(alias)?)));
    bad.map_or(Ok(()), |(alias, why)| {
        let expected = format!("no program could ask for it: {why}");
        Err(invalid(sandbox, "alias", alias, expected))
    })
}

/// By its whole id a container is not known to DNS, whose labels end at 63 characters; by its short id it is.
fn linked_name(name: &str) -> &str {
    let id = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    if id { &name[..12] } else { name }
}

/// Why a text cannot be a name (RFC 1035, section 2.3.4): what DNS has no place for.
fn unusable(name: &str) -> Option<&'static str> {
    if name.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()) {
        return Some("it has white space or control characters");
    }
    if name.split('.').any(str::is_empty) {
        return Some("a part between dots is empty");
    }
    if name.split('.').any(|part| part.len() > 63) {
        return Some("a part between dots has more than 63 characters");
    }
    // Each label has its length before it, and the last one a zero behind it.
    (name.len() > 253).then_some("it has more than 253 characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nobody_could_ask_for() {
        for good in ["db", "db.front", "my_db-1", &"a".repeat(63), &vec!["a".repeat(62); 4].join(".")] {
            assert_eq!(unusable(good), None, "{good}");
        }
        let long = [&*"a".repeat(63); 4].join(".");
        for bad in ["", "a..b", ".a", "a.", "a b", "a\tb", "a\n127.0.0.1 b", &"a".repeat(64), &long] {
            assert!(unusable(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_whole_id_is_made_short() {
        assert_eq!(linked_name(&"ab".repeat(32)), "abababababab");
        assert_eq!(linked_name("abababababababab"), "abababababababab");
        assert_eq!(linked_name(&"xy".repeat(32)).len(), 64);
    }
}
