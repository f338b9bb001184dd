//! Over a network's bridge: the two ports, and what keeps them apart.

use std::net::IpAddr;

use super::{Packet, REPAIR, Step, Walk, of, visit};
use crate::endpoint::{Endpoint, Sandbox};
use crate::netlink::mac::Mac;
use crate::netlink::view::{self, Link, Neighbour};
use crate::network::Network;
use crate::sysctl;

/// `BR_STATE_FORWARDING`.
const FORWARDING: u8 = 3;

impl<'a> Walk<'a> {
    /// From one sandbox to the neighbour `next` on the same network.
    pub(super) fn across(
        &mut self,
        network: &Network,
        sandbox: &Sandbox,
        endpoint: &Endpoint,
        neighbour: Option<&Neighbour>,
        next: IpAddr,
        packet: Packet,
    ) -> Step {
        let from = self.host_end(network, sandbox, endpoint)?;
        let Some((other, theirs)) = self.holder(network, next) else {
            return self.stranger(network, &sandbox.name, neighbour, next);
        };
        let to = self.host_end(network, other, theirs)?;
        self.is_known_by(&sandbox.name, other, neighbour)?;
        let isolated = |link: &Link| link.port.is_some_and(|(_, mode)| mode.isolated);
        if isolated(&from) && isolated(&to) {
            let what = "containers of this network do not reach one another (enable_icc is false)";
            let hint = "connect both to another network, or publish the port and use the host's address";
            return Err(self.stop("bridge", of(network), what, hint));
        }
        let what = format!("bridge {} carries it from {} to {}", network.interface, from.name, to.name);
        self.bridged(network, theirs, &to, what)?;
        self.others_of_bridges();
        self.policy(network, packet)?;
        if next != packet.to {
            self.note("route", &sandbox.name, format!("{} is its router to {}", other.name, packet.to));
            return Ok(());
        }
        self.arrive(other, theirs, packet)
    }

    /// Whether `place` sends what is for a sandbox's address to the Ethernet address of the interface that has it.
    fn is_known_by(&mut self, place: &str, sandbox: &Sandbox, neighbour: Option<&Neighbour>) -> Step {
        let Some(neighbour) = neighbour else { return Ok(()) };
        let has = visit(sandbox, |socket| {
            let at = view::addresses(socket)?.into_iter().find(|a| a.net.addr() == neighbour.ip);
            let links = view::links(socket)?;
            Ok(at.and_then(|a| links.into_iter().find(|l| l.index == a.index)?.mac))
        })?;
        has.map_or(Ok(()), |has| self.is_sent_to(place, neighbour, has))
    }

    /// Stops where what is for a neighbour goes to another Ethernet address than the one that it has.
    pub(super) fn is_sent_to(&mut self, place: &str, neighbour: &Neighbour, has: Mac) -> Step {
        let Some(is) = neighbour.mac.filter(|is| *is != has && !neighbour.is_silent()) else { return Ok(()) };
        let ip = neighbour.ip;
        let what = format!("{ip} has {has}, but what is for it is sent to {is} ({})", neighbour.word());
        let hint = if !neighbour.is_set() {
            "it ends by itself within a minute, unless somebody on the network claims the address"
        } else if place == "host" {
            REPAIR
        } else {
            "somebody set it in the container: 'ip neigh del' there"
        };
        Err(self.stop("neighbour", place, what, hint))
    }

    /// Over the bridge to an endpoint's port, unless somebody has its frames sent elsewhere.
    fn bridged(&mut self, network: &Network, endpoint: &Endpoint, port: &Link, what: String) -> Step {
        if let Some(entry) = self.engine.diverted(endpoint, port).first() {
            let links = view::links(&self.engine.socket)?;
            let to = links.iter().find(|l| l.index == entry.port).map_or("", |l| l.name.as_str());
            let what = format!("bridge {} sends what is for {} to {to}", network.interface, entry.mac);
            return Err(self.stop("bridge", of(network), what, REPAIR));
        }
        self.pass("bridge", of(network), what);
        let vlans = view::link(&self.engine.socket, &network.interface)?.is_some_and(|l| l.vlans);
        if vlans {
            let what =
                format!("ports of {} have VLANs, which may keep it back ('bridge vlan')", network.interface);
            self.note("bridge", of(network), what);
        }
        Ok(())
    }

