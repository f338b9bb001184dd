//! Networks made, found, listed and removed.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use davit_contracts::id::NetworkId;
use davit_contracts::network as proto;

use super::{Engine, EngineError};
use crate::driver::bridge::DEFAULT_MTU;
use crate::endpoint::{Endpoint, Sandbox};
use crate::ipam::Pool;
use crate::netlink::route;
use crate::network::options::{distance, nearest};
use crate::network::pools::{self, Near, Taken};
use crate::network::spec::{self, PREDEFINED, Spec};
use crate::network::{BridgeOptions, Driver, Network, Subnet};

/// A network with what is connected to it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The network.
    pub network: Network,
    /// Its MTU, as far as it is known.
    pub mtu: u32,
    /// Its endpoints and whose they are.
    pub endpoints: Vec<(Sandbox, Endpoint)>,
    /// Whether it has any, also where they are not listed.
    pub used: bool,
    /// What is wrong with it now, for a person.
    pub problems: Vec<String>,
}

/// What became of networks that were to be removed.
#[derive(Debug, Default)]
pub struct Pruned {
    /// Names of those that are gone.
    pub removed: Vec<String>,
    /// Names of those that are still there, and why.
    pub failed: Vec<(String, EngineError)>,
}

impl Engine {
    /// Makes a user network: chosen or checked subnets, a durable record, the bridge.
    pub fn create_network(&mut self, request: &proto::CreateNetworkRequest) -> Result<Listed, EngineError> {
        let spec = spec::check(request)?;
        if self.networks.values().any(|n| n.name == spec.name) {
            return Err(EngineError::NetworkExists(spec.name));
        }
        let subnets = self.choose_subnets(&spec)?;
        let id = NetworkId::from_random(rand::random());
        let mut sublink = spec.sublink;
        if let Some(sublink) = &mut sublink {
            sublink.name_dummy(id.short());
        }
        let interface = if spec.driver == Driver::Bridge {
            let interface = spec.bridge.name.clone().unwrap_or_else(|| format!("dv-{}", id.short()));
            self.check_bridge_name(&interface)?;
            interface
        } else {
            String::new()
        };
        let network = Network {
            id,
            name: spec.name,
            driver: spec.driver,
            created_unix_ns: unix_ns(),
            ipv4: spec.ipv4 || spec.driver == Driver::Cni,
            ipv6: spec.ipv6,
            internal: request.internal,
            attachable: request.attachable,
            subnets,
            options: request.options.clone().into_iter().collect(),
            labels: request.labels.clone().into_iter().collect(),
            interface,
            predefined: false,
            dns: !request.disable_dns,
            bridge: spec.bridge,
            sublink,
            cni: spec.cni,
            policy: None,
            other_macs: false,
        };
        self.check_parent(&network)?;
        self.store.put(&[&network])?;
        self.know(network.clone());
        if let Err(e) = self.ensure_base(&network.id) {
            self.forget(&network);
            return Err(e);
        }
        self.note_problems();
        Ok(self.listed(&network, false))
    }

    /// Takes a network into memory.
    pub(super) fn know(&mut self, network: Network) {
        let pools = network.subnets.iter().map(Pool::new).collect();
        self.pools.insert(network.id.clone(), pools);
        self.networks.insert(network.id.clone(), network);
    }

    /// Removes a network that has no endpoints: the bridge, then the record.
    fn forget(&mut self, network: &Network) {
        if let Err(error) = self.remove_base(network) {
            tracing::warn!(network = %network.name, %error, "its interface could not be removed");
        }
        if let Err(error) = self.store.remove(&network.id) {
            tracing::warn!(network = %network.name, %error, "its record could not be removed");
        }
        self.drop_network(&network.id);
    }

    fn drop_network(&mut self, id: &NetworkId) {
        self.networks.remove(id);
        self.pools.remove(id);
        self.bases.remove(id);
        self.problems.remove(id);
    }

