//! macvlan and ipvlan: neighbours on a wire that an interface of the host is on too.

use std::net::IpAddr;

use super::{End, Packet, REPAIR, Step, Walk, of};
use crate::endpoint::{Endpoint, Sandbox};
use crate::netlink::view::{self, Neighbour};
use crate::network::sublink::{Flag, Mode};
use crate::network::{Driver, Network};

impl<'a> Walk<'a> {
    /// From a sandbox to the next hop on the wire.
    pub(super) fn on_wire(
        &mut self,
        network: &'a Network,
        endpoint: &Endpoint,
        neighbour: Option<&Neighbour>,
        next: IpAddr,
        packet: Packet,
    ) -> Step {
        let Some(sublink) = &network.sublink else {
            return self.beyond_plugins(network, endpoint, next, packet);
        };
        let parent = sublink.parent.as_str();
        let links = view::links(&self.engine.socket)?;
        let link = links.iter().find(|l| l.name == parent);
        if !link.is_some_and(|l| l.carrier) {
            let what = format!("its parent {parent} is not there, or down");
            return Err(self.stop(
                "bridge",
                of(network),
                what,
                format!("'ip link' shows it; {REPAIR} if it can"),
            ));
        }
        let addresses = view::addresses(&self.engine.socket)?;
        if addresses.iter().any(|a| Some(a.index) == link.map(|l| l.index) && a.net.addr() == next) {
            return Err(self.not_to_the_host(network));
        }
        match self.on_parent(parent, next) {
            Some((_, sandbox, theirs)) if theirs.id != endpoint.id => {
                self.between(network, parent)?;
                self.arrive(sandbox, theirs, packet)
            }
            _ => self.onto_wire(network, parent, neighbour, next),
        }
    }

    /// Over a network that CNI plugins made: only its two ends are known.
    fn beyond_plugins(
        &mut self,
        network: &'a Network,
        endpoint: &Endpoint,
        next: IpAddr,
        packet: Packet,
    ) -> Step {
        self.note("bridge", of(network), "plugins made it: what it lets through is not known here");
        match self.holder(network, next) {
            Some((sandbox, theirs)) if theirs.id != endpoint.id => self.arrive(sandbox, theirs, packet),
            _ => Ok(()),
        }
    }

    /// Who has an address on the networks of this parent.
    pub(super) fn on_parent(
        &self,
        parent: &str,
        ip: IpAddr,
    ) -> Option<(&'a Network, &'a Sandbox, &'a Endpoint)> {
        let engine = self.engine;
        let on = |n: &&Network| n.sublink.as_ref().is_some_and(|s| s.parent == parent);
        engine.networks.values().filter(on).find_map(|network| {
            let has = |e: &&Endpoint| e.network == network.id && e.addresses().any(|a| a.addr() == ip);
            engine.sandboxes.values().find_map(|s| Some((network, s, s.endpoints.iter().find(has)?)))
        })
    }

    /// The kernel does not give a parent what its own children send to it.
    pub(super) fn not_to_the_host(&mut self, network: &Network) -> End {
        let driver = network.driver.name();
        let what = format!("the host and the containers on its {driver} do not reach one another");
        let hint = "connect the container to a bridge network too, and use its address there";
        self.stop("bridge", of(network), what, hint)
    }

    /// Whether children of one parent hear one another.
    fn between(&mut self, network: &Network, parent: &str) -> Step {
        let Some(sublink) = &network.sublink else { return Ok(()) };
        let private = sublink.mode == Mode::Private || sublink.flag == Flag::Private;
        if private {
            let what = format!("the mode {} keeps containers on {parent} apart", network_mode(network));
            return Err(self.stop("bridge", of(network), what, "use the mode bridge"));
        }
        if sublink.mode == Mode::Vepa || sublink.flag == Flag::Vepa {
            let what = format!("{parent} sends it out: it comes back only from a switch that reflects it");
            self.note("bridge", of(network), what);
        } else {
            self.pass("bridge", of(network), format!("{parent} carries it"));
        }
        Ok(())
    }

    fn onto_wire(
        &mut self,
        network: &Network,
        parent: &str,
        neighbour: Option<&Neighbour>,
        next: IpAddr,
    ) -> Step {
        if let Some(silent) = neighbour.filter(|n| n.is_silent()) {
            let what = format!("{next} did not answer when it was last asked for ({})", silent.word());
            return Err(self.stop("neighbour", of(network), what, "look at the network beyond the host"));
        }
        let what = format!("it leaves by {parent} to {next}: what lies beyond is not looked at");
        self.note("target", "outside", what);
        Ok(())
    }
}

fn network_mode(network: &Network) -> &'static str {
    match &network.sublink {
        Some(sublink) if network.driver == Driver::Ipvlan && sublink.flag == Flag::Private => "private",
        _ => network.mode(),
    }
}
