//! Changes of a sandbox that runs: networks added and taken away, its name.

use std::os::fd::{AsFd, BorrowedFd};

use super::attach::{Attached, EndpointSpec, open_namespace};
use super::reconcile::chain;
use super::stages::Stages;
use super::{Engine, EngineError};
use crate::driver::inside::Visit;
use crate::endpoint::{Endpoint, Sandbox, Way};
use crate::netlink::route;
use crate::network::Driver;

impl Engine {
    /// Adds a network. The record names the new interface before it is made, so that a killed netd finds it.
    pub fn connect(
        &mut self,
        id: &str,
        wanted: &EndpointSpec,
    ) -> Result<(Sandbox, Endpoint, String), EngineError> {
        self.settle();
        let before = self.sandbox(id)?;
        let network = self.find_network(&wanted.network)?.clone();
        if before.endpoints.iter().any(|e| e.network == network.id) {
            return Err(EngineError::Connected { sandbox: before.name, network: network.name });
        }
        let of_host = |e: &Endpoint| self.networks.get(&e.network).is_some_and(|n| n.driver == Driver::Host);
        if network.driver == Driver::None {
            return Err(EngineError::NoneWithOthers);
        }
        if network.driver == Driver::Host || before.endpoints.iter().any(of_host) {
            return Err(EngineError::HostWithOthers);
        }
        let mut endpoint = self.plan_endpoint(&before, wanted, &network)?;
        Self::plan_ports_anew(&before, &mut endpoint, &network)?;
        let mut after = before.clone();
        after.endpoints.push(endpoint.clone());
        match self.connect_steps(&before, &mut after, &endpoint) {
            Ok(()) => {
                self.note_idle();
                let endpoint = after.endpoints.last().cloned().unwrap_or(endpoint);
                Ok((after, endpoint, network.name))
            }
            Err(e) => {
                self.undo_connect(&before, &endpoint);
                Err(e)
            }
        }
    }

    fn connect_steps(
        &mut self,
        before: &Sandbox,
        after: &mut Sandbox,
        endpoint: &Endpoint,
    ) -> Result<(), EngineError> {
        if !endpoint.is_wired() {
            return self.keep(after);
        }
        let netns = open_namespace(before)?;
        let at = after.endpoints.len() - 1;
        let mut draft = after.clone();
        draft.endpoints[at].pending = true;
        self.journal.write(&draft)?;
        self.plug(after, at, netns.as_fd(), &mut Stages::start())?;
        let (routes_out, routes_in) = routes_changed(before, after);
        let resolver = (!before.without_resolver && !self.names.serves(&before.id)).then_some(None);
        let unfinished = after.endpoints[at].is_unfinished();
        let interfaces = if unfinished { Vec::new() } else { vec![self.interface(&after.endpoints[at])] };
        let visit = Visit { interfaces, routes_out, routes_in, resolver, ..Visit::default() };
        self.visit(after, netns.as_fd(), &visit)?;
        self.await_ready([&after.endpoints[at]], netns.as_fd())?;
        self.move_ports(before, after)?;
        after.endpoints[at].pending = unfinished;
        self.keep(after)
    }

    fn undo_connect(&mut self, before: &Sandbox, endpoint: &Endpoint) {
        let mut errors: Vec<EngineError> = Vec::new();
        if endpoint.is_wired() {
            let netns = open_namespace(before).ok();
            errors.extend(self.unplug(before, endpoint, netns.as_ref().map(AsFd::as_fd)).err());
            if let Some(netns) = netns {
                // A default route that was to be replaced comes back; one that is there is no failure.
                let routes_in = before.ways();
                let _ =
                    self.visit(&mut before.clone(), netns.as_fd(), &Visit { routes_in, ..Visit::default() });
                self.take_ways_left(&mut before.clone(), netns.as_fd());
            }
        }
        self.release_addresses(endpoint);
        errors.extend(self.keep(before).err());
        for error in errors {
            tracing::warn!(container.id = %before.id, %error, "undoing a failed connect");
        }
    }

    /// Takes a network away. Refused while plugins have it: they come first.
    pub fn disconnect(&mut self, id: &str, network: &str) -> Result<(), EngineError> {
        let sandbox = self.sandbox(id)?;
        let network = self.find_network(network)?;
        if sandbox.endpoints.iter().any(|e| e.network == network.id && e.foreign.is_some()) {
            return Err(EngineError::PluginsFirst(sandbox.name));
        }
        let name = network.name.clone();
        self.disconnect_own(id, &name)
    }

