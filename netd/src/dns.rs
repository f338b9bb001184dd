//! Names: a resolver inside every container, at 127.0.0.11:53.
//!
//! ```text
//! zone        names of one network, names as one sandbox sees them: an immutable snapshot    (pure)
//! answer      a query and a snapshot in, a reply or "ask upstream" out                       (pure)
//! serve       the sockets that netd opened inside a sandbox
//! forward     upstream servers, asked from the daemon's own namespace
//! resolvconf  the host's resolver configuration                                              (pure, but for reading)
//! ```
//! The engine owns the truth and publishes a new [`zone::Snapshot`] with each change, before it acknowledges the
//! change; readers take the latest and never wait for one another.

pub mod answer;
pub mod forward;
pub mod resolvconf;
pub mod serve;
pub mod zone;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use davit_contracts::id::NetworkId;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::driver::inside::Resolver;
use crate::endpoint::{Endpoint, Sandbox};
use crate::network::Network;
use zone::{Snapshot, View, Zone};

/// Publishes names and keeps the servers of all sandboxes.
#[derive(Debug)]
pub struct Names {
    runtime: Handle,
    current: watch::Sender<Arc<Snapshot>>,
    upstream: Arc<forward::Upstream>,
    servers: HashMap<String, serve::Server>,
}

impl Names {
    /// Nothing is known and nothing served yet. Servers run on `runtime`.
    pub fn new(runtime: Handle) -> Self {
        let (current, _) = watch::channel(Arc::default());
        Self { runtime, current, upstream: Arc::default(), servers: HashMap::new() }
    }

    /// Serves a sandbox on sockets that were opened in it.
    pub fn serve(&mut self, sandbox: &str, resolver: Resolver) -> std::io::Result<()> {
        let server =
            serve::start(&self.runtime, resolver, sandbox, self.current.subscribe(), self.upstream.clone())?;
        self.servers.insert(sandbox.to_owned(), server);
        Ok(())
    }

    /// Whether a sandbox is served.
    pub fn serves(&self, sandbox: &str) -> bool {
        self.servers.contains_key(sandbox)
    }

    /// Makes a sandbox's endpoints resolvable as its record says now, in place of what was known of it.
    pub fn publish(&mut self, sandbox: &Sandbox, networks: &BTreeMap<NetworkId, Network>) {
        self.change(|next| {
            next.forget(&sandbox.id);
            for endpoint in sandbox.endpoints.iter().filter(|e| e.is_wired()) {
                let Some(network) = networks.get(&endpoint.network) else { continue };
                if network.dns {
                    zone_of(next, network).add(&sandbox.id, endpoint);
                }
            }
            let view = View::of(sandbox, |e: &Endpoint| networks.get(&e.network));
            next.views.insert(Arc::from(sandbox.id.as_str()), Arc::new(view));
        });
    }

    /// What a name means to a sandbox: whose addresses, by sandbox id.
    pub fn lookup(&self, sandbox: &str, name: &str) -> Vec<(String, IpAddr)> {
        let snapshot = self.current.borrow();
        let Some(view) = snapshot.views.get(sandbox) else { return Vec::new() };
        let members = snapshot.resolve(view, &name.trim_end_matches('.').to_ascii_lowercase());
        let addresses = |m: &zone::Member| {
            [m.ipv4.map(IpAddr::from), m.ipv6.map(IpAddr::from)]
                .into_iter()
                .flatten()
                .map(|ip| (m.sandbox.to_string(), ip))
                .collect::<Vec<_>>()
        };
        members.iter().flat_map(addresses).collect()
    }

    /// Forgets a sandbox and stops serving it.
    pub fn withdraw(&mut self, sandbox: &str) {
        self.servers.remove(sandbox);
        if self.current.borrow().views.contains_key(sandbox) {
            self.change(|next| next.forget(sandbox));
        }
    }

    /// Forgets a network.
    pub fn forget_network(&mut self, network: &NetworkId) {
        self.change(|next| drop(next.zones.remove(network)));
    }

    fn change(&mut self, change: impl FnOnce(&mut Snapshot)) {
        let mut next = Snapshot::clone(&self.current.borrow());
        change(&mut next);
        self.current.send_replace(Arc::new(next));
    }

    /// The host's resolver configuration.
    pub fn host(&self) -> Arc<resolvconf::ResolvConf> {
        self.upstream.host()
    }
}

fn zone_of<'a>(snapshot: &'a mut Snapshot, network: &Network) -> &'a mut Zone {
    let zone = snapshot.zones.entry(network.id.clone()).or_insert_with(|| Arc::new(Zone::of(network)));
    Arc::make_mut(zone)
}
