//! Detach: everything of a sandbox removed, going on after errors.

use std::os::fd::{AsFd, BorrowedFd};

use davit_sys::netns;

use super::attach::open_namespace;
use super::reconcile::chain;
use super::{Engine, EngineError};
use crate::driver::inside::RESOLVER;
use crate::endpoint::Sandbox;
use crate::firewall;

impl Engine {
    /// Removes a sandbox; fine when it is unknown. Refused while plugins have a part in it: they come first.
    pub fn detach(&mut self, id: &str) -> Result<(), EngineError> {
        match self.sandboxes.get(id) {
            Some(sandbox) if sandbox.has_foreign() => Err(EngineError::PluginsFirst(sandbox.name.clone())),
            _ => self.detach_own(id),
        }
    }

    /// Removes what is ours of a sandbox, and its record. On errors the record stays, so that a repetition tries again.
    pub fn detach_own(&mut self, id: &str) -> Result<(), EngineError> {
        let Some(sandbox) = self.sandboxes.get(id).cloned() else { return Ok(()) };
        let errors = self.tear_down(&sandbox);
        self.note_idle();
        if errors.is_empty() {
            return Ok(());
        }
        let errors = errors.iter().map(ToString::to_string).collect();
        Err(EngineError::Teardown { what: sandbox.name, errors })
    }

    /// Takes away the interfaces of which nothing is on the host, and the resolver's rules, while the record is there: no
    /// other mark leads to them.
    fn unplug_inside(&self, sandbox: &Sandbox) -> Vec<EngineError> {
        let mut inside = sandbox.endpoints.iter().filter(|e| e.is_wired() && !e.is_bridged()).peekable();
        if inside.peek().is_none() && !sandbox.resolves() {
            return Vec::new();
        }
        // Where the holder is gone they go with its namespace.
        let Ok(netns) = open_namespace(sandbox) else { return Vec::new() };
        if let Err(error) = leave_resolver(sandbox, netns.as_fd()) {
            // A container may have made the table its own: it does not get to keep its addresses by that.
            tracing::warn!(container.id = %sandbox.id, error = %chain(&error), "rules are left inside");
        }
        inside.filter_map(|e| self.unplug(sandbox, e, Some(netns.as_fd())).err()).collect()
    }

    /// Undoes what an attach did, however far it came. The record goes when names and ports are gone; veth pairs
    /// are swept behind it.
    pub(super) fn tear_down(&mut self, sandbox: &Sandbox) -> Vec<EngineError> {
        let mut errors = Vec::new();
        self.names.withdraw(&sandbox.id);
        // Out of the map first: rules that are written again while ports are withdrawn must not name it.
        let recorded = self.sandboxes.remove(&sandbox.id).is_some();
        if recorded {
            errors.extend(self.close_ports(sandbox).err());
            errors.extend(self.unplug_inside(sandbox));
        }
        if errors.is_empty() {
            self.ports.release(&sandbox.id);
            errors.extend(self.journal.remove(&sandbox.id).err().map(Into::into));
            if recorded {
                self.hand_on(sandbox);
                self.sweep(sandbox);
            } else {
                // It was refused before anything was made.
                for endpoint in &sandbox.endpoints {
                    self.release_addresses(endpoint);
                }
            }
        } else {
            self.sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        }
        errors
    }
}

/// Takes the resolver's rules out of a sandbox that may live on.
pub(super) fn leave_resolver(sandbox: &Sandbox, netns: BorrowedFd<'_>) -> Result<(), EngineError> {
    if !sandbox.resolves() {
        return Ok(());
    }
    let failed = |source| EngineError::Inside { container: sandbox.name.clone(), source };
    let left = netns::visit(netns, || firewall::leave_dns(RESOLVER.into()));
    let socket = left.map_err(|e| failed(e.into()))?.map_err(|e| failed(e.into()))?;
    // Where no thread can be had it is closed here.
    let _ = std::thread::Builder::new().name("netd-close".into()).stack_size(64 << 10).spawn(|| drop(socket));
    Ok(())
}
