//! What callers of CNI plugins are told of a sandbox: what was made of its endpoints, and what has become of it since.

use super::attach::Attached;
use super::stages::Stages;
use super::{Drift, Engine, EngineError};
use crate::endpoint::{Endpoint, Sandbox};
use crate::netlink::route::Mac;
use crate::netlink::view;

/// What there is of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// Of its interfaces; 0 when it is not known.
    pub mtu: u32,
    /// Of our end of the pair.
    pub host_mac: Option<Mac>,
}

impl Engine {
    /// The answer to an attach. Only who names a namespace by a path asks for the ends: everybody else would wait for nothing.
    pub(super) fn attached_at(&self, sandbox: Sandbox, stages: Stages) -> Attached {
        let ends = match sandbox.holder.process() {
            None => sandbox.endpoints.iter().map(|e| self.end(e)).collect(),
            Some(_) => Vec::new(),
        };
        Attached { ends, ..self.attached(sandbox, stages) }
    }

    fn end(&self, endpoint: &Endpoint) -> End {
        let base = self.bases.get(&endpoint.network).map(|b| b.mtu);
        let network = || self.networks.get(&endpoint.network)?.mtu();
        let mtu = base.or_else(network).filter(|_| endpoint.foreign.is_none()).unwrap_or_default();
        let bridged = endpoint.is_bridged();
        // What cannot be seen is not told: a check says why.
        let link =
            bridged.then(|| view::link(&self.socket, &endpoint.host_interface).ok().flatten()).flatten();
        End { mtu, host_mac: link.and_then(|l| l.mac) }
    }

    /// A sandbox as it is, with what is not as it should be of it and of what its networks have on the host.
    pub fn check_attached(&mut self, id: &str) -> Result<(Attached, Vec<Drift>), EngineError> {
        let unknown = || EngineError::UnknownSandbox(id.to_owned());
        let sandbox = self.sandboxes.get(id).cloned().ok_or_else(unknown)?;
        let attached = self.attached_at(sandbox, Stages::start());
        let (mut drifts, _) = self.check_host(false)?;
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
