//! Bridges, and what goes when nobody is attached any more.

use davit_contracts::id::NetworkId;

use super::{Engine, EngineError};
use crate::driver::bridge::{self, Bridge};
use crate::network::{Driver, Network, pools};

impl Engine {
    /// The bridge of a network, made when it is not there.
    pub(super) fn ensure_bridge(&mut self, id: &NetworkId) -> Result<Bridge, EngineError> {
        if let Some(bridge) = self.bridges.get(id) {
            return Ok(*bridge);
        }
        let network = self.networks[id].clone();
        let group = self.instance.group;
        let failed = |source| EngineError::Bridge { network: network.name.clone(), source };
        let found = bridge::find(&self.socket, &network, group).map_err(failed)?;
        let bridge = if let Some(bridge) = found {
            // A killed netd may have made it without going on.
            bridge::complete(&self.socket, &network, bridge).map_err(failed)?;
            bridge
        } else {
            self.check_still_free(&network)?;
            bridge::make(&self.socket, &network, group).map_err(failed)?
        };
        self.bridges.insert(id.clone(), bridge);
        Ok(bridge)
    }

    /// The host may have come to use a network's subnet while it had no bridge.
    fn check_still_free(&self, network: &Network) -> Result<(), EngineError> {
        let taken = self.taken(Some(&network.id))?;
        for subnet in &network.subnets {
            if let Some(t) = pools::conflict(&subnet.subnet, &taken) {
                return Err(EngineError::Overlap { subnet: subnet.subnet, by: t.by.clone() });
            }
        }
        Ok(())
    }

    /// Starts the time after which what nobody uses is removed, when the last endpoint is gone.
    pub(super) fn note_idle(&mut self) {
        let wired =
            self.sandboxes.values().any(|s| s.endpoints.iter().any(crate::endpoint::Endpoint::is_wired));
        self.idle = (!wired).then(std::time::Instant::now);
    }

    /// Removes the default bridge, the rules, and the host's changed settings. Bridges of user networks stay.
    pub fn clear_idle(&mut self) {
        self.settle();
        if self.idle.take().is_none() {
            return;
        }
        let warn = |what: &str, error: &dyn std::fmt::Display| tracing::warn!(%error, "cannot remove {what}");
        let default = self.networks.values().find(|n| n.predefined && n.driver == Driver::Bridge).cloned();
        if let Some(network) = default {
            self.bridges.remove(&network.id);
            // Only what is ours: the name may be somebody else's by now.
            if let Ok(Some(_)) = bridge::find(&self.socket, &network, self.instance.group)
                && let Err(error) = bridge::remove(&self.socket, &network.interface)
            {
                warn("the default bridge", &error);
            }
        }
        self.walled.clear();
        match self.firewall.remove() {
            Ok(()) => self.table = false,
            Err(error) => warn("the firewall table", &error),
        }
        if let Err(error) = self.sysctls.restore() {
            warn("changed kernel settings", &error);
        }
    }
}
