//! What names mean: a zone for each network, a view for each sandbox.
//!
//! One thread owns the tables and answers from them. The engine sends it a whole [`Publication`] of a sandbox with each
//! change; applying one costs what that sandbox has, however many others there are, and nobody sees half of it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use slab::Slab;

use super::nameserver::NameServer;
use super::services::{Identity, Service};
use super::wire::{Key, key};

/// Who answers to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its view.
    pub view: usize,
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Its own name on this network, and what it offers.
    pub identity: Arc<Identity>,
}

impl Member {
    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }
}

/// The names of one network.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    /// The network's id.
    network: Box<str>,
    /// The network's name as a key: `db.my-bridge` means `db` on it.
    suffix: Key,
    /// Its subnets: reverse names in them are ours to answer.
    subnets: Vec<IpNet>,
    names: HashMap<Key, Vec<Member>>,
    reverse: HashMap<IpAddr, (usize, Arc<Identity>)>,
    /// How many sandboxes are on it; none: it goes.
    sandboxes: usize,
}

impl Zone {
    fn members(&self, key: &[u8]) -> &[Member] {
        self.names.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether an address belongs to the network.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.subnets.iter().any(|s| s.contains(&ip))
    }

    /// The name of an address.
    pub fn name_of(&self, ip: IpAddr) -> Option<&[u8]> {
        self.reverse.get(&ip).map(|(_, identity)| &*identity.name)
    }
}

/// What one sandbox sees.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Its zones, in the order of attachment, and what it has entered there.
    zones: Vec<(usize, Entries)>,
    /// Its own words for other containers.
    links: HashMap<Key, Key>,
    /// Upstreams in place of the host's, asked from inside the sandbox.
    pub servers: Arc<[NameServer]>,
    /// Whether others are asked: by a sandbox that has only internal networks none but its own servers.
    pub outside: bool,
}

impl View {
    /// Whether it is on a network at all.
    pub fn is_connected(&self) -> bool {
        !self.zones.is_empty()
    }
}

#[derive(Debug, Clone, Default)]
struct Entries {
    names: Vec<Key>,
    addresses: Vec<IpAddr>,
}

/// All that is to be known of a sandbox, in place of what was.
#[derive(Debug, Clone, Default)]
pub struct Publication {
    /// Its id.
    pub sandbox: String,
    /// Its endpoints on networks with names, in the order of attachment.
    pub endpoints: Vec<Presence>,
    /// Alias to name.
    pub links: Vec<(String, String)>,
    /// Upstreams in place of the host's.
    pub servers: Vec<NameServer>,
    /// Whether others are asked what is not known here.
    pub outside: bool,
    /// What it offers.
    pub services: Vec<Service>,
}

/// A sandbox on one network.
#[derive(Debug, Clone, Default)]
pub struct Presence {
    /// The network's id.
    pub network: String,
    /// Its name.
    pub network_name: String,
    /// Its subnets.
    pub subnets: Vec<IpNet>,
    /// What the sandbox answers to there; the first is its own name.
    pub names: Vec<String>,
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

/// All names.
#[derive(Debug, Default)]
pub struct Tables {
    zones: Slab<Zone>,
    by_network: HashMap<Box<str>, usize>,
    views: Slab<View>,
    by_sandbox: HashMap<Box<str>, usize>,
}

impl Tables {
    /// Makes a sandbox known as it is now; its view keeps its place.
    pub fn publish(&mut self, publication: &Publication) -> usize {
        let sandbox = publication.sandbox.as_str();
        let at = self.by_sandbox.get(sandbox).copied().unwrap_or_else(|| self.views.insert(View::default()));
        self.by_sandbox.insert(sandbox.into(), at);
        let before = std::mem::take(&mut self.views[at].zones);
        let zones = publication.endpoints.iter().map(|presence| {
            let zone = self.zone(presence);
            (zone, self.zones[zone].enter(at, presence, &publication.services))
        });
        let zones: Vec<_> = zones.collect();
        // Only now, so that a zone with this one sandbox in it is not made anew.
        for (zone, entries) in &before {
            let still = zones.iter().find(|(z, _)| z == zone).map(|(_, entries)| entries);
            self.leave(*zone, at, entries, still);
        }
        let link = |(alias, name): &(String, String)| Some((key(alias)?, key(name)?));
        self.views[at] = View {
            zones,
            links: publication.links.iter().filter_map(link).collect(),
            servers: publication.servers.as_slice().into(),
            outside: publication.outside,
        };
        at
    }

