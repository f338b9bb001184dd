//! Policies of networks: set, kept, and made true of containers that come and go.

use std::path::Path;
use std::process::{Command, Stdio};

use davit_contracts::id::NetworkId;
use davit_contracts::network as proto;

use super::{Engine, EngineError, Listed};
use crate::driver::bridge;
use crate::endpoint::{Endpoint, Sandbox};
use crate::firewall::{Member, Policed};
use crate::netlink::conntrack::{self, Connection};
use crate::netlink::{Batch, Protocol, Socket, route};
use crate::network::{Driver, Network, Policy};

/// There where the kernel can hand packets from bridges to its packet filter.
const BRIDGE_FILTER: &str = "/proc/sys/net/bridge";

impl Engine {
    /// Replaces a network's policy. On an error it is as it was.
    pub fn set_policy(&mut self, request: &proto::SetPolicyRequest) -> Result<Listed, EngineError> {
        let before = self.find_network(&request.network)?.clone();
        if before.driver != Driver::Bridge {
            return Err(EngineError::NoPolicy(before.name, before.driver.name()));
        }
        let policy = Policy::parse(&request.rules, &request.default_action)?;
        if policy.is_some() {
            have_bridge_filter(&before)?;
        }
        let after = Network { policy, ..before.clone() };
        self.store.put(&[&after])?;
        match self.change_policy(&after) {
            Ok(()) => {
                self.forget_denied(&after);
                Ok(self.listed(&after, true))
            }
            Err(e) => {
                let undone = self.store.put(&[&before]).map_err(EngineError::from);
                if let Err(error) = undone.and_then(|()| self.change_policy(&before)) {
                    tracing::error!(network = %before.name, %error, "its former policy could not be restored");
                }
                Err(e)
            }
        }
    }

    fn change_policy(&mut self, network: &Network) -> Result<(), EngineError> {
        self.networks.insert(network.id.clone(), network.clone());
        self.members.retain(|_, (of, _)| *of != network.id);
        if network.policy.is_some() {
            self.filter_bridge(network, true)?;
            let members: Vec<_> = self
                .endpoints_of(&network.id)
                .filter_map(|(s, e)| Some((e.id.clone(), member(s, e)?)))
                .collect();
            self.members.extend(members.into_iter().map(|(id, m)| (id, (network.id.clone(), m))));
        }
        self.apply_policies()?;
        if network.policy.is_none() {
            self.filter_bridge(network, false)?;
        }
        Ok(())
    }