    fn check_bridge_name(&self, interface: &str) -> Result<(), EngineError> {
        let in_use = |by: String| EngineError::BridgeName { interface: interface.to_owned(), by };
        if let Some(other) = self.networks.values().find(|n| n.interface == interface) {
            return Err(in_use(format!("network '{}'", other.name)));
        }
        match route::link(&self.socket, interface)? {
            Some(_) => Err(in_use("an interface of the host".to_owned())),
            None => Ok(()),
        }
    }

    /// Given subnets must be free, and missing ones are chosen. A bridge gives the host a route, so the host must not have
    /// one yet; macvlan and ipvlan join a wire, whose subnet the host often knows.
    fn choose_subnets(&self, spec: &Spec) -> Result<Vec<Subnet>, EngineError> {
        let taken = self.taken(None, &spec.subnets)?;
        let ours: Vec<Taken> = self.taken_by_networks(None);
        let against = if spec.driver == Driver::Bridge { &taken } else { &ours };
        for subnet in &spec.subnets {
            if let Some(t) = pools::conflict(&subnet.subnet, against) {
                return Err(EngineError::Overlap { subnet: subnet.subnet, by: t.by.clone() });
            }
        }
        let mut subnets = spec.subnets.clone();
        let has = |v4: bool| spec.subnets.iter().any(|s| s.subnet.addr().is_ipv4() == v4);
        let chosen = |net: Option<ipnet::IpNet>| {
            net.map(|net| spec::chosen(net, spec.driver)).ok_or(EngineError::PoolsExhausted)
        };
        if spec.ipv4 && !has(true) {
            subnets.insert(0, chosen(self.instance.pools.free(true, &taken))?);
        }
        if spec.ipv6 && !has(false) {
            subnets.push(chosen(self.instance.pools.free(false, &taken))?);
        }
        Ok(subnets)
    }

    fn taken_by_networks(&self, except: Option<&NetworkId>) -> Vec<Taken> {
        let others = self.networks.values().filter(|n| Some(&n.id) != except);
        let of = |n: &Network| {
            let by = format!("network '{}'", n.name);
            n.subnets.iter().map(|s| Taken { net: s.subnet, by: by.clone() }).collect::<Vec<_>>()
        };
        others.flat_map(of).collect()
    }

    /// Every network that is in use: ours (but for `except`), the host's addresses and routes.
    /// As far as it is near what subnets are chosen from, or one of `subnets`.
    pub(super) fn taken(
        &self,
        except: Option<&NetworkId>,
        subnets: &[Subnet],
    ) -> Result<Vec<Taken>, EngineError> {
        let mut taken = self.taken_by_networks(except);
        let near = Near::of(subnets.iter().map(|s| s.subnet).chain(self.instance.pools.bases()));
        taken.extend(self.taken_by_host(&near)?);
        Ok(taken)
    }

    /// The host's addresses and routes that are near, but for those of our bridges.
    pub(super) fn taken_by_host(&self, near: &Near) -> Result<Vec<Taken>, EngineError> {
        let mut taken = Vec::new();
        let links = route::links(&self.socket)?;
        let ours = |name: &str| !name.is_empty() && self.networks.values().any(|n| n.interface == name);
        let mut reaches = route::addresses(&self.socket)?;
        reaches.extend(route::routes(&self.socket)?);
        for reach in reaches.iter().filter(|r| near.meets(&r.net)) {
            let name = links.iter().find(|l| l.index == reach.index).map_or("", |l| l.name.as_str());
            // Somebody may have given a bridge of ours another name.
            let known = self.bases.values().any(|b| b.index == reach.index);
            if reach.net.prefix_len() > 0 && !known && !ours(name) {
                taken.push(Taken {
                    net: reach.net,
                    by: format!("{} of the host's interface {name}", reach.net),
                });
            }
        }
        Ok(taken)
    }

