//! What the host did to a network after it was made: a VPN was started, an address added, a parent interface taken away.
//!
//! Nothing can be done about it without taking addresses from containers that run, so it is told: in the network's
//! problems, and once in the log. [`Engine::check_still_free`] refuses a bridge that is not there yet.

use super::Engine;
use crate::netlink::route;
use crate::network::pools::{self, Near};
use crate::network::{Driver, Network};

impl Engine {
    /// Compares the subnets of bridges with the host's addresses and routes.
    pub(super) fn note_problems(&mut self) {
        let near = Near::of(self.networks.values().flat_map(|n| &n.subnets).map(|s| s.subnet));
        let taken = match self.taken_by_host(&near) {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(%error, "cannot compare the networks' subnets with the host's routes");
                return;
            }
        };
        // The default network has no bridge while nobody uses it, and takes another subnet then.
        let stays =
            |n: &&Network| n.driver == Driver::Bridge && (!n.predefined || self.bases.contains_key(&n.id));
        let mut problems = std::collections::BTreeMap::new();
        for network in self.networks.values().filter(stays) {
            let mut found: Vec<String> = Vec::new();
            for subnet in &network.subnets {
                for t in taken.iter().filter(|t| pools::overlap(&subnet.subnet, &t.net)) {
                    let problem = format!("subnet {} overlaps {}", subnet.subnet, t.by);
                    // An address brings a route of the same network with it.
                    if !found.contains(&problem) {
                        found.push(problem);
                    }
                }
            }
            let known = self.problems.get(&network.id).map_or(&[][..], Vec::as_slice);
            for problem in found.iter().filter(|p| !known.contains(p)) {
                tracing::warn!(network = %network.name, problem, "containers and the host may not reach what they mean");
            }
            if !found.is_empty() {
                problems.insert(network.id.clone(), found);
            }
        }
        for (id, _) in self.problems.iter().filter(|(id, _)| !problems.contains_key(*id)) {
            tracing::info!(network.id = %id, "the network's subnet is its own again");
        }
        self.problems = problems;
    }

    /// What keeps containers from a network, or a network's containers from their wire: its parent is gone or down. Looked
    /// up each time, as for every attach.
    pub(super) fn parent_problem(&self, network: &Network) -> Option<String> {
        let parent = &network.sublink.as_ref()?.parent;
        match route::link(&self.socket, parent) {
            Ok(None) => Some(format!("the host has no interface {parent}, which is the parent")),
            Ok(Some(link)) if !link.is_up => Some(format!("the parent interface {parent} is down")),
            Ok(Some(_)) => None,
            Err(error) => {
                tracing::warn!(network = %network.name, %error, "cannot look at the network's parent");
                None
            }
        }
    }
}
