//! At start: what was acknowledged works again, what was not is gone.
//!
//! Sandboxes whose attach was acknowledged and whose holder lives are kept: addresses and ports taken again, DNS
//! sockets opened again, rules written as one. Everything else that bears our mark is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};

use super::attach::open_namespace;
use super::detach::leave_resolver;
use super::stages::Stages;
use super::{Engine, EngineError};
use crate::driver::bridge::{self, PREFIXES};
use crate::driver::inside::Visit;
use crate::endpoint::{Endpoint, Phase, Sandbox, Way};
use crate::netlink::route;

impl Engine {
    /// Brings records and kernel in line.
    pub(super) fn reconcile(&mut self) -> Result<(), EngineError> {
        for network in self.store.all()? {
            self.know(network);
        }
        let (mut kept, dropped): (Vec<_>, Vec<_>) =
            self.journal.all()?.into_iter().partition(|s| self.lives(s));
        let mut half_done = BTreeMap::new();
        for sandbox in &mut kept {
            let pending: Vec<_> = sandbox.endpoints.extract_if(.., |e| e.pending).collect();
            if !pending.is_empty() {
                half_done.insert(sandbox.id.clone(), pending);
            }
        }
        for sandbox in &kept {
            self.restore_addresses(sandbox);
            self.sequence = self.sequence.max(sandbox.sequence);
            // Records of an earlier version do not say of their networks which macs they saw.
            for endpoint in &sandbox.endpoints {
                self.note_mac(endpoint)?;
            }
            self.sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        }
        self.restore_forwarding();
        self.predefine()?;
        self.remove_strangers()?;
        self.raise_bases();
        for sandbox in dropped {
            self.remove_inside(&sandbox, &sandbox.endpoints);
            if let Ok(netns) = open_namespace(&sandbox)
                && let Err(error) = leave_resolver(&sandbox, netns.as_fd())
            {
                tracing::warn!(container.id = %sandbox.id, error = %chain(&error), "rules are left inside");
            }
            self.leave_behind(&sandbox, &sandbox.endpoints)?;
            tracing::info!(container.id = %sandbox.id, "removed what an attach without a living holder had left");
            self.journal.remove(&sandbox.id)?;
        }
        // Rules may be left that name what is gone: with nobody attached they go too.
        self.table = true;
        self.note_idle();
        if self.idle.is_some() {
            self.clear_idle();
        }
        // Before a published port is listened at again.
        self.refuse_internal();
        for sandbox in kept {
            let pending = half_done.get(&sandbox.id);
            self.remove_inside(&sandbox, pending.map_or(&[], Vec::as_slice));
            self.leave_behind(&sandbox, pending.map_or(&[], Vec::as_slice))?;
            if let Err(error) = self.revive(sandbox.clone(), pending.is_none()) {
                tracing::warn!(container.id = %sandbox.id, error = %chain(&error), "a sandbox could not be restored");
            }
        }
        self.walled.clear();
        let wired = self.sandboxes.values().flat_map(|s| &s.endpoints).filter(|e| e.is_bridged());
        self.walled.extend(wired.map(|e| e.network.clone()));
        self.restore_rules();
        self.take_over_all();
        Ok(())
    }

    /// Writes the rules of what is kept. Its containers run either way, and a netd that does not start helps none of them:
    /// what is refused is tried again with the next change.
    fn restore_rules(&mut self) {
        let refused = |what: &str, error: &EngineError| {
            tracing::error!(error = %chain(error), "{what} could not be written; the next change tries again");
        };
        if let Err(error) = self.restore_policies() {
            refused("policies of networks", &error);
        }
        if self.walled.is_empty() {
            return;
        }
        if let Err(error) = self.apply_rules() {
            self.table = false;
            refused("firewall rules", &error);
        }
    }

    fn lives(&self, sandbox: &Sandbox) -> bool {
        sandbox.phase == Phase::Ready
            && sandbox.holder.is_alive()
            && sandbox.endpoints.iter().all(|e| e.pending || self.networks.contains_key(&e.network))
    }

    /// Makes the bridges and parents of user networks that are not there: after a reboot, or when a kill came between a
    /// network's record and its bridge.
    fn raise_bases(&mut self) {
        let user = self.networks.values().filter(|n| !n.predefined);
        for id in user.map(|n| n.id.clone()).collect::<Vec<_>>() {
            if let Err(error) = self.ensure_base(&id) {
                tracing::warn!(network.id = %id, error = %chain(&error), "a network cannot be used for now");
            }
        }
    }

