//! Rules: written for as long as somebody is attached, and again when somebody takes them away.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use davit_contracts::id::NetworkId;

use super::{Engine, EngineError};
use crate::endpoint::Sandbox;
use crate::firewall::{Forward, Rules, Segment, Transport};
use crate::network::{GatewayMode, Network};
use crate::publish::Relayed;
use crate::publish::relay::Refused;

impl Engine {
    /// What the firewall must know now.
    pub(super) fn rules(&self) -> Rules {
        Rules {
            segments: self.walled.iter().filter_map(|id| self.networks.get(id)).map(segment).collect(),
            forwards: self.sandboxes.values().flat_map(|s| self.forwards(s)).collect(),
        }
    }

    /// Brings the firewall's table in line with which networks have endpoints; nothing when it is.
    pub(super) fn wall_in(&mut self) -> Result<(), EngineError> {
        let mut wanted = self.walled.clone();
        wanted.retain(|id| self.networks.contains_key(id));
        for endpoint in self.sandboxes.values().flat_map(|s| &s.endpoints).filter(|e| e.is_bridged()) {
            wanted.insert(endpoint.network.clone());
        }
        if wanted == self.walled && self.table {
            return Ok(());
        }
        let former = std::mem::replace(&mut self.walled, wanted);
        if self.walled.is_empty() && !self.table {
            return Ok(());
        }
        self.apply_rules().inspect_err(|_| self.walled = former)
    }

    /// Makes sure that the table knows this network, before the first sandbox on it is wired.
    pub(super) fn wall(&mut self, id: &NetworkId) -> Result<(), EngineError> {
        if self.table && self.walled.contains(id) {
            return Ok(());
        }
        let new = self.walled.insert(id.clone());
        let outcome = self.apply_rules();
        if outcome.is_err() && new {
            // Or the next sandbox would be wired to a network that the table does not know.
            self.walled.remove(id);
        }
        outcome
    }

    /// Settings of the host that the networks need which the table knows.
    pub(super) fn wanted_settings(&self) -> Vec<(&'static str, &'static str)> {
        let walled = self.walled.iter().filter_map(|id| self.networks.get(id)).filter(|n| !n.internal);
        let mut settings = BTreeSet::new();
        for network in walled {
            settings.insert(("net/ipv4/ip_forward", "1"));
            if network.subnets.iter().any(|s| s.subnet.addr().is_ipv6()) {
                settings.insert(("net/ipv6/conf/all/forwarding", "1"));
            }
        }
        settings.into_iter().collect()
    }

    /// Writes the whole table.
    pub(super) fn apply_rules(&mut self) -> Result<(), EngineError> {
        self.refuse_internal();
        self.forward()?;
        let rules = self.rules();
        self.firewall.apply(&rules).map_err(EngineError::Firewall)?;
        self.table = true;
        Ok(())
    }

    /// Writes the rules again after somebody else took some away; nothing when none are needed.
    pub(super) fn mend_rules(&mut self) {
        self.mend_guard();
        if self.walled.is_empty() {
            return;
        }
        if let Err(error) = self.apply_policies() {
            tracing::error!(%error, "somebody removed policies of networks; they are missing");
        }
        if self.firewall.is_whole() {
            if let Err(error) = self.firewall.pass_others() {
                tracing::error!(%error, "a chain of another table may stop our networks' packets");
            }
            return;
        }
        match self.apply_rules() {
            Ok(()) => tracing::warn!("somebody removed firewall rules of ours; they are back"),
            Err(error) => {
                tracing::error!(%error, "somebody removed firewall rules of ours; they are missing");
            }
        }
    }

    /// Publishes a sandbox's ports. Elements only; when they cannot be added, since somebody flushed the rules, all
    /// rules are written again.
    pub(super) fn open_ports(&mut self, sandbox: &Sandbox) -> Result<(), EngineError> {
        let relayed = self.relayed(sandbox);
        self.ports.answer(&sandbox.id, &relayed);
        let wanted = self.forwards(sandbox);
        if wanted.is_empty() {
            return Ok(());
        }
        match self.firewall.publish(&wanted) {
            Err(e) if e.is_missing() => {
                self.apply_rules()?;
                self.firewall.publish(&wanted).map_err(EngineError::Firewall)?;
            }
            other => other.map_err(EngineError::Firewall)?,
        }
        self.forget_udp(&wanted);
        Ok(())
    }

