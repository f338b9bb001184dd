//! Sandboxes of one namespace: a container that a caller of CNI plugins attached to several networks, each by itself.
//!
//! Such a caller asks for the same published ports on every network, and for a default route on each. The first has them, and
//! the others are on record with what they did without; when it goes, they take that over.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;

use super::attach::open_namespace;
use super::reconcile::chain;
use super::{Engine, EngineError};
use crate::driver::inside::Visit;
use crate::endpoint::{Mapping, Sandbox};
use crate::publish::{PublishError, Wanted, meet};

impl Engine {
    /// The port, when another sandbox of the namespace publishes the same one of the container.
    pub(super) fn shared_port(&self, sandbox: &Sandbox, wanted: Wanted) -> Option<Mapping> {
        let Wanted { transport, host_ip, first, last, container_port, .. } = wanted;
        let host = SocketAddr::new(host_ip, first);
        let same = |m: &Mapping| {
            m.transport == transport
                && m.host.port() == first
                && meet(m.host.ip(), host_ip)
                && m.container_port == container_port
        };
        let is_siblings = |id: &str| {
            self.sandboxes.get(id).is_some_and(|s| s.shares_namespace(sandbox) && s.ports.iter().any(same))
        };
        let mut holders = self.ports.holders(transport, host).peekable();
        let shared = first == last && holders.peek().is_some() && holders.all(|(id, _)| is_siblings(id));
        shared.then_some(Mapping { transport, host, container_port })
    }

    /// The others of a sandbox's namespace.
    pub(super) fn siblings<'a>(&'a self, sandbox: &'a Sandbox) -> impl Iterator<Item = &'a Sandbox> {
        // A process's is its own.
        let shared = sandbox.holder.process().is_none();
        shared.then(|| self.sandboxes.values()).into_iter().flatten().filter(|s| s.shares_namespace(sandbox))
    }

    /// Lets others of a namespace have what a sandbox had that is gone. Nothing that fails keeps it from going.
    pub(super) fn hand_on(&mut self, gone: &Sandbox) {
        let mut siblings: Vec<_> = self.siblings(gone).collect();
        siblings.sort_by_key(|s| s.sequence);
        let ids: Vec<_> = siblings.iter().map(|s| s.id.clone()).collect();
        if ids.is_empty() {
            return;
        }
        // Its interface goes behind the answer, and the route with it: too late for another's to be added now.
        if let Err(error) = self.leave_ways(gone) {
            tracing::warn!(container.id = %gone.id, error = %chain(&error), "its default route stays for now");
        }
        for id in ids {
            self.take_over(&id);
        }
    }

    /// What a kill may have left half done.
    pub(super) fn take_over_all(&mut self) {
        let mut all: Vec<_> = self.sandboxes.values().map(|s| (s.sequence, s.id.clone())).collect();
        all.sort();
        for (_, id) in all {
            self.take_over(&id);
        }
    }

    fn leave_ways(&mut self, gone: &Sandbox) -> Result<(), EngineError> {
        let routes_out = gone.ways_made();
        if routes_out.is_empty() {
            return Ok(());
        }
        let netns = open_namespace(gone)?;
        self.visit(&mut gone.clone(), netns.as_fd(), &Visit { routes_out, ..Visit::default() })
    }

    /// Takes the ports and default routes that a sandbox did without, as far as nobody has them.
    fn take_over(&mut self, id: &str) {
        let Some(before) = self.sandboxes.get(id).cloned() else { return };
        if before.waiting.is_empty() && before.yielded.is_empty() {
            return;
        }
        let mut after = before.clone();
        let warn = |what: &str, error: &dyn std::error::Error| {
            tracing::warn!(container.id = %id, error = %chain(error), "{what}");
        };
        if let Err(error) = self.take_ports(&mut after) {
            warn("a published port was not taken over", &error);
        }
        if let Err(error) = self.take_ways(&mut after) {
            warn("the default route was not taken over", &error);
        }
        if after == before {
            return;
        }
        if let Err(error) = self.keep(&after) {
            warn("what was taken over is not on record", &error);
        }
        if after.ports != before.ports
            && let Err(error) = self.open_ports(&after)
        {
            warn("ports that were taken over are not published", &error);
        }
    }

    /// Those that somebody else has go on waiting.
    fn take_ports(&mut self, sandbox: &mut Sandbox) -> Result<(), PublishError> {
        let mut outcome = Ok(());
        for mapping in std::mem::take(&mut sandbox.waiting) {
            let Mapping { transport, host, container_port } = mapping;
            let (host_ip, port) = (host.ip(), host.port());
            let wanted =
                Wanted { transport, host_ip, everywhere: false, first: port, last: port, container_port };
            match self.ports.reserve_shared(&sandbox.id, &sandbox.name, wanted) {
                Ok(mapping) => sandbox.ports.push(mapping),
                Err(error) => {
                    sandbox.waiting.push(mapping);
                    if !matches!(error, PublishError::Ours { .. }) {
                        outcome = Err(error);
                    }
                }
            }
        }
        self.ports.share(&sandbox.id);
        outcome
    }

    fn take_ways(&mut self, sandbox: &mut Sandbox) -> Result<(), EngineError> {
        if sandbox.yielded.is_empty() {
            return Ok(());
        }
        let netns = open_namespace(sandbox)?;
        let routes_in = sandbox.yielded.clone();
        self.visit(sandbox, netns.as_fd(), &Visit { routes_in, yields: true, ..Visit::default() })
    }
}