    /// The default network's subnet when it has none yet, or when the host has come to use it meanwhile.
    pub(super) fn choose_default_subnet(&mut self, id: &NetworkId) -> Result<(), EngineError> {
        let known = self.networks.get(id).map_or(&[][..], |n| &n.subnets);
        let taken = self.taken(Some(id), known)?;
        let Some(network) = self.networks.get(id) else { return Ok(()) };
        if network.subnets.iter().all(|s| pools::conflict(&s.subnet, &taken).is_none())
            && !network.subnets.is_empty()
        {
            return Ok(());
        }
        let subnet = self.instance.pools.free(true, &taken).ok_or(EngineError::PoolsExhausted)?;
        let network = Network { subnets: vec![spec::chosen(subnet, Driver::Bridge)], ..network.clone() };
        self.store.put(&[&network])?;
        self.know(network);
        Ok(())
    }

    /// Makes the predefined networks that are not there.
    pub(super) fn predefine(&mut self) -> Result<(), EngineError> {
        let mut made = Vec::new();
        for (name, driver) in PREDEFINED {
            if self.networks.values().any(|n| n.name == name) {
                continue;
            }
            let id = NetworkId::from_random(rand::random());
            let bridge = driver == Driver::Bridge;
            made.push(Network {
                interface: if bridge { format!("dv-{}", id.short()) } else { String::new() },
                id,
                name: name.to_owned(),
                driver,
                created_unix_ns: unix_ns(),
                ipv4: true,
                ipv6: false,
                internal: false,
                attachable: false,
                subnets: Vec::new(),
                options: BTreeMap::new(),
                labels: BTreeMap::new(),
                predefined: true,
                dns: bridge,
                bridge: BridgeOptions::default(),
                sublink: None,
                cni: None,
                policy: None,
                other_macs: false,
            });
        }
        if made.is_empty() {
            return Ok(());
        }
        if let Some(bridge) = made.iter_mut().find(|n| n.driver == Driver::Bridge) {
            // Without a free pool the daemon starts all the same; the first attach says so.
            let free = self.instance.pools.free(true, &self.taken(None, &[])?);
            bridge.subnets = free.map(|net| spec::chosen(net, Driver::Bridge)).into_iter().collect();
        }
        self.store.put(&made.iter().collect::<Vec<_>>())?;
        for network in made {
            self.know(network);
        }
        Ok(())
    }

    /// Finds a network by name, id, or the beginning of an id. `default` is docker's word for `bridge`.
    pub fn find_network(&self, name: &str) -> Result<&Network, EngineError> {
        let wanted = if name == "default" { "bridge" } else { name };
        if let Some(network) = self.networks.values().find(|n| n.name == wanted || n.id.as_str() == wanted) {
            return Ok(network);
        }
        let hex = !name.is_empty() && name.bytes().all(|b| b.is_ascii_hexdigit());
        let mut matches = self.networks.values().filter(|n| hex && n.id.as_str().starts_with(name));
        match (matches.next(), matches.next()) {
            (Some(network), None) => Ok(network),
            (Some(_), Some(_)) => Err(EngineError::AmbiguousNetwork(name.to_owned())),
            (None, _) => {
                let nearest = nearest(name, self.networks.values().map(|n| n.name.as_str()));
                let close = distance(name, nearest) <= name.len().max(3) / 2;
                let nearest = close.then(|| nearest.to_owned());
                Err(EngineError::UnknownNetwork { name: name.to_owned(), nearest })
            }
        }
    }

    /// One network with its endpoints.
    pub fn inspect_network(&self, name: &str) -> Result<Listed, EngineError> {
        Ok(self.listed(self.find_network(name)?, true))
    }

    /// All networks, the predefined first, then by age.
    pub fn list_networks(&self) -> Vec<Listed> {
        let mut all: Vec<_> = self.networks.values().collect();
        all.sort_by_key(|n| (!n.predefined, n.created_unix_ns, n.name.clone()));
        all.into_iter().map(|n| self.listed(n, false)).collect()
    }

