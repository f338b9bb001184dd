//! Finding everything again after a start: containers, journaled removals, and what nobody owns.
//!
//! Containers are adopted side by side before the daemon says that it is ready; nothing in that waits for storaged or netd. Removals and
//! orphans are finished behind it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use davit_contracts::network::ListSandboxesRequest;
use davit_contracts::runtime::{Container, State};
use davit_contracts::storage::ListSnapshotsRequest;
use davit_sys::process::ProcessRef;
use davit_wire::MonitorConfig;
use tokio::task::JoinSet;

use super::Engine;
use crate::container::dirs::RunDir;
use crate::container::leftovers::Leftovers;
use crate::container::network;
use crate::container::record::Record;
use crate::container::remove::{MARKER, Removing, Teardown, recorded_monitor, remove_snapshot};
use crate::container::task::{Flow, Task};
use crate::error::RuntimeError;
use crate::monitor::link::connect;
use crate::peers::{endpoints, snapshots};

impl Engine {
    /// Adopts every container on record, and leaves removals and orphans to tasks behind it.
    pub async fn boot(self: &Arc<Self>) {
        let rebooted = boot_marker(&self.dirs.run);
        let mut removals = Vec::new();
        let mut adopted = JoinSet::new();
        for dir in directories(&self.dirs.containers()) {
            match Record::load(&dir) {
                Ok(record) if !dir.join(MARKER).exists() => self.adopt(record, rebooted, &mut adopted),
                Ok(_) => removals.push(dir),
                Err(_) if dir.join(MARKER).exists() => removals.push(dir),
                Err(RuntimeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    tracing::warn!(path = %dir.display(), "a container that was never finished is removed");
                    removals.push(dir);
                }
                Err(e) => self.keep_damaged(&dir, &e),
            }
        }
        while adopted.join_next().await.is_some() {}
        removals.extend(directories(&self.dirs.trash()));
        for dir in removals {
            // Its processes may still be there.
            if let Ok(record) = Record::load(&dir) {
                self.registry.hold_ids(record.id(), record.host_ids());
            }
            let engine = Arc::clone(self);
            tokio::spawn(async move { engine.finish_removal(dir).await });
        }
        let engine = Arc::clone(self);
        tokio::spawn(async move { engine.clear_orphans().await });
        tracing::info!(containers = self.registry.all().len(), "containers found again");
    }

    /// A container whose record cannot be read: what it has is left alone until a person removes it. The record may be readable again
    /// with the next start, so it is not written.
    fn keep_damaged(self: &Arc<Self>, dir: &Path, why: &RuntimeError) {
        let id = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        tracing::error!(
            container.id = id,
            error = why.line(),
            "a record cannot be read: its container is left as it is"
        );
        if !is_id(&id) {
            return;
        }
        let wanted = format!("{}-damaged", &id[..12]);
        let Ok(name) = self.registry.reserve(&wanted, &id) else { return };
        let state = State { status: "dead".into(), error: why.line(), ..State::default() };
        let container = Container { id, name, state: Some(state), ..Container::default() };
        let (task, handle) = Task::new(
            Arc::clone(self),
            Record { container, attached: true, volumes: true, ..Record::default() },
        );
        self.registry.insert(handle);
        tokio::spawn(task.run());
    }

    fn adopt(self: &Arc<Self>, record: Record, rebooted: bool, adopted: &mut JoinSet<()>) {
        let id = record.id().to_owned();
        // Two records with one name can only come from a crash in the middle of a rename; the second gets a new one.
        let name =
            self.registry.reserve(&record.container.name, &id).or_else(|_| self.registry.reserve("", &id));
        let mut record = record;
        match name {
            Ok(name) => record.container.name = name,
            Err(e) => {
                tracing::error!(container.id = id, error = e.line(), "cannot take a container back");
                return;
            }
        }
        self.registry.hold_ids(&id, record.host_ids());
        if let Some(pod) = &mut record.pod {
            let name =
                self.registry.reserve_pod(&pod.name, &id).or_else(|_| self.registry.reserve_pod("", &id));
            pod.name = name.unwrap_or_default();
        }
        let (mut task, handle) = Task::new(Arc::clone(self), record);
        self.registry.insert(handle);
        adopted.spawn(async move {
            if task.adopt().await == Flow::On {
                task.resume_policy(rebooted);
                tokio::spawn(task.run());
            } else {
                tokio::spawn(task.into_teardown());
            }
        });
    }

    /// Finishes a removal that was journaled before we started.
    async fn finish_removal(&self, dir: PathBuf) {
        let id = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let marker: Removing =
            fs::read(dir.join(MARKER)).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
        let old = Record::load(&dir).ok();
        let mut teardown = self.teardown_of(&id, old.as_ref()).await;
        // Without a record nobody ever saw it, nor its anonymous volumes.
        teardown.release = Some(marker.volumes || old.is_none());
        teardown.directory = Some(dir);
        teardown.finish(self).await;
    }