    /// What the network's policy says of a packet between two of its containers.
    pub(super) fn policy(&mut self, network: &Network, packet: Packet) -> Step {
        let Some(policy) = &network.policy else { return Ok(()) };
        let source = packet.source.and_then(|ip| self.holder(network, ip));
        let (Some((from, _)), Some((to, _))) = (source, self.holder(network, packet.to)) else {
            return Ok(());
        };
        let icmp = if packet.to.is_ipv4() { 1 } else { 58 };
        let protocol = if packet.port == 0 { icmp } else { packet.transport.number() };
        let (allowed, rule) = policy.decide(&from.labels, &to.labels, protocol, packet.port);
        let what = match rule {
            Some(n) => format!("rule {}: {}", n + 1, policy.rules[n]),
            None => format!("no rule matches: {} by default", if allowed { "allow" } else { "deny" }),
        };
        if allowed {
            self.pass("policy", of(network), what);
            return Ok(());
        }
        let hint = format!("'davit net policy {}' shows and changes the policy", network.name);
        Err(self.stop("policy", of(network), what, hint))
    }

    /// From the host to a container on one of its bridges; `back` when it came from there.
    pub(super) fn into(
        &mut self,
        network: &Network,
        packet: Packet,
        neighbour: Option<&Neighbour>,
        back: bool,
    ) -> Step {
        let Some((sandbox, endpoint)) = self.holder(network, packet.to) else {
            return self.stranger(network, "host", neighbour, packet.to);
        };
        let port = self.host_end(network, sandbox, endpoint)?;
        if back && port.port.is_some_and(|(_, mode)| mode.isolated) && bridged_packets_are_filtered(packet.to)
        {
            // It never leaves the bridge: its destination changes while it is bridged.
            let what =
                "the published port is one of the same network, whose containers do not reach one another";
            return Err(self.stop("bridge", of(network), what, "connect both to another network"));
        }
        self.is_known_by("host", sandbox, neighbour)?;
        let what = format!("bridge {} carries it to {}", network.interface, port.name);
        self.bridged(network, endpoint, &port, what)?;
        self.arrive(sandbox, endpoint, packet)
    }

    /// The host's end of an endpoint, once it and its bridge are known to work.
    pub(super) fn host_end(
        &mut self,
        network: &Network,
        sandbox: &Sandbox,
        endpoint: &Endpoint,
    ) -> Step<Link> {
        let links = view::links(&self.engine.socket)?;
        let Some(bridge) = links.iter().find(|l| l.name == network.interface) else {
            let what = format!("its bridge {} is not there", network.interface);
            return Err(self.stop("bridge", of(network), what, REPAIR));
        };
        if !bridge.up {
            let what = format!("its bridge {} is down", network.interface);
            return Err(self.stop("bridge", of(network), what, REPAIR));
        }
        let name = &endpoint.host_interface;
        let wrong = match links.iter().find(|l| l.name == *name) {
            None => "is not there",
            Some(end) if end.master != Some(bridge.index) => "is not on the bridge",
            Some(end) if !end.carrier => "is down",
            Some(end) if end.port.is_none_or(|(state, _)| state != FORWARDING) => "does not forward",
            Some(end) => return Ok(end.clone()),
        };
        let what = format!("{name}, the end of {} on the host, {wrong}", sandbox.name);
        Err(self.stop("bridge", of(network), what, REPAIR))
    }

    pub(super) fn holder(&self, network: &Network, ip: IpAddr) -> Option<(&'a Sandbox, &'a Endpoint)> {
        let engine = self.engine;
        let has = |e: &&Endpoint| e.network == network.id && e.addresses().any(|a| a.addr() == ip);
        engine.sandboxes.values().find_map(|s| Some((s, s.endpoints.iter().find(has)?)))
    }

    /// Nobody of ours has the address: somebody else may.
    fn stranger(
        &mut self,
        network: &Network,
        place: &str,
        neighbour: Option<&Neighbour>,
        ip: IpAddr,
    ) -> Step {
        if let Some(known) = neighbour.filter(|n| !n.is_silent() && n.mac.is_some()) {
            let what = format!("{ip} is {}: no container has it, but somebody answers there", known.word());
            self.note("neighbour", place, what);
            return Ok(());
        }
        let what = format!("no container on it has the address {ip}");
        let hint = format!("'davit net inspect {}' lists who has which", network.name);
        Err(self.stop("neighbour", of(network), what, hint))
    }
}

/// Whether br_netfilter has bridged packets walk the rules.
fn bridged_packets_are_filtered(to: IpAddr) -> bool {
    let version = if to.is_ipv4() { "iptables" } else { "ip6tables" };
    sysctl::get(&format!("net/bridge/bridge-nf-call-{version}")).is_ok_and(|value| value == "1")
}