    /// Has the bridge hand its packets up, or stop it; nothing when there is none.
    pub(super) fn filter_bridge(&self, network: &Network, on: bool) -> Result<(), EngineError> {
        let mut batch = Batch::new();
        route::set_bridge_filter(&mut batch, &network.interface, on);
        match self.socket.run(&batch) {
            Err(e) if !e.is_missing() => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// The policies of networks that somebody is on.
    pub(super) fn policed(&self) -> Vec<Policed<'_>> {
        let mut networks = Vec::new();
        for network in self.networks.values() {
            let Some(policy) = &network.policy else { continue };
            let members: Vec<_> =
                self.members.values().filter(|(of, _)| *of == network.id).map(|(_, m)| m).collect();
            if !members.is_empty() {
                networks.push(Policed { bridge: &network.interface, policy, members });
            }
        }
        networks
    }

    /// Writes all policies anew.
    pub(super) fn apply_policies(&mut self) -> Result<(), EngineError> {
        let networks = self.policed();
        if networks.is_empty() && !self.policies {
            return Ok(());
        }
        let any = !networks.is_empty();
        self.firewall.police(&networks).map_err(EngineError::Firewall)?;
        self.policies = any;
        Ok(())
    }

    /// Makes a policy true of an endpoint before it is plugged in; nothing on a network without one.
    pub(super) fn police(&mut self, sandbox: &Sandbox, endpoint: &Endpoint) -> Result<(), EngineError> {
        let Some(network) = self.networks.get(&endpoint.network) else { return Ok(()) };
        if network.policy.is_none() {
            return Ok(());
        }
        have_bridge_filter(network)?;
        self.filter_bridge(network, true)?;
        let Some(member) = member(sandbox, endpoint) else { return Ok(()) };
        let first = !self.members.values().any(|(of, _)| *of == network.id);
        self.members.insert(endpoint.id.clone(), (endpoint.network.clone(), member));
        if first { self.apply_policies() } else { self.police_change(&endpoint.network, endpoint, true) }
    }

    /// Forgets an endpoint that is gone.
    pub(super) fn unpolice(&mut self, endpoint: &Endpoint) {
        if !self.members.contains_key(&endpoint.id) {
            return;
        }
        let outcome = self.police_change(&endpoint.network, endpoint, false);
        self.members.remove(&endpoint.id);
        let last = !self.members.values().any(|(of, _)| *of == endpoint.network);
        let outcome = outcome.and_then(|()| if last { self.apply_policies() } else { Ok(()) });
        if let Err(error) = outcome {
            tracing::warn!(endpoint.id = %endpoint.id, %error, "addresses of a gone endpoint are left in a policy");
        }
    }

    /// One member more or less: elements only. Everything is written again when somebody took the tables away.
    fn police_change(&mut self, id: &NetworkId, endpoint: &Endpoint, add: bool) -> Result<(), EngineError> {
        let (Some(network), Some((_, member))) = (self.networks.get(id), self.members.get(&endpoint.id))
        else {
            return Ok(());
        };
        let Some(policy) = &network.policy else { return Ok(()) };
        let one = Policed { bridge: &network.interface, policy, members: vec![member] };
        match self.firewall.police_one(&one, add) {
            Err(e) if e.is_missing() => {
                if !add {
                    self.members.remove(&endpoint.id);
                }
                self.apply_policies()
            }
            other => other.map_err(EngineError::Firewall),
        }
    }

    /// After a start: what is kept is policed again, all at once.
    pub(super) fn restore_policies(&mut self) -> Result<(), EngineError> {
        self.members.clear();
        let mut networks = Vec::new();
        for sandbox in self.sandboxes.values() {
            for endpoint in &sandbox.endpoints {
                let policed = self.networks.get(&endpoint.network).filter(|n| n.policy.is_some());
                if let (Some(network), Some(member)) = (policed, member(sandbox, endpoint)) {
                    networks.push(network.clone());
                    self.members.insert(endpoint.id.clone(), (network.id.clone(), member));
                }
            }
        }
        networks.dedup_by(|a, b| a.id == b.id);
        for network in &networks {
            self.filter_bridge(network, true)?;
        }
        self.apply_policies()
    }

    /// Forgets connections that a new policy denies: otherwise their answers would pass for as long as they last.
    fn forget_denied(&self, network: &Network) {
        let Some(policy) = &network.policy else { return };
        let labels = |ip| {
            let (_, member) = self
                .members
                .values()
                .find(|(of, member)| *of == network.id && member.addresses.contains(&ip))?;
            Some(&member.labels)
        };
        let denied = |c: &Connection| match (labels(c.original.source), labels(c.reply.source)) {
            (Some(from), Some(to)) => !policy.decide(from, to, c.reply.protocol, c.reply.source_port).0,
            _ => false,
        };
        let work = || {
            let socket = Socket::open(Protocol::Netfilter)?;
            let all = conntrack::all(&socket)?;
            all.iter().filter(|c| denied(c)).try_for_each(|c| conntrack::forget(&socket, c))
        };
        if let Err(error) = work() {
            tracing::warn!(network = %network.name, %error, "answers of connections that are denied now may still pass");
        }
    }
}

/// What a policy needs to know of an endpoint; `None` when it is not on a bridge.
fn member(sandbox: &Sandbox, endpoint: &Endpoint) -> Option<Member> {
    let addresses: Vec<_> = endpoint.addresses().map(|a| a.addr()).collect();
    let mac = endpoint.mac.or_else(|| addresses.first().map(|ip| bridge::mac_of(*ip)))?;
    endpoint.is_bridged().then(|| Member {
        port: endpoint.host_interface.clone(),
        mac,
        addresses,
        labels: sandbox.labels.clone(),
    })
}

/// Makes sure that the kernel can filter bridged packets; its module is loaded when it can be.
fn have_bridge_filter(network: &Network) -> Result<(), EngineError> {
    if Path::new(BRIDGE_FILTER).exists() {
        return Ok(());
    }
    let quiet = Stdio::null;
    let _ = Command::new("modprobe")
        .args(["-q", "br_netfilter"])
        .stdin(quiet())
        .stdout(quiet())
        .stderr(quiet())
        .status();
    if Path::new(BRIDGE_FILTER).exists() {
        return Ok(());
    }
    Err(EngineError::NoBridgeFilter(network.name.clone()))
}
