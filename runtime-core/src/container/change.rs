//! Changes of a container that is there, alive or not: its name, its networks.
//!
//! Part of the container's task, which owns the record. netd is asked first; what it refused is not recorded.

use std::path::Path;

use davit_contracts::Kind;
use davit_contracts::network::EndpointSpec;
use davit_contracts::runtime::NetworkSpec;

use super::files::{self, Own};
use super::network;
use super::state::{Ask, judge};
use super::task::Task;
use crate::engine::Engine;
use crate::error::RuntimeError;
use crate::pod::{self, PodRecord};
use crate::spec::check::{self, Network};

impl Task {
    /// Another name, under which it resolves at once when it is attached to networks.
    pub(super) async fn rename(&mut self, name: &str) -> Result<(), RuntimeError> {
        judge(Ask::Rename, self.status(), &self.record.container.name).map_err(RuntimeError::WrongState)?;
        Engine::not_a_pod(&self.record, "renamed")?;
        let old = self.record.container.name.clone();
        if name.strip_prefix('/').unwrap_or(name) == old {
            return Err(RuntimeError::Invalid(
                "renaming a container with the same name as its current name".into(),
            ));
        }
        let id = self.record.id().to_owned();
        let name = self.engine.registry.rename(&id, name)?;
        if self.record.attached {
            match network::rename(&self.engine.peers, &id, &name).await {
                // Not known there: its end is just being dealt with.
                Ok(endpoints) if endpoints.is_empty() => {}
                Ok(endpoints) => self.record.container.endpoints = endpoints,
                Err(e) => {
                    self.engine.registry.rename(&id, &old)?;
                    return Err(e);
                }
            }
        }
        self.record.container.name = name;
        self.publish();
        self.save();
        self.emit("rename", &[("oldName", old)]);
        Ok(())
    }

    /// It shares a pod's namespaces from its next start on, and has no network of its own any more.
    pub(super) fn join_pod(&mut self, pod: &str, record: &PodRecord) -> Result<(), RuntimeError> {
        let name = self.record.container.name.clone();
        let mut spec = self.spec_of();
        if spec.pod == pod {
            return Ok(());
        }
        if !spec.pod.is_empty() && self.engine.pod_find(&spec.pod).is_ok() {
            return Err(RuntimeError::WrongState(format!("container {name} is in another pod already")));
        }
        judge(Ask::Start, self.status(), &name).map_err(RuntimeError::WrongState)?;
        if self.record.held || self.status().is_alive() {
            return Err(RuntimeError::WrongState(format!(
                "container {name} is running: stop it before it is added to a pod"
            )));
        }
        // Which networks it was on is given up with them; what it publishes is not given up in silence.
        if let Some(network) = spec.network.as_mut().filter(|n| record.shared.net && n.ports.is_empty()) {
            *network = NetworkSpec::default();
        }
        if record.shared.uts {
            spec.hostname.clear();
        }
        pod::join(&mut spec, pod, record)?;
        self.record.container.hostname = self.engine.hostname(&spec, self.record.id())?;
        self.record.container.spec = Some(spec);
        self.publish();
        self.save();
        Ok(())
    }

    /// One more network, now and at every start.
    pub(super) async fn connect(&mut self, mut endpoint: EndpointSpec) -> Result<(), RuntimeError> {
        let name = self.record.container.name.clone();
        judge(Ask::Connect, self.status(), &name).map_err(RuntimeError::WrongState)?;
        let spec = self.record.container.spec.get_or_insert_default();
        let Network::Endpoints(mut list) = check::network(spec)? else {
            return Err(RuntimeError::Invalid(format!(
                "container {name} has no network of its own (host, none or container mode): it cannot be connected"
            )));
        };
        self.engine.links(&mut endpoint)?;
        let (id, network) = network::lookup(&self.engine.peers, &endpoint.network).await?;
        if matches!(network.as_str(), "none" | "host") {
            return Err(RuntimeError::Invalid(format!(
                "container {name} cannot be connected to network {network}: it is for containers without networks of their own"
            )));
        }
        if self.place_of(&list, &id, &network).await.is_some() {
            // It may be on record here only: netd lost it, and the container has no such interface.
            if self.status().is_alive() && self.reattach().await? {
                return Ok(());
            }
            return Err(RuntimeError::Peer(Box::new(davit_contracts::Error::new(
                Kind::AlreadyExists,
                format!("endpoint with name {name} already exists in network {network}"),
            ))));
        }
        if self.status().is_alive() {
            let made = match network::connect(&self.engine.peers, self.record.id(), &endpoint).await {
                Err(RuntimeError::Peer(e)) if e.kind() == Kind::NotFound && self.reattach().await? => {
                    network::connect(&self.engine.peers, self.record.id(), &endpoint).await?
                }
                made => made?,
            };
            self.edit_hosts(|dir, own| files::add_own(dir, own, &made));
            self.emit_networks("connect", std::slice::from_ref(&made));
            self.record.container.endpoints.push(made);
        }
        list.push(EndpointSpec { network, ..endpoint });
        self.set_endpoints(list);
        Ok(())
    }

