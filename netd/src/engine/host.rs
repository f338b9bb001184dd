//! The host's side of things, for who draws them.

use super::{Engine, EngineError};
use crate::netlink::view;

/// An interface of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInterface {
    /// Its name.
    pub name: String,
    /// `bridge`, `veth`, ...; empty for hardware.
    pub kind: String,
    /// Its addresses that are valid beyond the link.
    pub addresses: Vec<String>,
    /// Set up, with something at the other end.
    pub up: bool,
    /// A default route leads through it.
    pub default_route: bool,
    /// The id of the network whose bridge or parent it is.
    pub network: String,
}

/// The host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostView {
    /// Its name.
    pub hostname: String,
    /// Its interfaces, without the loopback and without containers' ends.
    pub interfaces: Vec<HostInterface>,
    /// What filters packets.
    pub firewall: &'static str,
    /// The servers that names of the world are asked from.
    pub nameservers: Vec<String>,
}

impl Engine {
    /// Looks at the host.
    pub fn host(&self) -> Result<HostView, EngineError> {
        let links = view::links(&self.socket)?;
        let addresses = view::addresses(&self.socket)?;
        let routes = view::routes(&self.socket)?;
        let ends =
            |name: &str| self.sandboxes.values().flat_map(|s| &s.endpoints).any(|e| e.host_interface == name);
        let network_of = |name: &str| {
            let found = self.networks.values().find(|n| !name.is_empty() && n.interface == name);
            found.map_or_else(String::new, |n| n.id.to_string())
        };
        let interface = |link: &view::Link| HostInterface {
            name: link.name.clone(),
            kind: link.kind.clone(),
            addresses: addresses
                .iter()
                .filter(|a| a.index == link.index && a.global)
                .map(|a| a.net.to_string())
                .collect(),
            up: link.up && link.carrier,
            default_route: routes.iter().any(|r| r.index == link.index && r.net.prefix_len() == 0),
            network: network_of(&link.name),
        };
        let shown = links.iter().filter(|l| l.name != "lo" && !ends(&l.name));
        let hostname = nix::sys::utsname::uname()
            .map(|u| u.nodename().to_string_lossy().into_owned())
            .unwrap_or_default();
        Ok(HostView {
            hostname,
            interfaces: shown.map(interface).collect(),
            firewall: self.firewall.name(),
            nameservers: self.names.host().get().servers.iter().map(ToString::to_string).collect(),
        })
    }
}
