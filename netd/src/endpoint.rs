//! Sandboxes and their endpoints, as they are recorded.
//!
//! ```text
//!            plan, record            wired, record            unwired, record removed
//!   (none) ------------> Preparing ---------------> Ready ---------------------------> (none)
//! ```
//! A record in `Preparing` was never acknowledged: a restart undoes it. A record in `Ready` was: a restart keeps it
//! for as long as its holder lives.

pub mod journal;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use davit_contracts::id::{EndpointId, NetworkId};
use davit_sys::process::ProcessRef;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::firewall::Transport;
use crate::netlink::route::Mac;

/// The process that holds a sandbox's network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its pid.
    pub pid: i32,
    /// Its start time.
    pub start_time: u64,
}

impl Holder {
    /// As the kernel's fence names processes.
    pub fn process(self) -> ProcessRef {
        ProcessRef { pid: self.pid, start_time: self.start_time }
    }
}

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
    /// Our end of the veth; empty on `host` and `none`.
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
    /// Recorded before it was made, by a connect that was not acknowledged: a restart undoes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
}

impl Endpoint {
    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.ip.iter().chain(&self.ip6).copied()
    }

    /// Whether there is an interface behind it.
    pub fn is_wired(&self) -> bool {
        !self.host_interface.is_empty()
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
    /// Upstreams in place of the host's.
    pub dns_servers: Vec<IpAddr>,
    /// Search domains in place of the host's.
    pub dns_search: Vec<String>,
    /// Resolver options.
    pub dns_options: Vec<String>,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// Ports of our DNS sockets inside: UDP and TCP.
    pub resolver: Option<(u16, u16)>,
}

impl Sandbox {
    /// The endpoint that has the default route, and that published ports lead to: the highest priority, then the
    /// first with a way out.
    pub fn gateway_endpoint(&self) -> Option<&Endpoint> {
        let mut best: Option<&Endpoint> = None;
        for e in self.endpoints.iter().filter(|e| e.is_wired() && e.gateway.is_some()) {
            if best.is_none_or(|b| e.gateway_priority > b.gateway_priority) {
                best = Some(e);
            }
        }
        best
    }

    /// The first free `eth<n>`.
    pub fn free_interface(&self) -> String {
        (0..=self.endpoints.len())
            .map(|n| format!("eth{n}"))
            .find(|name| self.endpoints.iter().all(|e| e.interface != *name))
            .expect("of n + 1 names, n endpoints leave one")
    }
}
