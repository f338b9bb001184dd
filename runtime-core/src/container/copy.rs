//! A container's files as the beginning of another container.
//!
//! ```text
//! running ── freeze ── snapshot copied, anonymous volumes copied ── thaw ── running      whatever becomes of the copies
//! ```
//!
//! Part of the source's task: nothing is started, stopped or removed meanwhile. That it was we who froze it is on record before, so that
//! a runtimed that finds it frozen after a crash thaws it ([`Task::adopt`]). What the copies are for is the clone's task's business, and
//! so is undoing them.

use std::collections::HashMap;

use davit_contracts::runtime::{ContainerSpec, MountPoint};
use davit_contracts::storage::{ForkRequest, ImageConfig, PrepareResponse};
use davit_wire::{FailureKind, Request};

use super::state::{Ask, Status, judge};
use super::task::Task;
use super::volumes;
use crate::error::RuntimeError;
use crate::peers::{Peers, snapshots};

/// A copy as it is asked for.
#[derive(Debug, Clone)]
pub struct Copying {
    /// The clone's id, which its snapshot has as its key.
    pub id: String,
    /// As the clone was asked for.
    pub spec: ContainerSpec,
    /// Freeze it if it runs.
    pub freeze: bool,
    /// On disk before the answer.
    pub durable: bool,
}

/// What was copied.
#[derive(Debug)]
pub struct Copied {
    /// How the clone's root is mounted, and its image.
    pub root: PrepareResponse,
    /// The clone's binds and volumes.
    pub points: Vec<MountPoint>,
    /// The image's defaults when the source was made.
    pub image: ImageConfig,
}

impl Task {
    /// Copies what it has now.
    pub(super) async fn copy_files(&mut self, wish: Copying) -> Result<Copied, RuntimeError> {
        let name = &self.record.container.name;
        judge(Ask::Clone, self.status(), name).map_err(RuntimeError::WrongState)?;
        let frozen = wish.freeze && self.status() == Status::Running && self.monitor.is_some();
        if frozen {
            self.hold_still().await?;
        }
        let copied = self.copy(&wish).await;
        if frozen {
            self.thaw().await;
        }
        copied
    }

    async fn hold_still(&mut self) -> Result<(), RuntimeError> {
        self.record.copying = true;
        self.publish();
        self.save();
        match self.request(Request::Pause).await {
            // Where it is in no state for that, its end has not been looked at yet: it holds still as it is.
            Ok(_) | Err(RuntimeError::Monitor { kind: FailureKind::WrongState, .. }) => Ok(()),
            Err(e) => {
                self.record.copying = false;
                self.publish();
                let why = e.line();
                Err(RuntimeError::Unsupported(format!(
                    "container {} cannot be frozen: {why}: --pause=false copies its files while it goes on",
                    self.record.container.name
                )))
            }
        }
    }

    /// Lets it go on. A program that has ended needs no thawing, and a monitor that is gone is found out of by its connection.
    pub(super) async fn thaw(&mut self) {
        if let Err(e) = self.request(Request::Resume).await {
            tracing::warn!(container.id = self.record.short(), error = e.line(), "it could not be thawed");
        }
        self.record.copying = false;
        self.publish();
    }

    async fn copy(&self, wish: &Copying) -> Result<Copied, RuntimeError> {
        let peers = &self.engine.peers;
        let process = self.record.process.filter(|_| self.status().is_alive());
        let request = ForkRequest {
            key: wish.id.clone(),
            source: self.record.id().to_owned(),
            labels: [("davit.owner".to_owned(), "runtimed".to_owned())].into(),
            pid: process.map_or(0, |p| p.pid),
            pid_start_ticks: process.map_or(0, |p| p.start_time),
            durable: wish.durable,
        };
        let root = fork(peers, request).await?;
        let image = self.record.image.clone();
        let from = anonymous(&wish.spec, &self.record.container.mount_points);
        let points = volumes::resolve(peers, &wish.id, &wish.spec, &image, &from).await?;
        Ok(Copied { root, points, image })
    }
}

async fn fork(peers: &Peers, request: ForkRequest) -> Result<PrepareResponse, RuntimeError> {
    let call = |channel| {
        let request = request.clone();
        async move { snapshots(channel).fork(request).await }
    };
    peers.storage.call(call).await
}

/// The source's volumes that nobody named, by where they are mounted.
fn anonymous(spec: &ContainerSpec, points: &[MountPoint]) -> HashMap<String, String> {
    let named = |target: &str| {
        spec.mounts.iter().any(|m| {
            crate::spec::merge::clean(&m.target) == target && (m.r#type != "volume" || !m.source.is_empty())
        })
    };
    let volumes = points.iter().filter(|p| p.r#type == "volume" && !named(&p.target));
    volumes.map(|p| (p.target.clone(), p.name.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use davit_contracts::runtime::MountSpec;

    #[test]
    fn only_volumes_that_nobody_named_are_copied() {
        let spec_of = |kind: &str, source: &str, target: &str| MountSpec {
            r#type: kind.into(),
            source: source.into(),
            target: target.into(),
            ..MountSpec::default()
        };
        let point = |name: &str, target: &str| MountPoint {
            r#type: "volume".into(),
            name: name.into(),
            target: target.into(),
            ..MountPoint::default()
        };
        let spec = ContainerSpec {
            mounts: vec![spec_of("volume", "mine", "/named/"), spec_of("volume", "", "/asked")],
            ..ContainerSpec::default()
        };
        let points = [point("mine", "/named"), point("r1", "/asked"), point("r2", "/of-image")];
        let mut found: Vec<_> = anonymous(&spec, &points).into_iter().collect();
        found.sort();
        assert_eq!(found, [("/asked".into(), "r1".into()), ("/of-image".into(), "r2".to_owned())]);
    }
}
