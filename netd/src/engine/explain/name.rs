//! From what was asked for to an address: what the resolver inside a container answers, and why.

use std::net::{IpAddr, Ipv4Addr};

use super::{End, Place, Step, Walk};
use crate::endpoint::{Endpoint, Sandbox};
use crate::network::options::{distance, nearest};

impl Walk<'_> {
    pub(super) fn name(&mut self, from: Place<'_>, to: &str) -> Step<IpAddr> {
        if let Ok(ip) = to.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(ip);
        }
        // Nobody asks a server for it (RFC 6761, section 6.3).
        if to.eq_ignore_ascii_case("localhost") {
            return Ok(Ipv4Addr::LOCALHOST.into());
        }
        if to == "host" {
            return self.address_of_host(from);
        }
        match from {
            Place::Host => self.name_on_host(to),
            Place::Sandbox(sandbox) => self.name_inside(sandbox, to),
        }
    }

    fn address_of_host(&mut self, from: Place<'_>) -> Step<IpAddr> {
        let Place::Sandbox(sandbox) = from else { return Ok(Ipv4Addr::LOCALHOST.into()) };
        let bridged = || sandbox.endpoints.iter().filter(|e| e.is_bridged());
        let subnets =
            |e: &Endpoint| self.engine.networks.get(&e.network)?.subnets.iter().find_map(|s| s.gateway);
        let gateway = sandbox.gateway_endpoint().and_then(|e| e.gateway.or(e.gateway6));
        match gateway.or_else(|| bridged().find_map(subnets)) {
            Some(ip) => {
                self.note("name", &sandbox.name, format!("the host is {ip} to it"));
                Ok(ip)
            }
            None => Err(self.stop("name", &sandbox.name, "it is on no network that the host is on", "")),
        }
    }

    /// The host does not know the names: the address that published ports lead to is taken.
    fn name_on_host(&mut self, to: &str) -> Step<IpAddr> {
        let engine = self.engine;
        let named =
            |s: &&Sandbox| s.name == to || s.endpoints.iter().any(|e| e.names.iter().any(|n| n == to));
        let Some(sandbox) = engine.sandboxes.values().find(named) else {
            return Err(self.unknown("host", to));
        };
        let endpoint = sandbox.gateway_endpoint().or_else(|| sandbox.endpoints.iter().find(|e| e.is_wired()));
        let address = endpoint.and_then(|e| Some((e, e.addresses().next()?.addr())));
        let Some((endpoint, ip)) = address else {
            return Err(self.stop("name", "host", format!("'{to}' has no address of its own"), ""));
        };
        let network = &self.network_of(endpoint)?.name;
        let what =
            format!("the host does not resolve '{to}': its address {ip} on network {network} is taken");
        self.note("name", "host", what);
        Ok(ip)
    }

    fn name_inside(&mut self, sandbox: &Sandbox, to: &str) -> Step<IpAddr> {
        let found = self.engine.names.look(&sandbox.id, to);
        let Some(ip) = found.iter().find(|ip| ip.is_ipv4()).or(found.first()).copied() else {
            return Err(self.not_found(sandbox, to));
        };
        let more = match found.iter().filter(|other| **other != ip).count() {
            0 => String::new(),
            n => format!(", and {n} more"),
        };
        let why = self.why(sandbox, ip, to).unwrap_or_default();
        self.pass("name", &sandbox.name, format!("'{to}' is {ip}{more}{why}"));
        Ok(ip)
    }

    /// `: a container on network n`.
    fn why(&self, from: &Sandbox, ip: IpAddr, to: &str) -> Option<String> {
        let shared = |e: &&Endpoint| from.endpoints.iter().any(|own| own.network == e.network);
        let has = |e: &&Endpoint| shared(e) && e.addresses().any(|a| a.addr() == ip);
        let mut all = self.engine.sandboxes.values();
        let (holder, endpoint) = all.find_map(|s| Some((s, s.endpoints.iter().find(has)?)))?;
        let network = &self.engine.networks.get(&endpoint.network)?.name;
        let how = if to.eq_ignore_ascii_case(&holder.name) {
            "a container".to_owned()
        } else if holder.id.starts_with(to) {
            format!("the id of container {}", holder.name)
        } else {
            format!("another name of container {}", holder.name)
        };
        Some(format!(": {how} on network {network}"))
    }

    fn not_found(&mut self, sandbox: &Sandbox, to: &str) -> End {
        let engine = self.engine;
        let name = |e: &Endpoint| engine.networks.get(&e.network).map(|n| n.name.clone());
        let own: Vec<String> = sandbox.endpoints.iter().filter_map(name).collect();
        let answers = |e: &Endpoint| e.names.iter().any(|n| n.eq_ignore_ascii_case(to));
        let named = |s: &&Sandbox| s.name == to || s.endpoints.iter().any(answers);
        let Some(other) = engine.sandboxes.values().find(named) else {
            return self.unknown(&sandbox.name, to);
        };
        let theirs: Vec<String> = other.endpoints.iter().filter_map(name).collect();
        if let Some(common) = own.iter().find(|n| theirs.contains(n)) {
            let what = format!("'{to}' is on network {common} too, which has no names");
            return self.stop("name", &sandbox.name, what, "use its address, or a network with names");
        }
        let list = |names: &[String]| if names.is_empty() { "no network".into() } else { names.join(", ") };
        let what = format!(
            "'{to}' is on {}, {} is on {}: they have none in common",
            list(&theirs),
            sandbox.name,
            list(&own)
        );
        let hint = match theirs.iter().find(|n| !matches!(n.as_str(), "host" | "none")) {
            Some(network) => format!("'davit net connect {network} {}' brings them together", sandbox.name),
            None => "give it a network: 'davit net connect NETWORK CONTAINER'".to_owned(),
        };
        self.stop("name", &sandbox.name, what, hint)
    }

    fn unknown(&mut self, place: &str, to: &str) -> End {
        let known = self.engine.sandboxes.values().map(|s| s.name.as_str());
        let near = nearest(to, known);
        let close = !near.is_empty() && distance(to, near) <= to.len().max(3) / 2;
        let hint = if close {
            format!("did you mean '{near}'?")
        } else {
            "for a name of the world, give its address: servers outside are not asked here".to_owned()
        };
        self.stop("name", place, format!("no container here is called '{to}'"), hint)
    }
}
