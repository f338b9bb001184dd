//! Changes of a sandbox that runs: networks added and taken away, its name.

use std::os::fd::AsFd;

use super::attach::{Attached, EndpointSpec, interface_of, open_namespace, routes_of};
use super::stages::Stages;
use super::{Engine, EngineError};
use crate::driver::bridge;
use crate::driver::inside::Visit;
use crate::endpoint::{Endpoint, Sandbox};
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
        let endpoint = self.plan_endpoint(&before, wanted, &network)?;
        let mut after = before.clone();
        after.endpoints.push(endpoint.clone());
        match self.connect_steps(&before, &mut after, &endpoint) {
            Ok(()) => {
                self.idle = None;
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
        let mut draft = after.clone();
        draft.endpoints.last_mut().expect("the new one").pending = true;
        self.journal.write(&draft)?;
        self.plug(before, endpoint, netns.as_fd(), &mut Stages::start())?;
        let (routes_out, routes_in) = routes_changed(before, after);
        let resolver = (!self.names.serves(&before.id)).then_some(None);
        let visit = Visit { interfaces: vec![interface_of(endpoint)], routes_out, routes_in, resolver };
        self.visit(after, netns.as_fd(), &visit)?;
        let bridge = &self.networks[&endpoint.network].interface;
        bridge::await_forwarding(&self.socket, bridge, &endpoint.host_interface)?;
        self.move_ports(before, after)?;
        self.keep(after)
    }

    fn undo_connect(&mut self, before: &Sandbox, endpoint: &Endpoint) {
        let mut errors: Vec<EngineError> = Vec::new();
        if endpoint.is_wired() {
            errors.extend(bridge::remove(&self.socket, &endpoint.host_interface).err().map(Into::into));
        }
        self.release_addresses(endpoint);
        errors.extend(self.keep(before).err());
        for error in errors {
            tracing::warn!(container.id = %before.id, %error, "undoing a failed connect");
        }
    }

    /// Takes a network away. The default route and published ports move to another network that leads out.
    pub fn disconnect(&mut self, id: &str, network: &str) -> Result<(), EngineError> {
        let before = self.sandbox(id)?;
        let network = self.find_network(network)?.clone();
        let mut after = before.clone();
        after.endpoints.retain(|e| e.network != network.id);
        let Some(endpoint) = before.endpoints.iter().find(|e| e.network == network.id) else {
            return Err(EngineError::NotConnected { sandbox: before.name, network: network.name });
        };
        if endpoint.is_wired() {
            // From here on a restart finishes what a kill leaves half done.
            let mut draft = before.clone();
            draft.endpoints.iter_mut().filter(|e| e.network == network.id).for_each(|e| e.pending = true);
            self.journal.write(&draft)?;
            bridge::remove(&self.socket, &endpoint.host_interface)?;
            let (_, routes_in) = routes_changed(&before, &after);
            // A holder that is gone has no routes to mend.
            if !routes_in.is_empty()
                && let Ok(netns) = open_namespace(&before)
            {
                self.visit(&mut after, netns.as_fd(), &Visit { routes_in, ..Visit::default() })?;
            }
            self.move_ports(&before, &after)?;
        }
        self.release_addresses(endpoint);
        self.keep(&after)?;
        self.note_idle();
        Ok(())
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
        if super::wiring::forwards(before) == super::wiring::forwards(after) {
            return Ok(());
        }
        self.close_ports(before)?;
        self.open_ports(after)
    }
}

type Routes = Vec<(std::net::IpAddr, String)>;

/// Default routes to remove and to add when the endpoints change.
fn routes_changed(before: &Sandbox, after: &Sandbox) -> (Routes, Routes) {
    let of = |s: &Sandbox| s.gateway_endpoint().map(routes_of).unwrap_or_default();
    let (old, new) = (of(before), of(after));
    if old == new { (Vec::new(), Vec::new()) } else { (old, new) }
}
