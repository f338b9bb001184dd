//! A container that runs while netd does not know it any more, or not all of its networks: netd's record of it was lost while
//! netd was away, and its interfaces with it.
//!
//! Part of the container's task, so nothing starts, ends, connects or disconnects meanwhile.

use davit_contracts::Kind;
use davit_contracts::network::{Drift, Endpoint, EndpointSpec, ListSandboxesRequest, Sandbox};

use super::files;
use super::network;
use super::record::Record;
use super::task::Task;
use crate::error::RuntimeError;
use crate::peers::{Peers, endpoints};
use crate::spec::check::{self, Network};

/// What netd lacks of a container that runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Lost {
    /// Nothing.
    Nothing,
    /// These endpoints.
    Some(Vec<Endpoint>),
    /// All: it does not know the container.
    Whole,
}

/// Compares a record with what netd has.
pub fn lost(record: &Record, alive: bool, known: &[Sandbox]) -> Lost {
    let holder = record.monitor.filter(|m| m.as_ref().is_alive());
    if !alive || !record.attached || holder.is_none() {
        return Lost::Nothing;
    }
    let Some(sandbox) = known.iter().find(|s| s.id == record.id()) else { return Lost::Whole };
    let there = |e: &&Endpoint| sandbox.endpoints.iter().any(|k| k.network_id == e.network_id);
    let gone: Vec<_> = record.container.endpoints.iter().filter(|e| !there(e)).cloned().collect();
    if gone.is_empty() { Lost::Nothing } else { Lost::Some(gone) }
}

/// All that netd has.
pub async fn known(peers: &Peers) -> Result<Vec<Sandbox>, RuntimeError> {
    let list = |channel| async move { endpoints(channel).list(ListSandboxesRequest {}).await };
    Ok(peers.network.call(list).await?.sandboxes)
}

/// What was asked for, with the addresses that the container has.
fn as_before(mut spec: EndpointSpec, had: &[Endpoint]) -> EndpointSpec {
    let Some(had) = had.iter().find(|e| e.network == spec.network || e.network_id == spec.network) else {
        return spec;
    };
    // The mac follows from the address unless one was asked for.
    for (asked, was) in
        [(&mut spec.ip, &had.ip), (&mut spec.ip6, &had.ip6), (&mut spec.interface, &had.interface)]
    {
        if asked.is_empty() {
            was.split('/').next().unwrap_or_default().clone_into(asked);
        }
    }
    spec
}

impl Task {
    /// Tells the networks that the container has lost; with `repair` puts it on them again.
    pub(super) async fn check_networks(&mut self, repair: bool) -> Result<Vec<Drift>, RuntimeError> {
        let lost = self.lacking().await?;
        let (gone, detail) = match &lost {
            Lost::Nothing => return Ok(Vec::new()),
            Lost::Some(gone) => (gone.clone(), "the container runs and is not on it"),
            Lost::Whole => (self.record.container.endpoints.clone(), "the container runs and has no network"),
        };
        let outcome = if repair { self.mend(lost).await } else { Ok(()) };
        let name = &self.record.container.name;
        let error = outcome.as_ref().err().map(|e| format!("{}: 'davit restart {name}' mends it", e.line()));
        let drift = |e: Endpoint| Drift {
            kind: "missing".to_owned(),
            object: format!("endpoint of {name} on {}", e.network),
            network: e.network,
            sandbox: name.clone(),
            detail: detail.to_owned(),
            repaired: repair && error.is_none(),
            error: error.clone().unwrap_or_default(),
        };
        Ok(gone.into_iter().map(drift).collect())
    }

    /// Puts the container on the networks that netd lost it on; whether there were any.
    pub(super) async fn reattach(&mut self) -> Result<bool, RuntimeError> {
        let lost = self.lacking().await?;
        let any = lost != Lost::Nothing;
        self.mend(lost).await?;
        Ok(any)
    }

    async fn lacking(&self) -> Result<Lost, RuntimeError> {
        let known = known(&self.engine.peers).await?;
        Ok(lost(&self.record, self.status().is_alive(), &known))
    }

    async fn mend(&mut self, lost: Lost) -> Result<(), RuntimeError> {
        let Network::Endpoints(specs) = check::network(&self.spec_of())? else { return Ok(()) };
        match lost {
            Lost::Nothing => Ok(()),
            Lost::Whole => self.attach_again(specs).await,
            Lost::Some(gone) => {
                for old in gone {
                    let Some(spec) = specs.iter().find(|s| s.network == old.network) else { continue };
                    let made = self.connect_again(spec, &old).await?;
                    self.replaced(&[old], &[made]);
                }
                Ok(())
            }
        }
    }

    async fn attach_again(&mut self, specs: Vec<EndpointSpec>) -> Result<(), RuntimeError> {
        let Some(holder) = self.record.monitor else { return Ok(()) };
        let (peers, had) = (&self.engine.peers, self.record.container.endpoints.clone());
        let ports = self.record.container.ports.clone();
        let wanted = specs.iter().cloned().map(|s| as_before(s, &had)).collect();
        let made = match network::attach(peers, &self.record, holder, wanted, ports.clone()).await {
            // Somebody has an address by now: another does when none was asked for.
            Err(RuntimeError::Peer(e)) if e.kind() == Kind::InUse => {
                network::attach(peers, &self.record, holder, specs, ports).await?
            }
            made => made?,
        };
        self.record.container.ports = made.ports;
        self.replaced(&had, &made.endpoints);
        Ok(())
    }

    async fn connect_again(&self, spec: &EndpointSpec, old: &Endpoint) -> Result<Endpoint, RuntimeError> {
        let (peers, id) = (&self.engine.peers, self.record.id());
        let before = as_before(spec.clone(), std::slice::from_ref(old));
        match network::connect(peers, id, &before).await {
            Err(RuntimeError::Peer(e)) if e.kind() == Kind::InUse => network::connect(peers, id, spec).await,
            made => made,
        }
    }

    /// Enters what an endpoint has become.
    fn replaced(&mut self, old: &[Endpoint], new: &[Endpoint]) {
        self.edit_hosts(|dir, own| {
            old.iter().try_for_each(|e| files::remove_own(dir, own, e))?;
            new.iter().try_for_each(|e| files::add_own(dir, own, e))
        });
        let all = &mut self.record.container.endpoints;
        all.retain(|e| !old.iter().any(|o| o.network_id == e.network_id));
        all.extend(new.iter().cloned());
        self.publish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_was_asked_for_stays_and_else_the_last_one_comes_back() {
        let had = [Endpoint {
            network: "n".into(),
            ip: "10.0.0.5/24".into(),
            interface: "eth1".into(),
            ..Endpoint::default()
        }];
        let spec = |network: &str, ip: &str| EndpointSpec {
            network: network.into(),
            ip: ip.into(),
            ..EndpointSpec::default()
        };
        let again = as_before(spec("n", ""), &had);
        assert_eq!(
            (again.ip.as_str(), again.ip6.as_str(), again.interface.as_str()),
            ("10.0.0.5", "", "eth1")
        );
        assert_eq!(as_before(spec("n", "10.0.0.9"), &had).ip, "10.0.0.9");
        assert_eq!(as_before(spec("other", ""), &had), spec("other", ""));
    }
}
