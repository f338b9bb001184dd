//! On the host: published ports, forwarding, the firewall's verdict, address translation, and the way out.

use std::net::IpAddr;

use super::{Packet, Place, REPAIR, Scene, Step, Walk, of, scene};
use crate::firewall::compare;
use crate::netlink::view::{Fate, Route};
use crate::network::Network;
use crate::publish::Relayed;
use crate::{firewall, sysctl};

use crate::engine::rules::segment;
use crate::firewall::{ForeignChain, Source};

impl Walk<'_> {
    /// A packet of the host itself, or one that came in from a network.
    pub(super) fn on_host(&mut self, from: Option<&Network>, mut packet: Packet) -> Step {
        if from.is_some() && packet.to.is_loopback() {
            let what = "containers do not reach the host's loopback";
            return Err(self.stop("rule", "host", what, "use the host's own address"));
        }
        let seen = scene(&self.engine.socket, packet.to).map_err(inside)?;
        let route = self.host_route(&seen, packet)?;
        if from.is_none() {
            packet.source = packet.source.or(route.source);
        }
        if route.fate == Fate::Local {
            if let Some((name, to)) = self.relayed(packet) {
                return self.relay(from, packet, &name, to);
            }
            if let Some((name, to)) = self.published(packet) {
                return self.redirected(from, packet, &name, to);
            }
            self.pass("route", "host", format!("{} is the host's own address", packet.to));
            return self.target(Place::Host, packet);
        }
        self.forward(from, packet, &seen, &route)
    }

    fn host_route(&mut self, seen: &Scene, packet: Packet) -> Step<Route> {
        match &seen.route {
            Ok(route) if matches!(route.fate, Fate::Local | Fate::Unicast) => Ok(route.clone()),
            Ok(_) => {
                let what = format!("the host does not route {}", packet.to);
                Err(self.stop("route", "host", what, ""))
            }
            Err(e) => {
                let what = format!("no route to {}: {}", packet.to, plain(e));
                Err(self.stop("route", "host", what, "'ip route' shows the host's routes"))
            }
        }
    }

    /// The container that publishes a port at this address of the host, and where it leads.
    fn published(&self, packet: Packet) -> Option<(String, std::net::SocketAddr)> {
        let meets = |host: std::net::SocketAddr| {
            host.port() == packet.port
                && host.is_ipv4() == packet.to.is_ipv4()
                && (host.ip() == packet.to || host.ip().is_unspecified())
        };
        let mut found: Vec<_> = self
            .engine
            .sandboxes
            .values()
            .flat_map(|s| self.engine.forwards(s).into_iter().map(move |f| (s.name.clone(), f)))
            .filter_map(|(name, f)| Some((name, f.transport, f.host?, f.to)))
            .filter(|(_, t, host, _)| packet.port != 0 && *t == packet.transport && meets(*host))
            .collect();
        // One of a single address comes before one of all.
        found.sort_by_key(|(_, _, host, _)| host.ip().is_unspecified());
        found.into_iter().next().map(|(name, _, _, to)| (name, to))
    }

    fn redirected(
        &mut self,
        from: Option<&Network>,
        mut packet: Packet,
        name: &str,
        to: std::net::SocketAddr,
    ) -> Step {
        self.table("nat")?;
        let was = packet.target();
        let loopback = packet.to.is_loopback();
        packet = Packet { to: to.ip(), port: to.port(), translated: true, ..packet };
        self.pass("nat", "host", format!("{was} is published: {name} at {}", packet.target()));
        let seen = scene(&self.engine.socket, packet.to).map_err(inside)?;
        let route = self.host_route(&seen, packet)?;
        if from.is_none() {
            packet.source = if loopback { None } else { packet.source };
            packet.source = packet.source.or(route.source);
        }
        self.forward(from, packet, &seen, &route)
    }

    /// The container that netd answers for at this address of the host, since the kernel does not redirect it.
    fn relayed(&self, packet: Packet) -> Option<(String, std::net::SocketAddr)> {
        let meets = |r: &Relayed| {
            let (host, to) = (IpAddr::V6(*r.host.ip()), packet.to);
            let kept = to == IpAddr::V6(std::net::Ipv6Addr::LOCALHOST) || r.to.is_ipv4();
            let address = to.is_ipv6() && (host == to || host.is_unspecified());
            r.transport == packet.transport && r.host.port() == packet.port && address && kept
        };
        let sandboxes = self.engine.sandboxes.values();
        let mut all = sandboxes.flat_map(|s| self.engine.relayed(s).into_iter().map(move |r| (s, r)));
        all.find(|(_, r)| meets(r)).map(|(s, r)| (s.name.clone(), r.to))
    }

    /// netd takes the connection, and makes one of its own to the container.
    fn relay(
        &mut self,
        from: Option<&Network>,
        packet: Packet,
        name: &str,
        to: std::net::SocketAddr,
    ) -> Step {
        let was = packet.target();
        if let Some(from) = from.filter(|n| n.internal) {
            let what = format!("{was} is published, but {} is internal: netd does not answer", of(from));
            return Err(self.stop("nat", "host", what, "connect the container to another network"));
        }
        let packet = Packet { to: to.ip(), port: to.port(), source: None, ..packet };
        self.pass("nat", "host", format!("{was} is published: netd relays to {name} at {}", packet.target()));
        let seen = scene(&self.engine.socket, packet.to).map_err(inside)?;
        let route = self.host_route(&seen, packet)?;
        self.forward(None, Packet { source: route.source, ..packet }, &seen, &route)
    }

    /// On to another interface.
    fn forward(&mut self, from: Option<&Network>, packet: Packet, seen: &Scene, route: &Route) -> Step {
        let Some(link) = seen.link(route.index) else {
            return Err(self.stop("route", "host", "the interface of its route is gone", ""));
        };
        let engine = self.engine;
        let into = engine.networks.values().find(|n| !n.interface.is_empty() && n.interface == link.name);
        let way = match (into, route.gateway) {
            (Some(network), _) => {
                format!("{} is on bridge {} of network {}", packet.to, link.name, network.name)
            }
            (None, Some(gateway)) => format!("{} by {} via {gateway}", packet.to, link.name),
            (None, None) => format!("{} is on the link of {}", packet.to, link.name),
        };
        self.pass("route", "host", way);
        if !link.up {
            return Err(self.stop("route", "host", format!("{} is down", link.name), ""));
        }
        let mut packet = packet;
        if let Some(from) = from {
            self.forwarding(packet)?;
            self.verdict(from, into, packet)?;
            packet = self.translated_source(from, into, packet, route);
        }
        match into {
            Some(network) => {
                let back = from.is_some_and(|from| from.id == network.id) && packet.translated;
                self.into(network, packet, seen.neighbour.as_ref(), back)
            }
            None => self.beyond(packet, seen, route, &link.name),
        }
    }

    fn forwarding(&mut self, packet: Packet) -> Step {
        let setting =
            if packet.to.is_ipv4() { "net/ipv4/ip_forward" } else { "net/ipv6/conf/all/forwarding" };
        if sysctl::get(setting).is_ok_and(|value| value == "0") {
            let what = format!("the host does not forward: {setting} is 0");
            return Err(self.stop("route", "host", what, REPAIR));
        }
        Ok(())
    }

    /// The chain `forward` of our table, rule by rule.
    fn verdict(&mut self, from: &Network, into: Option<&Network>, packet: Packet) -> Step {
        self.table("rule")?;
        if into.is_some_and(|n| n.id == from.id) {
            self.policy(from, packet)?;
            if from.bridge.icc {
                self.pass("rule", "host", "back into the same network");
                return Ok(());
            }
        }
        if from.internal {
            let what = format!("{} is internal: no way out", of(from));
            return Err(self.stop("rule", "host", what, "connect the container to another network"));
        }
        match into {
            Some(network) if network.internal => {
                let what = format!("{} is internal: no way in", of(network));
                Err(self.stop("rule", "host", what, format!("connect the container to {}", of(network))))
            }
            Some(_) if packet.translated => {
                self.pass("rule", "host", "a published port lets it into the other network");
                Ok(())
            }
            Some(_) if self.is_open(packet) => {
                self.pass("rule", "host", "the port is published on a routed network");
                Ok(())
            }
            Some(network) if network.id == from.id => {
                let what = "containers of this network do not reach one another (enable_icc is false)";
                Err(self.stop("rule", "host", what, "connect both to another network"))
            }
            Some(network) => {
                let what = format!("networks are apart: {} and {}", from.name, network.name);
                let hint = format!(
                    "connect both to one network ('davit net connect {} CONTAINER'), or publish the port",
                    network.name
                );
                Err(self.stop("rule", "host", what, hint))
            }
            None => {
                self.pass("rule", "host", "out of the network");
                self.others(2);
                Ok(())
            }
        }
    }

    /// Whether a routed network's container publishes this very port.
    fn is_open(&self, packet: Packet) -> bool {
        let open = |f: &firewall::Forward| {
            f.host.is_none()
                && f.transport == packet.transport
                && (f.to.ip(), f.to.port()) == (packet.to, packet.port)
        };
        self.engine.sandboxes.values().flat_map(|s| self.engine.forwards(s)).any(|f| open(&f))
    }

    /// What is not as it should be of our own table.
    fn table(&mut self, stage: &'static str) -> Step {
        let differences = self.engine.firewall.differences(&self.engine.rules());
        let differences = differences.map_err(super::EngineError::Firewall)?;
        if differences
            .iter()
            .any(|d| d.fault == compare::Fault::Missing && d.object.starts_with("firewall table"))
        {
            return Err(self.stop(stage, "host", "the firewall table of davit is not there", REPAIR));
        }
        let stops = |d: &&compare::Difference| d.object.starts_with("rules of ours in");
        if let Some(other) = differences.iter().find(stops) {
            let what = format!("{} of another program drops packets of networks", &other.object[17..]);
            return Err(self.stop(stage, "host", what, REPAIR));
        }
        if let Some(first) = differences.first() {
            let what = format!("the firewall table is not as it should be: {}", first.object);
            self.note(stage, "host", what);
        }
        Ok(())
    }

    /// Other programs' chains at a hook (2: forward, 1: input): that they are there, not what they say.
    pub(super) fn others(&mut self, hook: u32) {
        self.others_that(hook, |chain| chain.routed);
    }

    /// Those that see what a bridge passes on.
    pub(super) fn others_of_bridges(&mut self) {
        self.others_that(2, |chain| chain.bridged);
    }

    fn others_that(&mut self, hook: u32, wanted: impl Fn(&ForeignChain) -> bool) {
        let Ok(chains) = firewall::foreign_chains(hook, &self.engine.instance.mark()) else { return };
        if let Some(first) = chains.iter().find(|c| wanted(c)) {
            let by = if first.drops { ", which drops what no rule of it lets through" } else { "" };
            let what = format!("rules of others are not looked at: {}{by}", first.name);
            self.note("rule", "host", what);
        }
    }

    fn translated_source(
        &mut self,
        from: &Network,
        into: Option<&Network>,
        packet: Packet,
        route: &Route,
    ) -> Packet {
        let hairpin = packet.translated && into.is_some_and(|n| n.id == from.id);
        let out = into.is_none_or(|n| n.id != from.id);
        let segment = segment(from);
        let subnet = segment.subnets.iter().find(|s| packet.source.is_some_and(|ip| s.contains(&ip)));
        let becomes = match subnet.map(|s| segment.source(s)).filter(|_| out) {
            Some(Source::WayOut) => route.source,
            Some(Source::Fixed(ip)) => Some(ip),
            _ if hairpin => route.source,
            _ => {
                if into.is_none() {
                    let what = "it keeps its source address: routers beyond must know the way back";
                    self.note("nat", "host", what);
                }
                return packet;
            }
        };
        let shown = becomes.map_or_else(|| "the host's address".to_owned(), |ip| ip.to_string());
        self.pass("nat", "host", format!("its source becomes {shown}"));
        Packet { source: becomes, ..packet }
    }

    fn beyond(&mut self, packet: Packet, seen: &Scene, route: &Route, link: &str) -> Step {
        if route.gateway.is_none()
            && let Some((network, _, _)) = self.on_parent(link, packet.to)
        {
            return Err(self.not_to_the_host(network));
        }
        let next = route.gateway.unwrap_or(packet.to);
        if let Some(neighbour) = seen.neighbour.as_ref().filter(|n| n.is_silent()) {
            let what =
                format!("{next} on {link} did not answer when it was last asked for ({})", neighbour.word());
            return Err(self.stop("neighbour", "host", what, "look at the network beyond the host"));
        }
        let what = format!("it leaves the host by {link} to {next}: what lies beyond is not looked at");
        self.note("target", "outside", what);
        Ok(())
    }
}

fn inside(source: crate::driver::inside::InsideError) -> super::EngineError {
    super::EngineError::Inside { container: "host".to_owned(), source }
}

/// Without the number.
fn plain(e: &std::io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
