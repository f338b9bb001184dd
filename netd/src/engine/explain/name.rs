//! From what was asked for to an address: /etc/hosts first, then what the resolver inside a container answers, and why.
//!
//! A name that is not ours is asked for by who wanted the explanation, since that may take seconds and the engine does not
//! wait: the walk ends with the question, and is made again with the answer.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, OwnedFd};

use super::{End, Place, Step, Walk, hosts};
use crate::dns::inquire::{self, Told};
use crate::dns::nameserver::NameServer;
use crate::endpoint::{Endpoint, Sandbox};
use crate::engine::attach::open_namespace;
use crate::network::options::{distance, nearest};

/// A name of the world, and who asks for it.
#[derive(Debug)]
pub struct Inquiry {
    /// What is asked for.
    pub name: String,
    /// Where the resolver is; the host's when absent.
    netns: Option<OwnedFd>,
}

impl Inquiry {
    /// Asks, and waits for the answer: seconds, when servers are silent.
    pub fn ask(&self) -> Told {
        match &self.netns {
            Some(netns) => inquire::inside(netns.as_fd(), &self.name),
            None => inquire::on_host(&self.name),
        }
    }
}

/// IPv4 first, as there is a way out by it more often.
fn best(found: &[IpAddr]) -> Option<IpAddr> {
    found.iter().find(|ip| ip.is_ipv4()).or(found.first()).copied()
}

/// `, and 2 more`.
fn more(found: &[IpAddr], ip: IpAddr) -> String {
    match found.iter().filter(|other| **other != ip).count() {
        0 => String::new(),
        n => format!(", and {n} more"),
    }
}