    /// Takes a network away. The default route and published ports move to another network that leads out.
    pub fn disconnect_own(&mut self, id: &str, network: &str) -> Result<(), EngineError> {
        let before = self.sandbox(id)?;
        let network = self.find_network(network)?.clone();
        let mut after = before.clone();
        after.endpoints.retain(|e| e.network != network.id);
        let Some(endpoint) = before.endpoints.iter().find(|e| e.network == network.id) else {
            return Err(EngineError::NotConnected { sandbox: before.name, network: network.name });
        };
        if endpoint.is_wired() {
            // A holder that is gone has no routes to mend.
            let netns = open_namespace(&before).ok();
            if let Some(netns) = &netns {
                self.check_within_reach(&before, endpoint, netns.as_fd())?;
            }
            // From here on a restart finishes what a kill leaves half done.
            let mut draft = before.clone();
            draft.endpoints.iter_mut().filter(|e| e.network == network.id).for_each(|e| e.pending = true);
            self.journal.write(&draft)?;
            self.unplug(&before, endpoint, netns.as_ref().map(AsFd::as_fd))?;
            // Should the rest fail, who tries again need not find it any more.
            self.sandboxes.insert(draft.id.clone(), draft);
            let (_, routes_in) = routes_changed(&before, &after);
            if let Some(netns) = netns {
                let moved = Visit { routes_in, ..Visit::default() };
                // A container may have renamed the interface, or done without its address: it leaves all the same.
                if !moved.routes_in.is_empty()
                    && let Err(error) = self.visit(&mut after, netns.as_fd(), &moved)
                {
                    let error = chain(&error);
                    tracing::warn!(container.id = %id, error, "its default route was not moved; a check tells");
                }
                self.take_ways_left(&mut after, netns.as_fd());
            }
            self.move_ports(&before, &after)?;
            self.firewall.forget(endpoint.addresses().filter(|_| endpoint.is_bridged()).map(|a| a.addr()));
        }
        self.release_addresses(endpoint);
        self.keep(&after)?;
        self.note_idle();
        Ok(())
    }

    /// Where plugins have a part: adds a default route that is not there any more. A route of theirs was replaced when ours
    /// came, and only they know of it.
    fn take_ways_left(&mut self, sandbox: &mut Sandbox, netns: BorrowedFd<'_>) {
        let routes_in = sandbox.ways_left();
        if routes_in.is_empty() {
            return;
        }
        // A plugin's interface may be gone or have another name by now: that keeps nobody from leaving a network.
        if let Err(error) = self.visit(sandbox, netns, &Visit { routes_in, yields: true, ..Visit::default() })
        {
            tracing::warn!(container.id = %sandbox.id, %error, "the default route was not taken over");
        }
    }

    /// Refuses when a container took an interface of a parent to a place where it cannot be found: the address must not go
    /// to another while it is in use there. Without the parent there is none any more.
    fn check_within_reach(
        &self,
        sandbox: &Sandbox,
        endpoint: &Endpoint,
        netns: BorrowedFd<'_>,
    ) -> Result<(), EngineError> {
        let network =
            self.networks.get(&endpoint.network).filter(|n| !endpoint.pending && n.sublink.is_some());
        let parent = network.and_then(|n| n.sublink.as_ref()).map(|s| s.parent.as_str());
        let Some((network, parent)) = network.zip(parent) else { return Ok(()) };
        if route::link(&self.socket, parent)?.is_none() || self.is_plugged(sandbox, endpoint, netns)? {
            return Ok(());
        }
        let (container, interface) = (sandbox.name.clone(), endpoint.interface.clone());
        Err(EngineError::OutOfReach { container, interface, network: network.name.clone() })
    }

    /// Gives a sandbox another name. `None` when it is unknown.
    pub fn rename(&mut self, id: &str, name: &str) -> Result<Option<Attached>, EngineError> {
        let Some(mut sandbox) = self.sandboxes.get(id).cloned() else { return Ok(None) };
        let old = std::mem::replace(&mut sandbox.name, name.to_owned());
        for endpoint in sandbox.endpoints.iter_mut().filter(|e| e.is_wired()) {
            endpoint.names.retain(|n| *n != old && n != name);
            // The first is the one that its address resolves to.
            endpoint.names.insert(0, name.to_owned());
        }
        self.keep(&sandbox)?;
        self.ports.rename(id, name);
        Ok(Some(self.attached(sandbox, Stages::start())))
    }

    fn sandbox(&self, id: &str) -> Result<Sandbox, EngineError> {
        self.sandboxes.get(id).cloned().ok_or_else(|| EngineError::UnknownSandbox(id.to_owned()))
    }

    fn move_ports(&mut self, before: &Sandbox, after: &Sandbox) -> Result<(), EngineError> {
        if self.forwards(before) == self.forwards(after) && self.relayed(before) == self.relayed(after) {
            return Ok(());
        }
        self.close_ports(before)?;
        self.open_ports(after)
    }
}

/// Default routes to remove and to add when the endpoints change.
fn routes_changed(before: &Sandbox, after: &Sandbox) -> (Vec<Way>, Vec<Way>) {
    let (old, new) = (before.ways(), after.ways());
    let gone = old.iter().filter(|w| !new.contains(w)).cloned().collect();
    (gone, new.into_iter().filter(|w| !old.contains(w)).collect())
}
