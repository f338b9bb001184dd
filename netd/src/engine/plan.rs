//! From a request to a sandbox's record: every check that needs no change of the kernel, addresses and ports taken.

mod asked;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use davit_contracts::id::{EndpointId, NetworkId};
use ipnet::IpNet;

use self::asked::{check_aliases, check_ipv6_off, has_ipv6, has_own_mac, ipv6_off, links};
use super::attach::{AttachSpec, EndpointSpec};
use super::{Engine, EngineError};
use crate::driver::{self, owned};
use crate::endpoint::options::{EndpointOptions, IFNAME_OPTION};
use crate::endpoint::{Endpoint, Mapping, Sandbox};
use crate::ipam::IpamError;
use crate::netlink::route;
use crate::netlink::view::{self, Fate};
use crate::network::options::{NAMES, chosen_name};
use crate::network::{Driver, GatewayMode, Network};
use crate::publish::{PublishError, Wanted};

/// Random ports that are tried until one is free in both IP versions.
const RANDOM_TRIES: u32 = 8;

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
        self.plan_ports(sandbox, &spec.ports)?;
        if sandbox.holder.process().is_none() {
            self.ports.share(&sandbox.id);
        }
        Ok(())
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
        let asked = EndpointOptions::parse(&wanted.options)?;
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
            routed: network.sublink.as_ref().is_some_and(|s| s.mode.is_routed()) && !network.internal,
            bandwidth: self.limits(sandbox, wanted, network)?,
            sysctls: Vec::new(),
            foreign: None,
            mtu: None,
            pending: false,
            id,
        };
        if driver::of(network.driver).is_none() && network.driver != Driver::Cni {
            return Ok(endpoint);
        }
        endpoint.interface = match [wanted.interface.as_str(), asked.ifname.as_deref().unwrap_or("")] {
            ["", ""] => sandbox.free_interface(network.prefix()),
            ["", name] | [name, ""] => free_name(sandbox, name)?,
            [name, other] if name == other => free_name(sandbox, name)?,
            [name, other] => {
                let expected = format!("the option {IFNAME_OPTION} says {other}");
                return Err(invalid(sandbox, "interface name", name, expected));
            }
        };
        if network.driver == Driver::Bridge {
            endpoint.host_interface = owned::end_name(&endpoint.id);
        }
        check_aliases(sandbox, &wanted.aliases)?;
        endpoint.names = names(sandbox, &wanted.aliases);
        endpoint.sysctls = asked.sysctls;
        if network.driver == Driver::Cni {
            if let Some((name, value)) = endpoint.sysctls.first() {
                let expected =
                    format!("settings of an interface of network '{}' are its plugins'", network.name);
                return Err(invalid(sandbox, "sysctl", &format!("{name}={value}"), expected));
            }
            endpoint.foreign = Some(Self::plan_foreign(sandbox, wanted, network, &endpoint)?);
            return Ok(endpoint);
        }
        let asked_mac = self.asked_mac(sandbox, wanted, network)?;
        check_family(sandbox, wanted, network)?;
        check_ipv6_off(sandbox, wanted, network, &endpoint)?;
        if network.predefined
            && self.endpoints_of(&network.id).next().is_none()
            && !self.bases.contains_key(&network.id)
        {
            self.choose_default_subnet(&network.id)?;
        }
        self.take_addresses(sandbox, wanted, &network.id, &mut endpoint)?;
        let own = has_own_mac(network);
        let first = endpoint.addresses().next().filter(|_| own).map(|a| a.addr());
        endpoint.mac = asked_mac.or_else(|| first.map(|ip| self.free_mac(sandbox, network, ip)));
        if let Err(e) = self.note_mac(&endpoint) {
            self.release_addresses(&endpoint);
            return Err(e);
        }
        Ok(endpoint)
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
        let with_ipv6 = ipv6_off(sandbox, endpoint).is_none();
        let result = [true, false]
            .into_iter()
            .filter(|v4| network.subnet(*v4).is_some() && (*v4 || with_ipv6))
            .try_for_each(|v4| self.take_family(sandbox, wanted, &network, v4, endpoint));
        if result.is_err() {
            self.release_addresses(endpoint);
        }
        result
    }

    /// An address of one version: of the subnet that holds the one that was asked for, else of the first with a free one.
    fn take_family(
        &mut self,
        sandbox: &Sandbox,
        wanted: &EndpointSpec,
        network: &Network,
        v4: bool,
        endpoint: &mut Endpoint,
    ) -> Result<(), EngineError> {
        let asked = if v4 { &wanted.ip } else { &wanted.ip6 };
        let family = |at: &usize| network.subnets[*at].subnet.addr().is_ipv4() == v4;
        let mut candidates: Vec<_> = (0..network.subnets.len()).filter(family).collect();
        if let Ok(ip) = asked.parse::<IpAddr>()
            && let Some(at) = candidates.iter().find(|at| network.subnets[**at].subnet.contains(&ip))
        {
            candidates = vec![*at];
        }
        // On a wire of the host's the host has addresses itself.
        let avoid = if network.sublink.is_some() { route::own_addresses(&self.socket)? } else { Vec::new() };
        let mut taken = None;
        for at in candidates {
            match self.take_address(sandbox, network, at, asked, &avoid) {
                Err(e @ EngineError::Address { source: IpamError::Full(_), .. }) => taken = Some(Err(e)),
                other => {
                    taken = Some(other.map(|address| (at, address)));
                    break;
                }
            }
        }
        let Some(taken) = taken else { return Ok(()) };
        let (at, address) = taken?;
        let isolated = network.bridge.gateway_mode(v4) == GatewayMode::Isolated;
        let gateway =
            network.subnets[at].gateway.filter(|_| !network.internal && !endpoint.routed && !isolated);
        if v4 {
            (endpoint.ip, endpoint.gateway) = (Some(address), gateway);
        } else {
            (endpoint.ip6, endpoint.gateway6) = (Some(address), gateway);
        }
        Ok(())
    }

    fn take_address(
        &mut self,
        sandbox: &Sandbox,
        network: &Network,
        index: usize,
        asked: &str,
        avoid: &[IpAddr],
    ) -> Result<IpNet, EngineError> {
        let pool = self
            .pools
            .get_mut(&network.id)
            .and_then(|pools| pools.get_mut(index))
            .expect("every network has a pool for each of its subnets");
        let taken = if asked.is_empty() {
            pool.take_next(avoid)
        } else {
            let ip = asked
                .parse()
                .map_err(|_| invalid(sandbox, "address", asked, "an IP address is expected".into()))?;
            pool.take(ip, avoid)
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
        self.unpolice(endpoint);
        for address in endpoint.addresses() {
            for pool in self.pools.get_mut(&endpoint.network).into_iter().flatten() {
                pool.release(address.addr());
            }
        }
    }

    fn plan_ports(&mut self, sandbox: &mut Sandbox, ports: &[Wanted]) -> Result<(), EngineError> {
        let plain = !sandbox.endpoints.iter().any(Endpoint::is_bridged);
        // Without a bridge a container's ports are the host's, its own on some wire, or nobody's: docker ignores them too.
        if ports.is_empty() {
            return Ok(());
        }
        if plain {
            return self.plan_foreign_ports(sandbox, ports);
        }
        let Some(endpoint) = sandbox.gateway_endpoint() else { return self.without_way_in(sandbox) };
        let Some(network) = self.networks.get(&endpoint.network) else { return Ok(()) };
        let (binding, binding6) = (network.bridge.host_binding, network.bridge.host_binding6);
        let modes = network.bridge.gateway_modes();
        let (ipv4, ipv6) = (endpoint.ip.is_some(), endpoint.ip6.is_some());
        // Whoever has a namespace by a path publishes by himself what the kernel does not redirect.
        let relayed = !ipv6 && modes[0] != GatewayMode::Routed && sandbox.holder.process().is_some();
        for wanted in ports {
            let any = wanted.everywhere;
            let ip = binding.filter(|_| any).unwrap_or(wanted.host_ip);
            let both = ipv6 || (relayed && wanted.transport.is_relayed() && has_ipv6());
            let ip6 = binding6.unwrap_or(Ipv6Addr::UNSPECIFIED).into();
            let ip6 = (both && any && (ip.is_unspecified() || binding6.is_some())).then_some(ip6);
            if !ipv4 && ip.is_ipv4() {
                // Nothing leads from the host's IPv4 addresses to a container that has none.
                let Some(host_ip) = ip6 else {
                    return Err(EngineError::NoPortFamily(sandbox.name.clone(), ip));
                };
                self.plan_port(sandbox, Wanted { host_ip, ..*wanted }, modes)?;
                continue;
            }
            self.plan_pair(sandbox, Wanted { host_ip: ip, ..*wanted }, ip6, modes)?;
        }
        Ok(())
    }

    /// Ports that lead nowhere. Who attaches a namespace by its path, network by network, asks for them on each, also on the internal
    /// ones: another network of the namespace publishes them, or none does.
    fn without_way_in(&self, sandbox: &Sandbox) -> Result<(), EngineError> {
        let internal = |e: &Endpoint| self.networks.get(&e.network).is_some_and(|n| n.internal);
        if sandbox.holder.process().is_some() || !sandbox.endpoints.iter().all(internal) {
            return Err(EngineError::NoWayIn(sandbox.name.clone()));
        }
        tracing::warn!(container.id = %sandbox.id, "its ports are not published on an internal network");
        Ok(())
    }

    /// Reserves a port, and the same one of an IPv6 address: of a range, the first that is free on both.
    fn plan_pair(
        &mut self,
        sandbox: &mut Sandbox,
        wanted: Wanted,
        ip6: Option<IpAddr>,
        modes: [GatewayMode; 2],
    ) -> Result<(), EngineError> {
        let mut attempt = wanted;
        for tries in 1.. {
            let mapping = self.plan_port(sandbox, attempt, modes)?;
            let Some(host_ip) = ip6 else { return Ok(()) };
            // The same port, when the first is the host's at all.
            let port = mapping.host.port();
            let (first, last) = if port == 0 { (wanted.first, wanted.last) } else { (port, port) };
            let same = Wanted { host_ip, first, last, ..wanted };
            let Err(failed) = self.plan_port(sandbox, same, modes) else { return Ok(()) };
            match wanted.first {
                0 if tries < RANDOM_TRIES => {}
                first if first != 0 && port != 0 && port < wanted.last => attempt.first = port + 1,
                _ => return Err(failed),
            }
            // One that waits is another's.
            if sandbox.ports.pop_if(|last| *last == mapping).is_some() {
                self.ports.give_back(&mapping);
            } else {
                sandbox.waiting.pop();
            }
        }
        Ok(())
    }

    /// Reserves the host's port, unless the container's own is opened on a routed network: then the answer's host port
    /// is 0, and others may have the one that was asked for.
    fn plan_port(
        &mut self,
        sandbox: &mut Sandbox,
        wanted: Wanted,
        modes: [GatewayMode; 2],
    ) -> Result<Mapping, EngineError> {
        let Wanted { transport, host_ip, container_port, .. } = wanted;
        let mapping = if modes[usize::from(host_ip.is_ipv6())] == GatewayMode::Routed {
            Mapping { transport, host: SocketAddr::new(host_ip, 0), container_port }
        } else if let Some(mapping) = self.shared_port(sandbox, wanted) {
            sandbox.waiting.push(mapping);
            return Ok(mapping);
        } else {
            self.reserve(sandbox, wanted)?
        };
        sandbox.ports.push(mapping);
        Ok(mapping)
    }

    /// Reserves a port at an address where somebody can ask.
    pub(super) fn reserve(&mut self, sandbox: &Sandbox, wanted: Wanted) -> Result<Mapping, EngineError> {
        if self.is_broadcast(wanted.host_ip)? {
            return Err(PublishError::Broadcast(wanted.host_ip).into());
        }
        let (id, name) = (&sandbox.id, &sandbox.name);
        Ok(match sandbox.holder.process() {
            Some(_) => self.ports.reserve(id, name, wanted)?,
            None => self.ports.reserve_shared(id, name, wanted)?,
        })
    }

    /// Whether a subnet of the host, or of a network whose bridge may come later, has it for its broadcasts (RFC 919).
    fn is_broadcast(&self, ip: IpAddr) -> Result<bool, EngineError> {
        if ip.is_ipv6() || ip.is_unspecified() || ip == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            return Ok(false);
        }
        let mut subnets = self.networks.values().flat_map(|n| &n.subnets);
        let of_ours = subnets.any(|s| s.subnet.prefix_len() < 31 && s.subnet.broadcast() == ip);
        let of_host = |r: &view::Route| r.fate == Fate::Group;
        Ok(of_ours || view::lookup(&self.socket, ip)?.as_ref().is_ok_and(of_host))
    }
}

fn check_family(sandbox: &Sandbox, wanted: &EndpointSpec, network: &Network) -> Result<(), EngineError> {
    for (v4, asked) in [(true, &wanted.ip), (false, &wanted.ip6)] {
        let Ok(ip) = asked.parse::<IpAddr>() else { continue };
        if ip.is_ipv4() != v4 {
            let expected = if v4 { "an IPv4 address is expected" } else { "an IPv6 address is expected" };
            return Err(invalid(sandbox, "address", asked, expected.to_owned()));
        }
        if network.subnet(v4).is_none() {
            let (container, network) = (sandbox.name.clone(), network.name.clone());
            return Err(EngineError::NoFamily { container, network, version: if v4 { 4 } else { 6 }, ip });
        }
    }
    Ok(())
}

fn invalid(sandbox: &Sandbox, what: &'static str, value: &str, expected: String) -> EngineError {
    EngineError::Endpoint { container: sandbox.name.clone(), what, value: value.to_owned(), expected }
}

fn free_name(sandbox: &Sandbox, name: &str) -> Result<String, EngineError> {
    let refused = |why: &str| invalid(sandbox, "interface name", name, why.to_owned());
    if chosen_name(name).is_none() {
        return Err(refused(&format!("{NAMES} is expected")));
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