    fn restore_addresses(&mut self, sandbox: &Sandbox) {
        for endpoint in &sandbox.endpoints {
            for pool in self.pools.get_mut(&endpoint.network).into_iter().flatten() {
                endpoint.addresses().for_each(|a| pool.restore(a.addr()));
            }
        }
    }

    /// Removes interfaces with our mark that no record names.
    fn remove_strangers(&self) -> Result<(), EngineError> {
        let mut known: BTreeSet<&str> = self.networks.values().map(|n| n.interface.as_str()).collect();
        known.extend(self.networks.values().filter_map(|n| n.sublink.as_ref()).map(|s| s.parent.as_str()));
        known.extend(self.sandboxes.values().flat_map(|s| &s.endpoints).map(|e| e.host_interface.as_str()));
        for link in route::links(&self.socket)? {
            // A parent that we made has the name that a person chose.
            let named = link.kind == "vlan" || PREFIXES.iter().any(|p| link.name.starts_with(p));
            let ours = link.group == self.instance.group && named;
            if ours && !known.contains(link.name.as_str()) {
                tracing::info!(interface = %link.name, "removed an interface that no record names");
                bridge::remove_link(&self.socket, &link.name)?;
            }
        }
        Ok(())
    }

    /// Removes what an attach or connect that was never acknowledged left inside a sandbox that lives. What was made on the
    /// host is gone already.
    fn remove_inside(&self, sandbox: &Sandbox, endpoints: &[Endpoint]) {
        let mut inside = endpoints.iter().filter(|e| e.is_wired() && !e.is_bridged()).peekable();
        if inside.peek().is_none() {
            return;
        }
        let Ok(netns) = open_namespace(sandbox) else { return };
        for endpoint in inside {
            if let Err(error) = self.unplug(sandbox, endpoint, Some(netns.as_fd())) {
                tracing::warn!(container.id = %sandbox.id, error = %chain(&error), "an interface is left inside");
            }
        }
    }

    /// Makes a kept sandbox work again: reservations, missing interfaces, resolver, names. One that is not `whole` was
    /// being changed: what is inside is set up again.
    fn revive(&mut self, mut sandbox: Sandbox, whole: bool) -> Result<(), EngineError> {
        for mapping in sandbox.ports.iter().filter(|m| m.host.port() != 0) {
            if sandbox.holder.process().is_none() {
                self.ports.restore_shared(&sandbox.id, &sandbox.name, mapping);
            } else if let Err(error) = self.ports.restore(&sandbox.id, &sandbox.name, mapping) {
                tracing::warn!(container.id = %sandbox.id, %error, "a published port is not reserved any more");
            }
        }
        let relayed = self.relayed(&sandbox);
        self.ports.answer(&sandbox.id, &relayed);
        if sandbox.endpoints.iter().any(Endpoint::is_wired) {
            let netns = open_namespace(&sandbox)?;
            let resolver = (!sandbox.without_resolver).then_some(sandbox.resolver);
            let yields = sandbox.holder.process().is_none();
            let mut visit = Visit { yields, resolver, ..Visit::default() };
            for at in 0..sandbox.endpoints.len() {
                let endpoint = sandbox.endpoints[at].clone();
                if !endpoint.is_wired() {
                    continue;
                }
                match self.revive_endpoint(&mut sandbox, at, netns.as_fd()) {
                    Ok(there) if there && (whole || endpoint.foreign.is_some()) => {}
                    Ok(_) => visit.interfaces.push(self.interface(&sandbox.endpoints[at])),
                    // Its other networks and its resolver work.
                    Err(error) => {
                        let (interface, error) = (&endpoint.interface, chain(&error));
                        tracing::warn!(container.id = %sandbox.id, interface, error, "an interface is not restored");
                    }
                }
            }
            let again = |way: &Way| visit.interfaces.iter().any(|i| i.name == way.interface);
            visit.routes_in = sandbox.ways().into_iter().filter(again).collect();
            self.visit(&mut sandbox, netns.as_fd(), &visit)?;
        }
        self.keep(&sandbox)
    }
}

impl Engine {
    /// Plugs an endpoint in that is not; whether it was.
    fn revive_endpoint(
        &mut self,
        sandbox: &mut Sandbox,
        at: usize,
        netns: BorrowedFd<'_>,
    ) -> Result<bool, EngineError> {
        let endpoint = sandbox.endpoints[at].clone();
        self.ensure_base(&endpoint.network)?;
        let there = self.is_plugged(sandbox, &endpoint, netns)?;
        if !there {
            self.plug(sandbox, at, netns, &mut Stages::start())?;
        }
        Ok(there)
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(s) = source {
        text.push_str(": ");
        text.push_str(&s.to_string());
        source = s.source();
    }
    text
}
