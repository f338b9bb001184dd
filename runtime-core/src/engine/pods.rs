//! Pods by name and id, and what is done to a pod as a whole.

use std::sync::Arc;

use davit_contracts::runtime::{Container, ContainerSpec, CreatePodRequest, Pod};
use futures::future::join_all;

use super::Engine;
use super::create::Created;
use crate::container::handle::{Command, Handle};
use crate::container::record::Record;
use crate::error::RuntimeError;
use crate::pod::{self, PodRecord, Shared};

impl Engine {
    /// Makes a pod: its infra container, not started. Answers the infra container's id with the pod's name.
    pub async fn pod_create(self: &Arc<Self>, request: CreatePodRequest) -> Result<Created, RuntimeError> {
        let shared = Shared::parse(&request.shared)?;
        let network = request.network.clone().unwrap_or_default();
        if !shared.net && (!network.ports.is_empty() || !network.endpoints.is_empty()) {
            return Err(RuntimeError::Invalid(
                "conflicting options: a pod that does not share its network has no ports and networks".into(),
            ));
        }
        let record = PodRecord { name: request.name.clone(), shared };
        let made = self.create_pod(pod::infra(request), record).await?;
        self.pod_event("create", &made.id, &made.name);
        Ok(made)
    }

    /// The infra container of a pod.
    pub fn pod_find(&self, text: &str) -> Result<(Handle, PodRecord), RuntimeError> {
        let handle = self.registry.find_pod(text)?;
        let pod = handle.view().record.pod.clone().unwrap_or_default();
        Ok((handle, pod))
    }

    /// Rewrites the spec of a container that is made in a pod.
    pub(super) fn join_pod(&self, spec: &mut ContainerSpec) -> Result<(), RuntimeError> {
        if spec.pod.is_empty() {
            return Ok(());
        }
        let (infra, record) = self.pod_find(&spec.pod)?;
        pod::join(spec, &infra.id, &record)
    }

    /// Puts a container that does not run into a pod.
    pub async fn pod_add(&self, pod: &str, container: &str) -> Result<(), RuntimeError> {
        let (infra, record) = self.pod_find(pod)?;
        let handle = self.registry.find(container)?;
        if handle.id == infra.id {
            return Err(RuntimeError::Invalid(format!("{container} is the infra container of this pod")));
        }
        handle.ask(|answer| Command::JoinPod { pod: infra.id.clone(), record, answer }).await
    }

    /// Starts the infra container unless it runs.
    pub async fn pod_up(&self, pod: &str) -> Result<Vec<String>, RuntimeError> {
        let (infra, _) = self.pod_find(pod)?;
        if infra.view().status().is_alive() {
            return Ok(Vec::new());
        }
        match infra.ask(|answer| Command::Start { hold: false, answer }).await {
            Ok(started) => Ok(started.warnings),
            // Another member was faster.
            Err(_) if infra.view().status().is_alive() => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    /// The containers of a pod, oldest first, without the infra container.
    pub fn pod_members(&self, pod: &str) -> Vec<Handle> {
        let is_member = |h: &Handle| {
            let view = h.view();
            !view.gone && view.record.container.spec.as_ref().is_some_and(|s| s.pod == pod)
        };
        let mut members: Vec<Handle> = self.registry.all().into_iter().filter(is_member).collect();
        members.sort_by_key(|h| h.view().record.container.created_unix_ns);
        members
    }

    /// As clients see it.
    pub fn pod_view(&self, infra: &Handle, record: &PodRecord) -> Pod {
        let own = infra.view().record;
        let members: Vec<Container> =
            self.pod_members(&infra.id).iter().map(|h| h.view().record.container.clone()).collect();
        Pod {
            id: infra.id.clone(),
            name: record.name.clone(),
            status: pod::status(&own, &members).to_owned(),
            created_unix_ns: own.container.created_unix_ns,
            labels: own.container.spec.as_ref().map(|s| s.labels.clone()).unwrap_or_default(),
            shared: record.shared.words(),
            infra: Some(own.container.clone()),
            containers: members,
        }
    }

    /// All pods, newest first.
    pub fn pods(&self) -> Vec<Pod> {
        let all = self.registry.all();
        let of = |h: &Handle| {
            let view = h.view();
            let record = view.record.pod.clone().filter(|_| !view.gone)?;
            Some(self.pod_view(h, &record))
        };
        let mut pods: Vec<Pod> = all.iter().filter_map(of).collect();
        pods.sort_by_key(|p| std::cmp::Reverse(p.created_unix_ns));
        pods
    }

    /// Removes a pod with its containers.
    pub async fn pod_remove(&self, text: &str, force: bool) -> Result<String, RuntimeError> {
        let (infra, record) = self.pod_find(text)?;
        let members = self.pod_members(&infra.id);
        let running = members.iter().filter(|h| h.view().status().is_alive()).count();
        if running > 0 && !force {
            return Err(RuntimeError::WrongState(format!(
                "pod {} has {running} running containers: stop them before removing or force remove",
                record.name
            )));
        }
        let removed = join_all(members.iter().map(|h| self.remove_one(h, force, true))).await;
        removed.into_iter().collect::<Result<(), _>>()?;
        self.remove_one(&infra, true, true).await?;
        self.pod_event("remove", &infra.id, &record.name);
        Ok(infra.id)
    }

    /// A container cannot be removed, renamed or cloned as the pod that it is.
    pub(crate) fn not_a_pod(record: &Record, what: &str) -> Result<(), RuntimeError> {
        match &record.pod {
            Some(pod) => Err(RuntimeError::WrongState(format!(
                "container {} is the infra container of pod {} and cannot be {what} by itself: see 'davit pod'",
                record.container.name, pod.name
            ))),
            None => Ok(()),
        }
    }

    fn pod_event(&self, action: &str, id: &str, name: &str) {
        self.events.emit("pod", action, id, [("name".to_owned(), name.to_owned())].into());
    }
}
