//! Names: a resolver inside every container, at 127.0.0.11:53. What names mean is in docs/semantics/names.md.
//!
//! ```text
//! wire        messages as bytes                                                              (pure)
//! services    what _http._tcp means                                                          (pure)
//! zone        names of one network, names as one sandbox sees them                           (pure)
//! answer      a query and the tables in, a reply or "ask upstream" out                       (pure)
//! cache       upstreams' answers                                                             (pure)
//! forward     upstream servers: the host's, asked from the daemon's own namespace; a sandbox's own, asked from inside of it
//! client      one TCP client
//! serve       the thread that owns all of these and the sockets that netd opened in sandboxes
//! inquire     a question as a program of a sandbox would ask it
//! poll        epoll
//! resolvconf  resolver configurations                                                        (pure, but for reading)
//! ```
//! The engine owns the truth and sends each change before it acknowledges it.

pub mod answer;
pub mod cache;
pub mod client;
pub mod forward;
pub mod inquire;
pub mod poll;
pub mod resolvconf;
pub mod serve;
pub mod services;
pub mod wire;
pub mod zone;

pub use davit_contracts::nameserver;

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, mpsc};

use davit_contracts::id::NetworkId;

use crate::driver::inside::Resolver;
use crate::endpoint::{Endpoint, Sandbox};
use crate::network::Network;
use resolvconf::HostConf;
use serve::{Change, Service};
use services::Service as Offer;
use zone::{Presence, Publication};

/// Publishes names and has all sandboxes served.
#[derive(Debug)]
pub struct Names {
    service: Service,
    served: HashSet<String>,
    host: Arc<HostConf>,
}

impl Names {
    /// Nothing is known and nothing served yet. `apart`: the host's loopback is another than ours.
    pub fn start(apart: bool) -> std::io::Result<Self> {
        let host = Arc::new(HostConf::new(apart));
        Ok(Self { service: Service::start(host.clone())?, served: HashSet::new(), host })
    }

    /// Begins to answer: what was known before this daemon started is published.
    pub fn open(&self) {
        self.service.send(Change::Open);
    }

    /// Serves a sandbox on sockets that were opened in it, once it is published.
    pub fn serve(&mut self, sandbox: &str, resolver: Resolver) {
        self.served.insert(sandbox.to_owned());
        self.service.send(Change::Serve(sandbox.to_owned(), resolver));
    }

    /// Whether a sandbox is served.
    pub fn serves(&self, sandbox: &str) -> bool {
        self.served.contains(sandbox)
    }

    /// Makes a sandbox's endpoints resolvable as its record says now, in place of what was known of it.
    pub fn publish(&self, sandbox: &Sandbox, networks: &BTreeMap<NetworkId, Network>) {
        self.service.send(Change::Publish(Box::new(publication(sandbox, networks))));
    }

    /// Forgets a sandbox and stops serving it.
    pub fn withdraw(&mut self, sandbox: &str) {
        self.served.remove(sandbox);
        self.service.send(Change::Withdraw(sandbox.to_owned()));
    }

    /// What a name of ours means to a sandbox: nothing when it is not ours.
    pub fn look(&self, sandbox: &str, name: &str) -> Vec<IpAddr> {
        let (answer, answered) = mpsc::channel();
        self.service.send(Change::Look(sandbox.to_owned(), name.to_owned(), answer));
        answered.recv().unwrap_or_default()
    }

    /// The host's resolver configuration.
    pub fn host(&self) -> &HostConf {
        &self.host
    }
}

fn publication(sandbox: &Sandbox, networks: &BTreeMap<NetworkId, Network>) -> Publication {
    let wired: Vec<(&Endpoint, &Network)> = sandbox
        .endpoints
        .iter()
        .filter(|e| e.is_wired())
        .filter_map(|e| networks.get(&e.network).map(|n| (e, n)))
        .collect();
    let presence = |(endpoint, network): &(&Endpoint, &Network)| Presence {
        network: network.id.to_string(),
        network_name: network.name.clone(),
        subnets: network.subnets.iter().map(|s| s.subnet).collect(),
        names: endpoint.names.clone(),
        ipv4: endpoint.addresses().find_map(|a| match a.addr() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        }),
        ipv6: endpoint.addresses().find_map(|a| match a.addr() {
            IpAddr::V6(ip) => Some(ip),
            IpAddr::V4(_) => None,
        }),
    };
    // Such a one is refused today; records of former times may have it.
    let servers: Vec<_> = sandbox.dns_servers.iter().copied().filter(|s| !s.is_own_resolver()).collect();
    if servers.len() < sandbox.dns_servers.len() {
        tracing::warn!(container.id = %sandbox.id, "its resolver would ask itself at 127.0.0.11: passed over");
    }
    let links = wired.iter().flat_map(|(e, _)| e.links.iter().map(|(a, n)| (a.clone(), n.clone())));
    let mut services: Vec<Offer> = Vec::new();
    for mapping in &sandbox.ports {
        let offer = Offer { protocol: mapping.transport.number(), port: mapping.container_port };
        if !services.contains(&offer) {
            services.push(offer);
        }
    }
    Publication {
        sandbox: sandbox.id.clone(),
        endpoints: wired.iter().filter(|(_, n)| n.dns).map(presence).collect(),
        links: links.collect(),
        outside: !servers.is_empty() || wired.iter().any(|(_, n)| !n.internal),
        servers,
        services,
    }
}
