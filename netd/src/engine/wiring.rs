//! What is present for as long as something needs it, and goes when nobody is attached any more.

use super::Engine;
use crate::endpoint::Endpoint;
use crate::network::Driver;

impl Engine {
    /// Starts the time after which what nobody uses is removed, when the last endpoint is gone.
    pub(super) fn note_idle(&mut self) {
        let wired = self.sandboxes.values().any(|s| s.endpoints.iter().any(Endpoint::is_bridged));
        self.idle = (!wired).then(std::time::Instant::now);
    }

    /// Removes the default bridge, and the rules. Bridges of user networks stay, and so does forwarding.
    pub fn clear_idle(&mut self) {
        self.settle();
        if self.idle.take().is_none() {
            return;
        }
        self.ports.rest();
        let warn = |what: &str, error: &dyn std::fmt::Display| tracing::warn!(%error, "cannot remove {what}");
        let default = self.networks.values().find(|n| n.predefined && n.driver == Driver::Bridge).cloned();
        if let Some(network) = default
            && let Err(error) = self.remove_base(&network)
        {
            warn("the default bridge", &error);
        }
        self.walled.clear();
        match self.firewall.remove() {
            Ok(()) => self.table = false,
            Err(error) => warn("the firewall table", &error),
        }
        self.members.clear();
        if let Err(error) = self.apply_policies() {
            warn("policies of networks", &error);
        }
    }
}