    /// Forgets a sandbox.
    pub fn withdraw(&mut self, sandbox: &str) {
        let Some(at) = self.by_sandbox.remove(sandbox) else { return };
        let view = self.views.remove(at);
        for (zone, entries) in &view.zones {
            self.leave(*zone, at, entries, None);
        }
    }

    fn zone(&mut self, presence: &Presence) -> usize {
        if let Some(at) = self.by_network.get(presence.network.as_str()) {
            return *at;
        }
        let at = self.zones.insert(Zone {
            network: presence.network.as_str().into(),
            suffix: key(&presence.network_name).unwrap_or_default(),
            subnets: presence.subnets.clone(),
            ..Zone::default()
        });
        self.by_network.insert(presence.network.as_str().into(), at);
        at
    }

    fn leave(&mut self, at: usize, view: usize, entries: &Entries, still: Option<&Entries>) {
        let zone = &mut self.zones[at];
        zone.leave(view, entries, still);
        if zone.sandboxes == 0 {
            let zone = self.zones.remove(at);
            self.by_network.remove(&zone.network);
        }
    }

    /// A sandbox's view.
    pub fn view(&self, at: usize) -> Option<&View> {
        self.views.get(at)
    }

    /// Where a sandbox's view is.
    pub fn view_of(&self, sandbox: &str) -> Option<usize> {
        self.by_sandbox.get(sandbox).copied()
    }

    /// The zones that a sandbox sees.
    pub fn zones_of<'a>(&'a self, view: &'a View) -> impl Iterator<Item = &'a Zone> {
        view.zones.iter().map(|(at, _)| &self.zones[*at])
    }

    /// Who answers to a name for a sandbox: `db`, `db.my-bridge`, or a link's alias. The first network that knows the
    /// name counts.
    pub fn resolve<'a>(&'a self, view: &'a View, key: &[u8]) -> &'a [Member] {
        let key = view.links.get(key).map_or(key, |name| name);
        for zone in self.zones_of(view) {
            let found = zone.members(key);
            if !found.is_empty() {
                return found;
            }
            if let Some(host) = key.strip_suffix(&*zone.suffix).filter(|_| !zone.suffix.is_empty()) {
                let found = zone.members(host);
                if !found.is_empty() {
                    return found;
                }
            }
        }
        &[]
    }
}

impl Zone {
    fn enter(&mut self, view: usize, presence: &Presence, services: &[Service]) -> Entries {
        let mut names: Vec<Key> = Vec::with_capacity(presence.names.len());
        for name in presence.names.iter().filter_map(|n| key(n)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let own = names.first().map_or_else(Vec::new, |first| [first, &*self.suffix].concat());
        let identity = Arc::new(Identity { name: own.into_boxed_slice(), services: services.into() });
        let member = Member { view, ipv4: presence.ipv4, ipv6: presence.ipv6, identity: identity.clone() };
        for name in &names {
            let members = self.names.entry(name.clone()).or_default();
            // One that was here keeps its place in the list.
            match members.iter_mut().find(|m| m.view == view) {
                Some(former) => former.clone_from(&member),
                None => members.push(member.clone()),
            }
        }
        let addresses: Vec<_> = member.addresses().collect();
        if !names.is_empty() {
            for address in &addresses {
                self.reverse.insert(*address, (view, identity.clone()));
            }
        }
        self.sandboxes += 1;
        Entries { names, addresses }
    }

    /// Removes what a sandbox had entered, but for what it has entered again.
    fn leave(&mut self, view: usize, entries: &Entries, still: Option<&Entries>) {
        for name in &entries.names {
            if still.is_some_and(|s| s.names.contains(name)) {
                continue;
            }
            if let Some(members) = self.names.get_mut(name) {
                members.retain(|m| m.view != view);
                if members.is_empty() {
                    self.names.remove(name);
                }
            }
        }
        for address in &entries.addresses {
            let gone = !still.is_some_and(|s| s.addresses.contains(address) && !s.names.is_empty());
            if gone && self.reverse.get(address).is_some_and(|(owner, _)| *owner == view) {
                self.reverse.remove(address);
            }
        }
        self.sandboxes -= 1;
    }
}

#[cfg(test)]
mod tests;