    /// Clients that sent to a UDP port before it was published are remembered as going to the host itself, and would for as
    /// long as they go on.
    fn forget_udp(&self, forwards: &[Forward]) {
        for ipv6 in [false, true] {
            let udp = forwards.iter().filter(|f| f.transport == Transport::Udp && f.to.is_ipv6() == ipv6);
            let ports: Vec<_> = udp.filter_map(|f| f.host).map(|host| host.port()).collect();
            if let Err(error) = self.firewall.forget_udp(&ports, ipv6) {
                tracing::warn!(%error, "clients that sent to a port before may not reach it at once");
            }
        }
    }

    /// Withdraws ports; fine when somebody flushed the rules.
    pub(super) fn close_ports(&mut self, sandbox: &Sandbox) -> Result<(), EngineError> {
        let published = self.forwards(sandbox);
        if published.is_empty() || !self.table {
            return Ok(());
        }
        match self.firewall.withdraw(&published) {
            Err(e) if !e.is_missing() => Err(EngineError::Firewall(e)),
            Err(_) => self.apply_rules(),
            Ok(()) => Ok(()),
        }
    }

    /// What a sandbox's published ports need: redirections, or openings where its addresses are routed.
    pub(super) fn forwards(&self, sandbox: &Sandbox) -> Vec<Forward> {
        let Some(endpoint) = sandbox.gateway_endpoint() else { return Vec::new() };
        let modes =
            self.networks.get(&endpoint.network).map(|n| n.bridge.gateway_modes()).unwrap_or_default();
        let forward = |m: &crate::endpoint::Mapping| {
            let ip = if m.host.is_ipv4() { endpoint.ip } else { endpoint.ip6 }?;
            let routed = modes[usize::from(m.host.is_ipv6())] == GatewayMode::Routed;
            let to = SocketAddr::new(ip.addr(), m.container_port);
            // A port that was published while the way out was routed has none of the host's.
            let nowhere = !routed && (m.host.port() == 0 || is_loopback6(m.host.ip()));
            (!nowhere).then_some(Forward { transport: m.transport, host: (!routed).then_some(m.host), to })
        };
        sandbox.ports.iter().filter_map(forward).collect()
    }

    /// Those of a sandbox's published ports that netd answers itself: at `::1`, and at all IPv6 addresses of the host when
    /// the sandbox has none of its own.
    pub(super) fn relayed(&self, sandbox: &Sandbox) -> Vec<Relayed> {
        let Some(endpoint) = sandbox.gateway_endpoint() else { return Vec::new() };
        let modes =
            self.networks.get(&endpoint.network).map(|n| n.bridge.gateway_modes()).unwrap_or_default();
        let Some(ip) = endpoint.ip6.or(endpoint.ip).map(|ip| ip.addr()) else { return Vec::new() };
        if modes[usize::from(ip.is_ipv6())] == GatewayMode::Routed {
            return Vec::new();
        }
        let relayed = |m: &crate::endpoint::Mapping| {
            let SocketAddr::V6(host) = m.host else { return None };
            let taken = ip.is_ipv4() || host.ip().is_unspecified() || host.ip().is_loopback();
            let to = SocketAddr::new(ip, m.container_port);
            (taken && host.port() != 0 && m.transport.is_relayed()).then_some(Relayed {
                transport: m.transport,
                host,
                to,
            })
        };
        sandbox.ports.iter().filter_map(relayed).collect()
    }

    /// Containers of internal networks reach no published port, and are not to reach one by way of the relay.
    pub(super) fn refuse_internal(&mut self) {
        let internal: Vec<_> = self.networks.values().filter(|n| n.internal).collect();
        let refused = Refused {
            subnets: internal.iter().flat_map(|n| &n.subnets).map(|s| s.subnet).collect(),
            bridges: internal.iter().filter_map(|n| self.bases.get(&n.id)).map(|b| b.index).collect(),
        };
        self.ports.refuse(refused);
    }
}

/// The kernel routes nothing from or to it over an interface.
fn is_loopback6(ip: IpAddr) -> bool {
    ip == IpAddr::V6(Ipv6Addr::LOCALHOST)
}

/// What rules need to know of a network.
pub(super) fn segment(n: &Network) -> Segment {
    Segment {
        bridge: n.interface.clone(),
        subnets: n.subnets.iter().map(|s| s.subnet).collect(),
        internal: n.internal,
        icc: n.bridge.icc,
        masquerade: n.bridge.masquerade,
        gateway: n.bridge.gateway_modes(),
        snat: n.bridge.host_ip,
    }
}
