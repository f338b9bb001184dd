//! Sandboxes and their endpoints, as they are recorded.
//!
//! ```text
//!            plan, record            wired, record            unwired, record removed
//!   (none) ------------> Preparing ---------------> Ready ---------------------------> (none)
//! ```
//! A record in `Preparing` was never acknowledged: a restart undoes it. A record in `Ready` was: a restart keeps it
//! for as long as its holder lives.

pub mod holder;
pub mod journal;
pub mod options;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use davit_contracts::id::{EndpointId, NetworkId};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::dns::nameserver::NameServer;
use crate::driver::cni::{Foreign, outcome};
use crate::firewall::Transport;
use crate::netlink::route::Mac;
use crate::netlink::tc::Limit;

pub use holder::Holder;

/// How far an attach has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Recorded before anything was made; not acknowledged.
    Preparing,
    /// Acknowledged.
    Ready,
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// TCP or UDP.
    pub transport: Transport,
    /// On the host.
    pub host: SocketAddr,
    /// In the sandbox.
    pub container_port: u16,
}

/// A sandbox's connection to one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// Which network.
    pub network: NetworkId,
    /// Name inside; empty on `host` and `none`.
    pub interface: String,
    /// Our end of the veth; empty where there is none: all drivers but bridges.
    pub host_interface: String,
    /// Of the interface inside.
    pub mac: Option<Mac>,
    /// IPv4 address.
    pub ip: Option<IpNet>,
    /// IPv4 way out.
    pub gateway: Option<IpAddr>,
    /// IPv6 address.
    pub ip6: Option<IpNet>,
    /// IPv6 way out.
    pub gateway6: Option<IpAddr>,
    /// What it answers to on this network.
    pub names: Vec<String>,
    /// Other containers' names as this one calls them: alias to name.
    pub links: BTreeMap<String, String>,
    /// The largest has the default route.
    pub gateway_priority: i32,
    /// The way out has no gateway: the interface itself routes (ipvlan's l3).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub routed: bool,
    /// Limits; none for most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Box<Bandwidth>>,
    /// Settings of the interface inside, with `IFNAME` in place of its name: docker's words, such as
    /// `net.ipv4.conf.IFNAME.forwarding`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctls: Vec<(String, String)>,
    /// The plugins' part, on a cni network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Box<Foreign>>,
    /// The MTU that its interface got on its parent, which may have another by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Recorded before it was made, by a connect that was not acknowledged: a restart undoes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
}

/// Limits of an endpoint; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Into the sandbox, in bits a second.
    pub ingress_rate: u64,
    /// Bytes that may come at once; 0: chosen from the rate.
    pub ingress_burst: u64,
    /// Out of the sandbox, in bits a second.
    pub egress_rate: u64,
    /// Bytes that may leave at once; 0: chosen from the rate.
    pub egress_burst: u64,
}

impl Bandwidth {
    /// Of what enters the sandbox.
    pub fn ingress(&self) -> Option<Limit> {
        (self.ingress_rate > 0).then_some(Limit { rate: self.ingress_rate, burst: self.ingress_burst })
    }

    /// Of what leaves it.
    pub fn egress(&self) -> Option<Limit> {
        (self.egress_rate > 0).then_some(Limit { rate: self.egress_rate, burst: self.egress_burst })
    }
}

/// A default route of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// Of IPv4, or of IPv6.
    pub ipv4: bool,
    /// Through whom; the interface itself routes when absent.
    pub gateway: Option<IpAddr>,
    /// Through which interface.
    pub interface: String,
}

impl Endpoint {
    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.ip.iter().chain(&self.ip6).copied()
    }

    /// Whether there is an interface behind it.
    pub fn is_wired(&self) -> bool {
        !self.interface.is_empty()
    }

    /// Whether plugins have not made it yet.
    pub fn is_unfinished(&self) -> bool {
        self.foreign.as_ref().is_some_and(|f| f.result.is_none())
    }

    /// Whether it is on a bridge of ours, where rules and published ports apply.
    pub fn is_bridged(&self) -> bool {
        !self.host_interface.is_empty()
    }

    /// The default route of a family that leads through it.
    pub fn way(&self, ipv4: bool) -> Option<Way> {
        let (address, gateway) = if ipv4 { (self.ip, self.gateway) } else { (self.ip6, self.gateway6) };
        // What plugins make has its routes from them.
        let leads = self.is_wired()
            && self.foreign.is_none()
            && (gateway.is_some() || (self.routed && address.is_some()));
        leads.then(|| Way { ipv4, gateway, interface: self.interface.clone() })
    }
}

impl Endpoint {
    /// The default route of a family that its plugins made, as far as their result tells.
    fn foreign_way(&self, ipv4: bool) -> Option<Way> {
        let told = outcome::default_route(self.foreign.as_ref()?.result.as_ref()?, ipv4)?;
        let gateway = told.or(if ipv4 { self.gateway } else { self.gateway6 })?;
        Some(Way { ipv4, gateway: Some(gateway), interface: self.interface.clone() })
    }
}

