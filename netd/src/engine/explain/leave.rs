//! Out of the source: its route, its interface, and where that leads.

use super::{Packet, Place, Scene, Step, Walk, of, scene, visit};
use crate::driver::inside::RESOLVER;
use crate::endpoint::{Endpoint, Sandbox};
use crate::netlink::view::{self, Fate, Route};
use crate::network::Driver;

impl Walk<'_> {
    pub(super) fn leave(&mut self, from: Place<'_>, packet: Packet) -> Step {
        match from {
            Place::Host => self.on_host(None, packet),
            Place::Sandbox(sandbox) => self.leave_sandbox(sandbox, packet),
        }
    }

    fn leave_sandbox(&mut self, sandbox: &Sandbox, mut packet: Packet) -> Step {
        let seen = visit(sandbox, |socket| scene(socket, packet.to))?;
        let Ok(route) = &seen.route else { return Err(self.no_route(sandbox, packet)) };
        packet.source = route.source;
        match route.fate {
            Fate::Local => {
                if packet.to == RESOLVER && packet.port == 53 && sandbox.resolver.is_some() {
                    self.pass("target", &sandbox.name, "netd's resolver answers there");
                    return Ok(());
                }
                self.pass("route", &sandbox.name, format!("{} is its own address", packet.to));
                self.target(Place::Sandbox(sandbox), packet)
            }
            Fate::Unicast => {
                let endpoint = self.by_interface(sandbox, &seen, route, packet)?;
                match endpoint {
                    Some(endpoint) => self.out_of(sandbox, endpoint, &seen, route, packet),
                    None => Ok(()),
                }
            }
            Fate::Group => {
                let what =
                    format!("{} is for many at once: only single destinations are explained", packet.to);
                Err(self.stop("route", &sandbox.name, what, ""))
            }
            Fate::Refused => {
                let what = format!("it has a route of its own that refuses {}", packet.to);
                Err(self.stop("route", &sandbox.name, what, ""))
            }
        }
    }

    fn no_route(&mut self, sandbox: &Sandbox, packet: Packet) -> super::End {
        let networks = &self.engine.networks;
        let wired = sandbox.endpoints.iter().filter(|e| e.is_wired());
        let mut on = wired.filter_map(|e| networks.get(&e.network));
        let (what, hint) = match (sandbox.way_out(packet.to.is_ipv4()), on.next()) {
            (None, _) if packet.to.is_ipv6() => {
                ("none of its networks leads out by IPv6", "create a network with --ipv6, and connect it")
            }
            (Some(_), _) => ("its default route is not there", super::REPAIR),
            (None, Some(network)) if network.internal => (
                "its networks are internal and have no way out",
                "connect it to a network that is not internal",
            ),
            (None, Some(_)) => ("none of its networks has a way out", "connect it to another network"),
            (None, None) => ("it is on no network", "'davit net connect NETWORK CONTAINER' connects it"),
        };
        self.stop("route", &sandbox.name, format!("no route to {}: {what}", packet.to), hint)
    }

    /// The endpoint whose interface the route leads through, once that is known to work.
    fn by_interface<'s>(
        &mut self,
        sandbox: &'s Sandbox,
        seen: &Scene,
        route: &Route,
        packet: Packet,
    ) -> Step<Option<&'s Endpoint>> {
        let Some(link) = seen.link(route.index) else {
            return Err(self.stop(
                "route",
                &sandbox.name,
                "the interface of its route is gone",
                super::REPAIR,
            ));
        };
        let way = match route.gateway {
            Some(gateway) => format!("{} by {} via {gateway}", packet.to, link.name),
            None => format!("{} is on the link of {}", packet.to, link.name),
        };
        self.pass("route", &sandbox.name, way);
        if !link.carrier {
            let state = if link.up { "has nothing at its other end" } else { "is down" };
            let what = format!("its interface {} {state}", link.name);
            return Err(self.stop("route", &sandbox.name, what, super::REPAIR));
        }
        // A container may have given it another name: it is known by the address that we gave it, too.
        let given = |e: &Endpoint| {
            let mut all = seen.addresses.iter().filter(|a| a.index == link.index);
            all.any(|a| e.addresses().any(|given| given == a.net))
        };
        let wired = || sandbox.endpoints.iter().filter(|e| e.is_wired());
        let endpoint = wired().find(|e| given(e)).or_else(|| wired().find(|e| e.interface == link.name));
        if endpoint.is_none() {
            let what = format!("{} is not of davit's making: what lies beyond is not known here", link.name);
            self.note("route", &sandbox.name, what);
        }
        Ok(endpoint)
    }

    fn out_of(
        &mut self,
        sandbox: &Sandbox,
        endpoint: &Endpoint,
        seen: &Scene,
        route: &Route,
        packet: Packet,
    ) -> Step {
        let network = self.network_of(endpoint)?;
        let next = route.gateway.unwrap_or(packet.to);
        if network.driver != Driver::Bridge {
            return self.on_wire(network, endpoint, seen.neighbour.as_ref(), next, packet);
        }
        if network.subnets.iter().any(|s| s.gateway == Some(next)) {
            self.host_end(network, sandbox, endpoint)?;
            if let Some(neighbour) = seen.neighbour.as_ref().filter(|n| n.is_silent()) {
                let what = format!("{next}, the host on {}, was {} last time", of(network), neighbour.word());
                self.note("neighbour", &sandbox.name, what);
            }
            let bridge = view::link(&self.engine.socket, &network.interface)?;
            if let Some((neighbour, has)) = seen.neighbour.as_ref().zip(bridge.and_then(|b| b.mac)) {
                self.is_sent_to(&sandbox.name, neighbour, has)?;
            }
            return self.on_host(Some(network), packet);
        }
        self.across(network, sandbox, endpoint, seen.neighbour.as_ref(), next, packet)
    }
}
