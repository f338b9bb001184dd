//! What callers of CNI plugins are told of a sandbox: what was made of its endpoints, and what has become of it since.

use std::os::fd::AsFd as _;

use davit_sys::netns;

use super::attach::{Attached, open_namespace};
use super::stages::Stages;
use super::{Drift, Engine, EngineError};
use crate::endpoint::{Endpoint, Sandbox};
use crate::netlink::route::Mac;
use crate::netlink::view::{self, Link};
use crate::netlink::{Protocol, Socket};

/// What there is of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// Of the interface inside; 0 when it cannot be seen.
    pub mtu: u32,
    /// Of our end of the pair.
    pub host_mac: Option<Mac>,
}

impl Engine {
    /// The answer to an attach. Only who names a namespace by a path asks for the ends: everybody else would wait for nothing.
    pub(super) fn attached_at(&self, sandbox: Sandbox, stages: Stages) -> Attached {
        let ends = match sandbox.holder.process() {
            None => self.ends(&sandbox),
            Some(_) => Vec::new(),
        };
        Attached { ends, ..self.attached(sandbox, stages) }
    }

    /// What cannot be seen is not told: a check says why.
    fn ends(&self, sandbox: &Sandbox) -> Vec<End> {
        let inside = || -> Result<Vec<Link>, EngineError> {
            let netns = open_namespace(sandbox)?;
            let seen = netns::visit(netns.as_fd(), || view::links(&Socket::open(Protocol::Route)?));
            let failed = |source| EngineError::Inside { container: sandbox.name.clone(), source };
            Ok(seen.map_err(|e| failed(e.into()))??)
        };
        let inside = inside().unwrap_or_default();
        let end = |endpoint: &Endpoint| {
            let link = inside.iter().find(|l| endpoint.is_wired() && l.name == endpoint.interface);
            let host = || view::link(&self.socket, &endpoint.host_interface).ok().flatten()?.mac;
            let host_mac = if endpoint.is_bridged() { host() } else { None };
            End { mtu: link.map_or(0, |l| l.mtu), host_mac }
        };
        sandbox.endpoints.iter().map(end).collect()
    }

    /// A sandbox as it is, with what is not as it should be of it and of what its networks have on the host.
    pub fn check_attached(&mut self, id: &str) -> Result<(Attached, Vec<Drift>), EngineError> {
        let unknown = || EngineError::UnknownSandbox(id.to_owned());
        let sandbox = self.sandboxes.get(id).cloned().ok_or_else(unknown)?;
        let attached = self.attached_at(sandbox, Stages::start());
        let (mut drifts, _) = self.check_host(false, &[])?;
        let name = &attached.sandbox.name;
        let concerns = |d: &Drift| {
            let of_all = d.network.is_empty() && d.sandbox.is_empty();
            of_all || attached.networks.contains(&d.network) || d.sandbox == *name
        };
        drifts.retain(concerns);
        drifts.extend(self.check_sandbox(id, false)?);
        Ok((attached, drifts))
    }
}