impl Walk<'_> {
    /// `resident`: the container that asks, also one in the host's network.
    pub(super) fn name(&mut self, from: Place<'_>, resident: Option<&Sandbox>, to: &str) -> Step<IpAddr> {
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
        if let Some(sandbox) = resident {
            let found = hosts::look(sandbox, to);
            if let Some(ip) = best(&found) {
                let what = format!("'{to}' is {ip}{}: its /etc/hosts says so", more(&found, ip));
                self.pass("name", &sandbox.name, what);
                return Ok(ip);
            }
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
        let Some(sandbox) = self.called(to) else { return self.world_on_host(to) };
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

    fn world_on_host(&mut self, to: &str) -> Step<IpAddr> {
        match self.told.get(to) {
            None => Err(End::Ask(Inquiry { name: to.to_owned(), netns: None })),
            Some(Told::Addresses(found)) if !found.is_empty() => {
                self.of_world("host", to, to, (found, "the host's resolver says so"))
            }
            Some(Told::Failed(why)) => {
                Err(self.unknown("host", to, &format!("the host does not resolve it: {why}")))
            }
            Some(_) => Err(self.unknown("host", to, "the host knows no address of it")),
        }
    }

    fn name_inside(&mut self, sandbox: &Sandbox, to: &str) -> Step<IpAddr> {
        let (servers, search, options) = (&sandbox.dns_servers, &sandbox.dns_search, &sandbox.dns_options);
        let conf = self.engine.names.host().get().with(servers, search, options).for_container_names();
        // What is a container's name elsewhere is meant so: what the world has under it would only mislead.
        let asks = sandbox.resolver.is_some() && self.asks_others(sandbox) && self.called(to).is_none();
        for name in conf.tries(to) {
            let found = self.engine.names.look(&sandbox.id, &name);
            if let Some(ip) = best(&found) {
                let why = self.why(sandbox, ip, to).unwrap_or_default();
                self.pass("name", &sandbox.name, format!("'{to}' is {ip}{}{why}", more(&found, ip)));
                return Ok(ip);
            }
            if !asks {
                continue;
            }
            match self.told.get(&name) {
                None => return Err(End::Ask(Inquiry { netns: Some(open_namespace(sandbox)?), name })),
                Some(Told::Addresses(found)) => {
                    let by = format!("{} say so", whose(sandbox).trim_start_matches("the "));
                    return self.of_world(&sandbox.name, to, &name, (found, &by));
                }
                Some(Told::Unknown) => {}
                Some(Told::Failed(why)) => {
                    let why = format!("{} ({}) do not tell: {why}", whose(sandbox), listed(&conf.servers));
                    return Err(self.unknown(&sandbox.name, to, &why));
                }
            }
        }
        Err(self.not_found(sandbox, to, &conf.servers))
    }

    /// `name` is what was asked for: `to`, or that in a search domain. `told`: what was answered, and who says so.
    fn of_world(&mut self, place: &str, to: &str, name: &str, told: (&[IpAddr], &str)) -> Step<IpAddr> {
        let (found, by) = told;
        let Some(ip) = best(found) else { return Err(self.unknown(place, to, "it has no address")) };
        let full = if name == to { String::new() } else { format!(" (as {name})") };
        self.pass("name", place, format!("'{to}' is {ip}{}: {by}{full}", more(found, ip)));
        Ok(ip)
    }

    /// Whether its resolver asks others: its own servers, or the host's, which are not for internal networks.
    fn asks_others(&self, sandbox: &Sandbox) -> bool {
        let outside = |e: &Endpoint| self.engine.networks.get(&e.network).is_some_and(|n| !n.internal);
        !sandbox.dns_servers.is_empty() || sandbox.endpoints.iter().any(|e| e.is_wired() && outside(e))
    }

    /// The container that is called so somewhere.
    fn called(&self, to: &str) -> Option<&Sandbox> {
        let answers = |e: &Endpoint| e.names.iter().any(|n| n.eq_ignore_ascii_case(to));
        let named = |s: &&Sandbox| s.name == to || s.endpoints.iter().any(answers);
        self.engine.sandboxes.values().find(named)
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

    fn not_found(&mut self, sandbox: &Sandbox, to: &str, servers: &[NameServer]) -> End {
        let engine = self.engine;
        let name = |e: &Endpoint| engine.networks.get(&e.network).map(|n| n.name.clone());
        let own: Vec<String> = sandbox.endpoints.iter().filter_map(name).collect();
        let Some(other) = self.called(to) else {
            let why = self.why_unasked(sandbox);
            let why =
                why.unwrap_or_else(|| format!("{} ({}) do not know it", whose(sandbox), listed(servers)));
            return self.unknown(&sandbox.name, to, &why);
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

    fn why_unasked(&self, sandbox: &Sandbox) -> Option<String> {
        let why = if sandbox.resolver.is_some() && self.asks_others(sandbox) {
            return None;
        } else if !sandbox.endpoints.iter().any(Endpoint::is_wired) {
            "it is on no network, where nobody is asked"
        } else if sandbox.resolver.is_none() {
            "the servers that it asks are not davit's, and are not asked here"
        } else {
            "its networks are internal: servers outside are not asked"
        };
        Some(why.to_owned())
    }

    fn unknown(&mut self, place: &str, to: &str, why: &str) -> End {
        let known = self.engine.sandboxes.values().map(|s| s.name.as_str());
        let near = nearest(to, known);
        let close = !near.is_empty() && distance(to, near) <= to.len().max(3) / 2;
        let hint = if close {
            format!("did you mean '{near}'?")
        } else {
            "an address is explained without its name".to_owned()
        };
        self.stop("name", place, format!("no container here is called '{to}', and {why}"), hint)
    }
}

/// Who is asked what is not known here.
fn whose(sandbox: &Sandbox) -> &'static str {
    if sandbox.dns_servers.is_empty() { "the servers outside" } else { "its own servers" }
}

/// `10.0.0.53, 10.0.1.53`.
fn listed(servers: &[NameServer]) -> String {
    if servers.is_empty() {
        return "none is configured".to_owned();
    }
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