/// A sandbox with all that was made for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Container or pod id.
    pub id: String,
    /// Container name.
    pub name: String,
    /// Its hostname.
    pub hostname: String,
    /// Who holds its namespace.
    pub holder: Holder,
    /// How far it has come.
    pub phase: Phase,
    /// Order of attachment.
    pub sequence: u64,
    /// Its connections, in the order of their making.
    pub endpoints: Vec<Endpoint>,
    /// Its published ports.
    pub ports: Vec<Mapping>,
    /// Ports that lead to another sandbox of the same namespace, for as long as that is attached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Mapping>,
    /// Default routes that were not made since the namespace had some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub yielded: Vec<Way>,
    /// Upstreams in place of the host's.
    #[serde(with = "servers")]
    pub dns_servers: Vec<NameServer>,
    /// Search domains in place of the host's.
    pub dns_search: Vec<String>,
    /// Resolver options.
    pub dns_options: Vec<String>,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// Nothing of ours listens inside.
    #[serde(default)]
    pub without_resolver: bool,
    /// Its own settings turn IPv6 off: it has no address of it on any network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_ipv6: bool,
    /// Ports of our DNS sockets inside: UDP and TCP.
    pub resolver: Option<(u16, u16)>,
}

/// Name servers as their texts.
mod servers {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::NameServer;

    pub fn serialize<S: Serializer>(servers: &[NameServer], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(servers.iter().map(ToString::to_string))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<NameServer>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
    }
}

impl Sandbox {
    /// Whether plugins have not made all of it yet.
    pub fn is_unfinished(&self) -> bool {
        self.endpoints.iter().any(Endpoint::is_unfinished)
    }

    /// Whether a resolver is inside; also while an attach is under way, and after its last network was taken away.
    pub fn resolves(&self) -> bool {
        !self.without_resolver && (self.resolver.is_some() || self.endpoints.iter().any(Endpoint::is_wired))
    }

    /// Whether plugins have a part in it.
    pub fn has_foreign(&self) -> bool {
        self.endpoints.iter().any(|e| e.foreign.is_some())
    }

    /// The endpoint that has the default route of a family: the highest priority, then the first with a way out.
    pub fn way_out(&self, ipv4: bool) -> Option<&Endpoint> {
        self.first_of(|e| e.way(ipv4).is_some())
    }

    /// The default routes.
    pub fn ways(&self) -> Vec<Way> {
        [true, false].into_iter().filter_map(|v4| self.way_out(v4)?.way(v4)).collect()
    }

    /// The default routes that were made for it, by us or by plugins.
    pub fn ways_made(&self) -> Vec<Way> {
        let mut ways = if self.has_foreign() { self.ways_left() } else { self.ways() };
        ways.retain(|way| !self.yielded.contains(way));
        ways
    }

    /// Whether it is another place of the same container: who calls CNI plugins has a sandbox a network.
    pub fn shares_namespace(&self, other: &Self) -> bool {
        self.id != other.id && self.holder.is_same_namespace(&other.holder)
    }

    /// All default routes that were given or could have been, by us and by plugins.
    pub fn all_ways(&self) -> Vec<Way> {
        let of = |e: &Endpoint, v4| e.way(v4).or_else(|| e.foreign_way(v4));
        self.endpoints.iter().flat_map(|e| [of(e, true), of(e, false)]).flatten().collect()
    }

    /// The default routes that are to be there when others have gone: ours, else those of plugins, which see to them only as
    /// they come and go. None where plugins have no part.
    pub fn ways_left(&self) -> Vec<Way> {
        if !self.has_foreign() {
            return Vec::new();
        }
        let of_plugins = |v4| self.first_of(|e| e.foreign_way(v4).is_some())?.foreign_way(v4);
        let of_all = |v4| self.way_out(v4).and_then(|e| e.way(v4)).or_else(|| of_plugins(v4));
        [true, false].into_iter().filter_map(of_all).collect()
    }

    /// The endpoint that published ports lead to: of those on bridges that lead out, the highest priority, then the
    /// first.
    pub fn gateway_endpoint(&self) -> Option<&Endpoint> {
        self.first_of(|e| e.is_bridged() && (e.gateway.is_some() || e.gateway6.is_some()))
    }

    fn first_of(&self, wanted: impl Fn(&Endpoint) -> bool) -> Option<&Endpoint> {
        let mut best: Option<&Endpoint> = None;
        for e in self.endpoints.iter().filter(|e| wanted(e)) {
            if best.is_none_or(|b| e.gateway_priority > b.gateway_priority) {
                best = Some(e);
            }
        }
        best
    }

    /// The first free name of an interface that starts with `prefix`.
    pub fn free_interface(&self, prefix: &str) -> String {
        (0..=self.endpoints.len())
            .map(|n| format!("{prefix}{n}"))
            .find(|name| self.endpoints.iter().all(|e| e.interface != *name))
            .expect("of n + 1 names, n endpoints leave one")
    }
}

#[cfg(test)]
mod tests;