    /// Everything that a container may have outside of its durable directory.
    async fn teardown_of(&self, id: &str, old: Option<&Record>) -> Teardown {
        let run = self.dirs.run_dir(id);
        let mut teardown = Teardown {
            id: id.to_owned(),
            detach: true,
            snapshot: true,
            run_dir: run.path().exists(),
            ..Teardown::default()
        };
        if teardown.run_dir || old.is_some_and(|r| r.process.is_some()) {
            match connect(&run.socket()).await {
                Ok(connected) => teardown.monitor = Some(connected.into()),
                Err(_) => teardown.leftovers = Some(Self::leftovers_of(id, &run, old)),
            }
        }
        teardown
    }

    fn leftovers_of(id: &str, run: &RunDir, old: Option<&Record>) -> Leftovers {
        let config = monitor_config(run);
        let spec = old.and_then(|r| r.container.spec.as_ref());
        Leftovers {
            id: id.to_owned(),
            process: old.and_then(|r| r.process),
            monitor: recorded_monitor(run).or(old.and_then(|r| r.monitor)),
            runtime: config.map(|c| (c.runtime, run.runtime_root())),
            cgroup_parent: spec.map(|s| s.cgroup_parent.clone()).unwrap_or_default(),
        }
    }

    /// Ends monitors, detaches sandboxes and removes snapshots that no container names.
    async fn clear_orphans(&self) {
        for dir in directories(&self.dirs.run) {
            let run = RunDir(dir);
            let id = monitor_config(&run).map(|c| c.container_id).unwrap_or_default();
            if id.is_empty() {
                // Made, but not even a monitor's configuration was written.
                let known = self.registry.all().iter().any(|h| self.dirs.run_dir(&h.id) == run);
                let own = run.path().file_name().is_some_and(|n| n.len() == 16);
                if !known && own {
                    let _ = crate::container::remove::remove_run_dir(&run);
                }
            } else if !self.registry.knows(&id) && !self.dirs.trashed(&id).exists() {
                tracing::info!(container.id = id, "removing a container that was never finished");
                let mut teardown = self.teardown_of(&id, None).await;
                teardown.release = Some(true);
                teardown.finish(self).await;
            }
        }
        let mut wait = Duration::from_secs(1);
        while let Err(e) = self.clear_peers().await {
            tracing::debug!(error = e.line(), "orphans are looked for again");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(60));
        }
    }

    async fn clear_peers(&self) -> Result<(), RuntimeError> {
        // Lists first, the registry after: what is made meanwhile has its name reserved before it is prepared.
        let list = |channel| async move { snapshots(channel).list(ListSnapshotsRequest {}).await };
        let found = self.peers.storage.call(list).await?.snapshots;
        let ours = |s: &davit_contracts::storage::Snapshot| {
            s.labels.get("davit.owner").is_some_and(|owner| owner == "runtimed")
        };
        for snapshot in found.iter().filter(|s| ours(s) && !self.owns(&s.key)) {
            tracing::info!(snapshot.key = snapshot.key, "removing a snapshot that no container names");
            remove_snapshot(self, &snapshot.key).await?;
        }
        let list = |channel| async move { endpoints(channel).list(ListSandboxesRequest {}).await };
        let found = self.peers.network.call(list).await?.sandboxes;
        for sandbox in found.iter().filter(|s| is_id(&s.id) && !self.owns(&s.id)) {
            // Others may attach sandboxes too; only those whose holder is dead are nobody's.
            let holder = sandbox.holder.clone().unwrap_or_default();
            let process = ProcessRef { pid: holder.pid, start_time: holder.start_time };
            // Who names a namespace by its path has no container of ours.
            let alive = !holder.netns.is_empty() || process.is_alive();
            if !alive {
                tracing::info!(sandbox.id = sandbox.id, "detaching a sandbox that no container names");
                network::detach(&self.peers, &sandbox.id).await?;
            }
        }
        Ok(())
    }

    /// Whether a container, also one being removed, answers for this id.
    fn owns(&self, id: &str) -> bool {
        self.registry.knows(id) || self.dirs.trashed(id).exists()
    }
}

/// Whether the machine has booted since a runtimed last ran here, and leaves a note of this boot. The run directory is empty after a
/// boot, or, where it is on a disk, names another one.
fn boot_marker(run: &std::path::Path) -> bool {
    let path = run.join("boot");
    let now = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let noted = fs::read_to_string(&path).ok();
    if noted.as_ref() == Some(&now) {
        return false;
    }
    // A run directory of before this note was kept has containers in it.
    let rebooted = noted.is_some() || directories(run).is_empty();
    if let Err(error) = fs::write(&path, now) {
        tracing::warn!(path = %path.display(), %error, "the next start of this daemon will count as a boot");
    }
    rebooted
}

fn is_id(text: &str) -> bool {
    davit_contracts::id::ContainerId::parse(text).is_ok()
}

fn monitor_config(run: &RunDir) -> Option<MonitorConfig> {
    serde_json::from_slice(&fs::read(run.monitor_config()).ok()?).ok()
}

fn directories(path: &Path) -> BTreeSet<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return BTreeSet::new() };
    entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_are_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("b"), "").unwrap();
        assert_eq!(directories(dir.path()).len(), 1);
        assert!(directories(&dir.path().join("missing")).is_empty());
        assert!(Record::load(dir.path()).is_err());
    }
}
