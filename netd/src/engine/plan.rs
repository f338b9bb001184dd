//! From a request to a sandbox's record: every check that needs no change of the kernel, addresses and ports taken.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use davit_contracts::id::{EndpointId, NetworkId};
use ipnet::IpNet;

use super::attach::{AttachSpec, EndpointSpec};
use super::{Engine, EngineError};
use crate::driver::bridge::mac_of;
use crate::endpoint::{Endpoint, Sandbox};
use crate::ipam::IpamError;
use crate::netlink::route::Mac;
use crate::network::options::interface_name;
use crate::network::{Driver, Network};
use crate::publish::Wanted;

impl Engine {
    /// Adds endpoints and ports to a new sandbox's record. What it took is in the record even when it fails.
    pub(super) fn plan(&mut self, sandbox: &mut Sandbox, spec: &AttachSpec) -> Result<(), EngineError> {
        for wanted in &spec.endpoints {
            let network = self.find_network(&wanted.network)?.clone();
            if network.driver == Driver::Host && spec.endpoints.len() > 1 {
                return Err(EngineError::HostWithOthers);
            }
            let endpoint = self.plan_endpoint(sandbox, wanted, &network)?;
            sandbox.endpoints.push(endpoint);
        }
        self.plan_ports(sandbox, &spec.ports)
    }

    /// Makes an endpoint's record; its addresses are taken.
    pub(super) fn plan_endpoint(
        &mut self,
        sandbox: &Sandbox,
        wanted: &EndpointSpec,
        network: &Network,
    ) -> Result<Endpoint, EngineError> {
        if sandbox.endpoints.iter().any(|e| e.network == network.id) {
            return Err(EngineError::Twice(sandbox.name.clone(), network.name.clone()));
        }
        let id = EndpointId::from_random(rand::random());
        let mut endpoint = Endpoint {
            network: network.id.clone(),
            interface: String::new(),
            host_interface: String::new(),
            mac: None,
            ip: None,
            gateway: None,
            ip6: None,
            gateway6: None,
            names: Vec::new(),
            links: links(sandbox, &wanted.links)?,
            gateway_priority: wanted.gateway_priority,
            pending: false,
            id,
        };
        if network.driver != Driver::Bridge {
            return Ok(endpoint);
        }
        endpoint.interface = match wanted.interface.as_str() {
            "" => sandbox.free_interface(),
            name => free_name(sandbox, name)?,
        };
        endpoint.host_interface = format!("dvh{}", &endpoint.id.as_str()[..12]);
        endpoint.names = names(sandbox, &wanted.aliases);
        let asked_mac = self.asked_mac(sandbox, wanted, network)?;
        check_family(sandbox, wanted, network)?;
        if network.predefined
            && self.endpoints_of(&network.id).next().is_none()
            && !self.bridges.contains_key(&network.id)
        {
            self.choose_default_subnet(&network.id)?;
        }
        self.take_addresses(sandbox, wanted, &network.id, &mut endpoint)?;
        endpoint.mac = asked_mac.or_else(|| endpoint.ip.map(|ip| mac_of(ip.addr())));
        Ok(endpoint)
    }

    fn asked_mac(
        &self,
        sandbox: &Sandbox,
        wanted: &EndpointSpec,
        network: &Network,
    ) -> Result<Option<Mac>, EngineError> {
        if wanted.mac.is_empty() {
            return Ok(None);
        }
        let mac: Mac =
            wanted.mac.parse().map_err(|expected| invalid(sandbox, "mac", &wanted.mac, expected))?;
        let held =
            self.endpoints_of(&network.id).find(|(_, e)| e.mac == Some(mac)).map(|(s, _)| s.name.clone());
        match held {
            Some(holder) => {
                Err(EngineError::MacTaken { mac: mac.to_string(), holder, network: network.name.clone() })
            }
            None => Ok(Some(mac)),
        }
    }

    fn take_addresses(
        &mut self,
        sandbox: &Sandbox,
        wanted: &EndpointSpec,
        id: &NetworkId,
        endpoint: &mut Endpoint,
    ) -> Result<(), EngineError> {
        let network = self.networks[id].clone();
        if network.subnets.is_empty() {
            return Err(EngineError::PoolsExhausted);
        }
        let result = (|| {
            for (index, subnet) in network.subnets.iter().enumerate() {
                let v4 = subnet.subnet.addr().is_ipv4();
                let asked = if v4 { &wanted.ip } else { &wanted.ip6 };
                let address = self.take_address(sandbox, &network, index, asked)?;
                let gateway = (!network.internal).then_some(subnet.gateway);
                if v4 {
                    (endpoint.ip, endpoint.gateway) = (Some(address), gateway);
                } else {
                    (endpoint.ip6, endpoint.gateway6) = (Some(address), gateway);
                }
            }
            Ok(())
        })();
        if result.is_err() {
            self.release_addresses(endpoint);
        }
        result
    }