    pub(super) fn listed(&self, network: &Network, with_endpoints: bool) -> Listed {
        let mut endpoints = Vec::new();
        if with_endpoints {
            for (sandbox, endpoint) in self.endpoints_of(&network.id) {
                endpoints.push((sandbox.clone(), endpoint.clone()));
            }
            endpoints.sort_by_key(|(s, _)| s.sequence);
        }
        let used = self.endpoints_of(&network.id).next().is_some();
        let mut problems = self.problems.get(&network.id).cloned().unwrap_or_default();
        problems.extend(self.parent_problem(network));
        Listed { network: network.clone(), mtu: self.mtu_of(network), endpoints, used, problems }
    }

    /// A network's MTU, as far as it is known.
    pub(super) fn mtu_of(&self, network: &Network) -> u32 {
        let known = self.bases.get(&network.id).map(|b| b.mtu).or(network.mtu());
        known.or_else(|| self.parent_mtu(network)).unwrap_or(DEFAULT_MTU)
    }

    pub(super) fn endpoints_of<'a>(
        &'a self,
        id: &'a NetworkId,
    ) -> impl Iterator<Item = (&'a Sandbox, &'a Endpoint)> {
        self.sandboxes
            .values()
            .flat_map(move |s| s.endpoints.iter().filter(|e| e.network == *id).map(move |e| (s, e)))
    }

    /// Removes a user network. With `force`, its endpoints are disconnected first.
    pub fn remove_network(&mut self, name: &str, force: bool) -> Result<Network, EngineError> {
        let network = self.find_network(name)?.clone();
        if network.predefined {
            return Err(EngineError::Predefined(network.name));
        }
        let connected: Vec<_> =
            self.endpoints_of(&network.id).map(|(s, _)| (s.id.clone(), s.name.clone())).collect();
        if !connected.is_empty() && !force {
            let by = connected.into_iter().map(|(_, name)| name).collect();
            return Err(EngineError::NetworkInUse { name: network.name, by });
        }
        for (sandbox, _) in connected {
            self.disconnect(&sandbox, network.id.as_str())?;
        }
        self.settle();
        self.remove_base(&network)?;
        self.store.remove(&network.id)?;
        self.drop_network(&network.id);
        self.wall_in()?;
        Ok(network)
    }

    /// Removes user networks without endpoints that `wanted` chooses: the names of those that are gone, and of those that
    /// could not be removed with the reason. One that fails does not keep the others.
    pub fn prune_networks(&mut self, wanted: impl Fn(&Listed) -> bool) -> Pruned {
        let mut unused = self.list_networks();
        unused.retain(|l| !l.network.predefined && !l.used && wanted(l));
        let networks = unused.into_iter().map(|l| l.network).collect();
        remove_each(networks, |id| self.remove_network(id.as_str(), false).map(drop))
    }
}

/// By id: a name may mean another network.
fn remove_each(
    networks: Vec<Network>,
    mut remove: impl FnMut(&NetworkId) -> Result<(), EngineError>,
) -> Pruned {
    let mut pruned = Pruned::default();
    for network in networks {
        match remove(&network.id) {
            Ok(()) => pruned.removed.push(network.name),
            Err(error) => pruned.failed.push((network.name, error)),
        }
    }
    pruned
}

fn unix_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::example;

    #[test]
    fn a_network_that_stays_does_not_keep_the_others() {
        let networks = ["a", "b", "c"].map(|name| example(name, "10.1.0.0/24")).to_vec();
        let stays = networks[1].id.clone();
        let pruned =
            remove_each(networks, |id| if *id == stays { Err(EngineError::Stopped) } else { Ok(()) });
        assert_eq!(pruned.removed, ["a", "c"]);
        assert!(matches!(&pruned.failed[..], [(name, EngineError::Stopped)] if name == "b"));
    }
}
