//! What names mean: a zone for each network, a view for each sandbox. Names are kept in lower case without the last dot.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use davit_contracts::id::NetworkId;
use ipnet::IpNet;

use crate::endpoint::{Endpoint, Sandbox};
use crate::network::Network;

/// Who answers to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The sandbox.
    pub sandbox: Arc<str>,
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

/// The names of one network.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    /// The network's name: `db.my-bridge` means `db` on it.
    pub network: Arc<str>,
    /// Its subnets: reverse names in them are ours to answer.
    pub subnets: Vec<IpNet>,
    names: HashMap<Arc<str>, Vec<Member>>,
    reverse: HashMap<IpAddr, (Arc<str>, Arc<str>)>,
}

impl Zone {
    /// A network without members.
    pub fn of(network: &Network) -> Self {
        Self {
            network: Arc::from(network.name.to_ascii_lowercase()),
            subnets: network.subnets.iter().map(|s| s.subnet).collect(),
            ..Self::default()
        }
    }

    /// Adds an endpoint under all its names.
    pub fn add(&mut self, sandbox: &str, endpoint: &Endpoint) {
        let sandbox: Arc<str> = Arc::from(sandbox);
        let ip = |net: &Option<IpNet>| net.map(|n| n.addr());
        let member = Member {
            sandbox: sandbox.clone(),
            ipv4: ip(&endpoint.ip).and_then(|ip| match ip {
                IpAddr::V4(v4) => Some(v4),
                IpAddr::V6(_) => None,
            }),
            ipv6: ip(&endpoint.ip6).and_then(|ip| match ip {
                IpAddr::V6(v6) => Some(v6),
                IpAddr::V4(_) => None,
            }),
        };
        for name in &endpoint.names {
            let members = self.names.entry(Arc::from(name.to_ascii_lowercase())).or_default();
            if !members.contains(&member) {
                members.push(member.clone());
            }
        }
        if let Some(name) = endpoint.names.first() {
            let name: Arc<str> = Arc::from(format!("{name}.{}", self.network));
            for address in endpoint.addresses() {
                self.reverse.insert(address.addr(), (sandbox.clone(), name.clone()));
            }
        }
    }

    fn remove(&mut self, sandbox: &str) {
        self.names.retain(|_, members| {
            members.retain(|m| &*m.sandbox != sandbox);
            !members.is_empty()
        });
        self.reverse.retain(|_, (owner, _)| &**owner != sandbox);
    }

    fn holds(&self, sandbox: &str) -> bool {
        self.reverse.values().any(|(owner, _)| &**owner == sandbox)
    }

    /// Who answers to a name.
    pub fn members(&self, name: &str) -> &[Member] {
        self.names.get(name).map_or(&[], Vec::as_slice)
    }

    /// The name of an address.
    pub fn name_of(&self, ip: IpAddr) -> Option<&str> {
        self.reverse.get(&ip).map(|(_, name)| &**name)
    }
}

/// What one sandbox sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Its networks, in the order of attachment.
    pub networks: Vec<NetworkId>,
    /// Its own words for other containers.
    pub links: HashMap<String, String>,
    /// Upstreams in place of the host's.
    pub servers: Vec<IpAddr>,
    /// Whether questions may leave: not from a sandbox that has only internal networks.
    pub outside: bool,
}

impl View {
    /// The view of a sandbox.
    pub fn of<'a>(sandbox: &Sandbox, network: impl Fn(&Endpoint) -> Option<&'a Network>) -> Self {
        let wired: Vec<_> = sandbox.endpoints.iter().filter(|e| e.is_wired()).collect();
        let link =
            |(alias, name): (&String, &String)| (alias.to_ascii_lowercase(), name.to_ascii_lowercase());
        Self {
            networks: wired.iter().map(|e| e.network.clone()).collect(),
            links: wired.iter().flat_map(|e| e.links.iter().map(link)).collect(),
            servers: sandbox.dns_servers.clone(),
            outside: wired.iter().any(|e| network(e).is_some_and(|n| !n.internal)),
        }
    }
}

/// All names at one moment. Cheap to clone: zones and views are shared.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// By network.
    pub zones: HashMap<NetworkId, Arc<Zone>>,
    /// By sandbox id.
    pub views: HashMap<Arc<str>, Arc<View>>,
}

impl Snapshot {
    /// Removes all names and the view of a sandbox.
    pub fn forget(&mut self, sandbox: &str) {
        let Some(view) = self.views.remove(sandbox) else { return };
        for network in &view.networks {
            if let Some(zone) = self.zones.get_mut(network)
                && zone.holds(sandbox)
            {
                Arc::make_mut(zone).remove(sandbox);
            }
        }
    }

    /// The zones that a sandbox sees.
    pub fn zones_of<'a>(&'a self, view: &'a View) -> impl Iterator<Item = &'a Zone> {
        view.networks.iter().filter_map(|id| self.zones.get(id)).map(|z| &**z)
    }

    /// Who answers to a name for a sandbox: `db`, `db.my-bridge`, or a link's alias.
    pub fn resolve(&self, view: &View, name: &str) -> Vec<Member> {
        let name = view.links.get(name).map_or(name, String::as_str);
        for zone in self.zones_of(view) {
            let found = zone.members(name);
            if !found.is_empty() {
                return found.to_vec();
            }
            if let Some((host, network)) = name.rsplit_once('.')
                && network == &*zone.network
                && !zone.members(host).is_empty()
            {
                return zone.members(host).to_vec();
            }
        }
        Vec::new()
    }
}