    fn take_address(
        &mut self,
        sandbox: &Sandbox,
        network: &Network,
        index: usize,
        asked: &str,
    ) -> Result<IpNet, EngineError> {
        let pool = self
            .pools
            .get_mut(&network.id)
            .and_then(|pools| pools.get_mut(index))
            .expect("every network has a pool for each of its subnets");
        let taken = if asked.is_empty() {
            pool.take_next()
        } else {
            let ip = asked
                .parse()
                .map_err(|_| invalid(sandbox, "address", asked, "an IP address is expected".into()))?;
            pool.take(ip)
        };
        taken.map_err(|source| {
            let holder = match source {
                IpamError::Taken(ip) => self.holder_of(&network.id, ip),
                _ => None,
            };
            let (container, network) = (sandbox.name.clone(), network.name.clone());
            EngineError::Address { container, network, holder, source }
        })
    }

    fn holder_of(&self, id: &NetworkId, ip: IpAddr) -> Option<String> {
        let has = |e: &Endpoint| e.addresses().any(|a| a.addr() == ip);
        self.endpoints_of(id).find(|(_, e)| has(e)).map(|(s, _)| s.name.clone())
    }

    /// Gives back an endpoint's addresses.
    pub(super) fn release_addresses(&mut self, endpoint: &Endpoint) {
        for address in endpoint.addresses() {
            for pool in self.pools.get_mut(&endpoint.network).into_iter().flatten() {
                pool.release(address.addr());
            }
        }
    }

    fn plan_ports(&mut self, sandbox: &mut Sandbox, ports: &[Wanted]) -> Result<(), EngineError> {
        let plain = !sandbox.endpoints.iter().any(Endpoint::is_wired);
        // Without a network of its own a container's ports are the host's, or nobody's: docker ignores them too.
        if ports.is_empty() || plain {
            return Ok(());
        }
        let Some(endpoint) = sandbox.gateway_endpoint() else {
            return Err(EngineError::NoWayIn(sandbox.name.clone()));
        };
        let binding = self.networks.get(&endpoint.network).and_then(|n| n.bridge.host_binding);
        let ipv6 = endpoint.ip6.is_some();
        for wanted in ports {
            let any = wanted.host_ip.is_unspecified() && wanted.host_ip.is_ipv4();
            let ip = binding.filter(|_| any).unwrap_or(wanted.host_ip);
            let mapping =
                self.ports.reserve(&sandbox.id, &sandbox.name, Wanted { host_ip: ip, ..*wanted })?;
            sandbox.ports.push(mapping);
            if ipv6 && ip == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
                let port = mapping.host.port();
                let same =
                    Wanted { host_ip: Ipv6Addr::UNSPECIFIED.into(), first: port, last: port, ..*wanted };
                sandbox.ports.push(self.ports.reserve(&sandbox.id, &sandbox.name, same)?);
            }
        }
        Ok(())
    }
}

fn check_family(sandbox: &Sandbox, wanted: &EndpointSpec, network: &Network) -> Result<(), EngineError> {
    match wanted.ip6.parse() {
        Ok(ip) if network.subnet(false).is_none() => {
            Err(EngineError::NoIpv6 { container: sandbox.name.clone(), network: network.name.clone(), ip })
        }
        _ => Ok(()),
    }
}

fn invalid(sandbox: &Sandbox, what: &'static str, value: &str, expected: String) -> EngineError {
    EngineError::Endpoint { container: sandbox.name.clone(), what, value: value.to_owned(), expected }
}

fn free_name(sandbox: &Sandbox, name: &str) -> Result<String, EngineError> {
    let refused = |why: &str| invalid(sandbox, "interface name", name, why.to_owned());
    if interface_name(name).is_none() || name == "lo" || name == "all" || name == "default" {
        return Err(refused("1 to 15 characters without '/' and ':' are expected"));
    }
    if sandbox.endpoints.iter().any(|e| e.interface == name) {
        return Err(refused("another endpoint has it"));
    }
    Ok(name.to_owned())
}

/// The container's name, its aliases, its short id, its hostname.
fn names(sandbox: &Sandbox, aliases: &[String]) -> Vec<String> {
    let short: String = sandbox.id.chars().take(12).collect();
    let mut names: Vec<String> = Vec::new();
    let all = [&sandbox.name].into_iter().chain(aliases).chain([&short, &sandbox.hostname]);
    for name in all {
        if !name.is_empty() && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn links(sandbox: &Sandbox, links: &[String]) -> Result<BTreeMap<String, String>, EngineError> {
    links
        .iter()
        .map(|link| {
            let (name, alias) = link.split_once(':').unwrap_or((link, link));
            if name.is_empty() || alias.is_empty() {
                return Err(invalid(sandbox, "link", link, "container:alias is expected".into()));
            }
            Ok((alias.to_owned(), name.to_owned()))
        })
        .collect()
}
