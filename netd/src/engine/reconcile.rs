//! At start: what was acknowledged works again, what was not is gone.
//!
//! Sandboxes whose attach was acknowledged and whose holder lives are kept: addresses and ports taken again, DNS
//! sockets opened again, rules written as one. Everything else that bears our mark is removed.

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use super::attach::{interface_of, open_namespace, routes_of};
use super::stages::Stages;
use super::{Engine, EngineError};
use crate::driver::bridge::{self, PREFIXES};
use crate::driver::inside::Visit;
use crate::endpoint::{Phase, Sandbox};
use crate::netlink::route;
use crate::network::Driver;

impl Engine {
    /// Brings records and kernel in line.
    pub(super) fn reconcile(&mut self) -> Result<(), EngineError> {
        for network in self.store.all()? {
            self.know(network);
        }
        let (mut kept, dropped): (Vec<_>, Vec<_>) =
            self.journal.all()?.into_iter().partition(|s| self.lives(s));
        let mut half_done = BTreeSet::new();
        for sandbox in &mut kept {
            let before = sandbox.endpoints.len();
            sandbox.endpoints.retain(|e| !e.pending);
            if sandbox.endpoints.len() < before {
                half_done.insert(sandbox.id.clone());
            }
        }
        for sandbox in &kept {
            self.restore_addresses(sandbox);
            self.sequence = self.sequence.max(sandbox.sequence);
            self.sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        }
        self.predefine()?;
        let present = self.remove_strangers()?;
        self.raise_bridges();
        for sandbox in dropped {
            tracing::info!(container.id = %sandbox.id, "removed what an attach without a living holder had left");
            self.journal.remove(&sandbox.id)?;
        }
        // Rules may be left that name what is gone; with nobody attached they go too, soon.
        self.table = true;
        self.note_idle();
        if kept.is_empty() {
            self.clear_idle();
            return Ok(());
        }
        for sandbox in kept {
            let whole = !half_done.contains(&sandbox.id);
            if let Err(error) = self.revive(sandbox.clone(), &present, whole) {
                tracing::warn!(container.id = %sandbox.id, error = %chain(&error), "a sandbox could not be restored");
            }
        }
        self.walled.clear();
        let wired = self.sandboxes.values().flat_map(|s| &s.endpoints).filter(|e| e.is_wired());
        self.walled.extend(wired.map(|e| e.network.clone()));
        if self.walled.is_empty() { Ok(()) } else { self.apply_rules() }
    }

    fn lives(&self, sandbox: &Sandbox) -> bool {
        sandbox.phase == Phase::Ready
            && sandbox.holder.process().is_alive()
            && sandbox.endpoints.iter().all(|e| e.pending || self.networks.contains_key(&e.network))
    }

    /// Makes the bridges of user networks that are not there: after a reboot, or when a kill came between a network's record
    /// and its bridge.
    fn raise_bridges(&mut self) {
        let user = self.networks.values().filter(|n| n.driver == Driver::Bridge && !n.predefined);
        for id in user.map(|n| n.id.clone()).collect::<Vec<_>>() {
            if let Err(error) = self.ensure_bridge(&id) {
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

    /// Removes interfaces with our mark that no record names; answers the names of all others.
    fn remove_strangers(&mut self) -> Result<BTreeSet<String>, EngineError> {
        let mut known: BTreeSet<&str> = self.networks.values().map(|n| n.interface.as_str()).collect();
        known.extend(self.sandboxes.values().flat_map(|s| &s.endpoints).map(|e| e.host_interface.as_str()));
        let mut present = BTreeSet::new();
        for link in route::links(&self.socket)? {
            let ours = link.group == self.instance.group && PREFIXES.iter().any(|p| link.name.starts_with(p));
            if ours && !known.contains(link.name.as_str()) {
                tracing::info!(interface = %link.name, "removed an interface that no record names");
                bridge::remove(&self.socket, &link.name)?;
            } else {
                present.insert(link.name);
            }
        }
        Ok(present)
    }

    /// Makes a kept sandbox work again: reservations, missing interfaces, resolver, names. One that is not `whole` was
    /// being changed: what is inside is set up again.
    fn revive(
        &mut self,
        mut sandbox: Sandbox,
        present: &BTreeSet<String>,
        whole: bool,
    ) -> Result<(), EngineError> {
        for mapping in &sandbox.ports {
            if let Err(error) = self.ports.restore(&sandbox.id, &sandbox.name, mapping) {
                tracing::warn!(container.id = %sandbox.id, %error, "a published port is not reserved any more");
            }
        }
        let wired: Vec<_> = sandbox.endpoints.iter().filter(|e| e.is_wired()).cloned().collect();
        if !wired.is_empty() {
            let netns = open_namespace(&sandbox)?;
            let mut visit = Visit { resolver: Some(sandbox.resolver), ..Visit::default() };
            for endpoint in &wired {
                self.ensure_bridge(&endpoint.network)?;
                if !present.contains(&endpoint.host_interface) {
                    self.plug(&sandbox, endpoint, netns.as_fd(), &mut Stages::start())?;
                } else if whole {
                    continue;
                }
                visit.interfaces.push(interface_of(endpoint));
            }
            if let Some(gateway) = sandbox.gateway_endpoint()
                && visit.interfaces.iter().any(|i| i.name == gateway.interface)
            {
                visit.routes_in = routes_of(gateway);
            }
            self.visit(&mut sandbox, netns.as_fd(), &visit)?;
        }
        self.keep(&sandbox)
    }
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(s) = source {
        text.push_str(": ");
        text.push_str(&s.to_string());
        source = s.source();
    }
    text
}
