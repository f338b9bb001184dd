//! What of the host is looked at for one sandbox. Lists of all links or entries take the kernel long when there are a thousand
//! containers, and each of them is looked at: so only what its endpoints name is asked for, as long as that is in order.

use super::super::{Engine, EngineError};
use crate::endpoint::{Endpoint, Sandbox};
use crate::netlink::fdb::{self, Entry};
use crate::netlink::view::{self, Link};

impl Engine {
    /// The entries of the bridge by which somebody has an endpoint's frames sent elsewhere.
    pub(in super::super) fn diverted(&self, endpoint: &Endpoint, link: &Link) -> Vec<Entry> {
        let Some((mac, bridge)) = endpoint.mac.zip(link.master) else { return Vec::new() };
        let network = self.networks.get(&endpoint.network);
        let vlans = network.map(|n| view::link(&self.socket, &n.interface));
        let entries = match vlans {
            Some(Ok(Some(there))) if !there.vlans => {
                fdb::set_entry(&self.socket, bridge, mac).map(|entry| entry.into_iter().collect())
            }
            _ => fdb::set_entries(&self.socket),
        };
        let entries = entries.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot look at the entries of bridges");
            Vec::new()
        });
        let elsewhere = |e: &Entry| e.bridge == bridge && e.mac == mac && e.port != link.index;
        entries.into_iter().filter(elsewhere).collect()
    }

    /// The links of the host that a sandbox's endpoints name, when all are there and ours; else all that there are, to look
    /// for them. Each end of a pair costs the kernel more the more namespaces there are, so that all of them take it long.
    pub(super) fn links_around(&self, sandbox: &Sandbox) -> Result<Vec<Link>, EngineError> {
        let mut around: Vec<Link> = Vec::new();
        for endpoint in sandbox.endpoints.iter().filter(|e| e.is_wired()) {
            let Some(network) = self.networks.get(&endpoint.network) else { continue };
            let names = match &network.sublink {
                Some(sublink) => vec![sublink.parent.as_str()],
                None if endpoint.is_bridged() => {
                    vec![network.interface.as_str(), endpoint.host_interface.as_str()]
                }
                None => continue,
            };
            for name in names {
                let link = view::link(&self.socket, name)?;
                let ours = |l: &Link| network.sublink.is_some() || l.group == self.instance.group;
                match link.filter(ours) {
                    Some(link) => around.push(link),
                    None => return Ok(view::links(&self.socket)?),
                }
            }
        }
        Ok(around)
    }
}