    /// One network less, now and at every start.
    pub(super) async fn disconnect(&mut self, network: &str, force: bool) -> Result<(), RuntimeError> {
        let name = self.record.container.name.clone();
        judge(Ask::Connect, self.status(), &name).map_err(RuntimeError::WrongState)?;
        let not_there =
            || RuntimeError::Invalid(format!("container {name} is not connected to network {network}"));
        let Network::Endpoints(mut list) =
            check::network(&self.record.container.spec.clone().unwrap_or_default())?
        else {
            return Err(not_there());
        };
        let (id, canonical) = match network::lookup(&self.engine.peers, network).await {
            // Nothing but the spec knows of a network that was removed while the container was stopped.
            Err(RuntimeError::Peer(e)) if e.kind() == Kind::NotFound && !self.status().is_alive() => {
                let Some(at) = list.iter().position(|e| e.network == network) else {
                    return Err(RuntimeError::Peer(e));
                };
                list.remove(at);
                self.set_endpoints(list);
                return Ok(());
            }
            found => found?,
        };
        let at = self.place_of(&list, &id, &canonical).await.ok_or_else(not_there)?;
        list.remove(at);
        if self.status().is_alive() {
            match network::disconnect(&self.engine.peers, self.record.id(), &id, force).await {
                // netd lost it: there is nothing but the record to take away.
                Err(RuntimeError::Peer(e)) if e.kind() == Kind::NotFound => {}
                done => done?,
            }
            for gone in self.record.container.endpoints.iter().filter(|e| e.network_id == id) {
                self.edit_hosts(|dir, own| files::remove_own(dir, own, gone));
                self.emit_networks("disconnect", std::slice::from_ref(gone));
            }
        }
        self.record.container.endpoints.retain(|e| e.network_id != id);
        self.set_endpoints(list);
        Ok(())
    }

    /// Which of the connections is the one to a network. A record of before names had to be written may have an id, or the
    /// beginning of one, which netd is asked about: a network may be called as another's id begins.
    async fn place_of(&self, list: &[EndpointSpec], id: &str, name: &str) -> Option<usize> {
        if let Some(at) = list.iter().position(|e| e.network == name || e.network == id) {
            return Some(at);
        }
        for (at, endpoint) in list.iter().enumerate().filter(|(_, e)| id.starts_with(&e.network)) {
            let meant = network::lookup(&self.engine.peers, &endpoint.network).await;
            if meant.is_ok_and(|(meant, _)| meant == id) {
                return Some(at);
            }
        }
        None
    }

    /// Finds the networks that a new container is to be on.
    pub async fn look_networks_up(&mut self) -> Result<(), RuntimeError> {
        let Network::Endpoints(list) = check::network(&self.spec_of())? else { return Ok(()) };
        let mut names = Vec::new();
        for endpoint in list {
            let (_, name) = network::lookup(&self.engine.peers, &endpoint.network).await?;
            if names.iter().any(|(_, other)| *other == name) {
                return Err(RuntimeError::Invalid(format!("the network {name} is given twice")));
            }
            names.push((endpoint.network, name));
        }
        self.settle_networks(&names);
        Ok(())
    }

    /// Enters the names of networks, found for the texts they were asked for by.
    fn settle_networks(&mut self, names: &[(String, String)]) {
        let asked = self.record.container.spec.get_or_insert_default().network.get_or_insert_default();
        network::settle(asked, |text| {
            names.iter().find(|(asked, _)| asked == text).map(|(_, name)| name.clone())
        });
    }

    /// Changes what a living container's /etc/hosts says of itself. The connection stands whether or not that succeeds.
    pub(super) fn edit_hosts(&self, edit: impl FnOnce(&Path, Own<'_>) -> Result<(), RuntimeError>) {
        let container = &self.record.container;
        let domainname = container.spec.as_ref().map_or("", |s| s.domainname.as_str());
        let own = Own { hostname: &container.hostname, domainname };
        if let Err(error) = edit(self.engine.dirs.run_dir(self.record.id()).path(), own) {
            tracing::warn!(container.id = %self.record.id(), %error, "/etc/hosts does not follow the container's networks");
        }
    }

    fn set_endpoints(&mut self, list: Vec<EndpointSpec>) {
        let network = self.record.container.spec.get_or_insert_default().network.get_or_insert_default();
        // The asked mode stays when nothing is left: 'none' would be for good.
        if let Some(first) = list.first() {
            network.mode.clone_from(&first.network);
        }
        network.disconnected = list.is_empty();
        network.endpoints = list;
        self.publish();
    }
}
