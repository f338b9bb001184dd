//! Undoing what a container has outside of runtimed, step by step, each repeated until it is done.
//!
//! Steps that failed are tried again; a step that others depend on holds those back: the run directory and the snapshot wait for the
//! monitor's end, the journal entry in `trash/` goes last.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use davit_contracts::storage::RemoveSnapshotRequest;
use davit_wire::Request;
use rustix::process::{Signal, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::dirs::RunDir;
use super::leftovers::{self, Leftovers};
use super::record::ProcessRecord;
use super::task::Monitor;
use super::{network, volumes};
use crate::engine::Engine;
use crate::error::{RuntimeError, io_error};
use crate::failpoint;
use crate::peers::snapshots;
use crate::readable;

/// How long a monitor may go on sending output to slow clients after it was told to end.
const DRAIN: Duration = Duration::from_secs(60);
/// How long a removal waits for storaged before it is acknowledged.
const SOON: Duration = Duration::from_secs(1);
/// How long it waits for netd, whose plugins may take a minute.
const NETWORK_SOON: Duration = Duration::from_secs(3);
/// How long an attempt of the container's own task waits for each daemon: meanwhile the task does nothing else.
pub const BRIEFLY: Duration = NETWORK_SOON;
/// How long one does that somebody has to wait for, or that nobody waits for: as long as the daemon may still answer.
pub const PATIENTLY: Duration = Duration::MAX;
/// The marker of a journaled removal, inside the container's directory.
pub const MARKER: &str = "removing.json";

/// What the marker says.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Removing {
    /// Anonymous volumes go too.
    pub volumes: bool,
}

/// What is still to be undone.
#[derive(Debug, Default)]
pub struct Teardown {
    /// The container's id.
    pub id: String,
    /// Parent of the container's cgroups.
    pub cgroup_parent: String,
    /// A monitor to tell that it may go.
    pub monitor: Option<Monitor>,
    /// What a monitor that died may have left.
    pub leftovers: Option<Leftovers>,
    /// netd holds an attachment.
    pub detach: bool,
    /// There is a run directory.
    pub run_dir: bool,
    /// storaged holds volumes for it; true: anonymous ones are removed.
    pub release: Option<bool>,
    /// There is a snapshot.
    pub snapshot: bool,
    /// The durable directory to delete at the very end.
    pub directory: Option<PathBuf>,
}

impl Teardown {
    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.monitor.is_none()
            && self.leftovers.is_none()
            && !self.detach
            && !self.run_dir
            && self.release.is_none()
            && !self.snapshot
            && self.directory.is_none()
    }

    /// Tries every step that is still to be done, goes on after errors and answers them all. A daemon that does not answer within
    /// `patience` is an error too.
    pub async fn attempt(&mut self, engine: &Engine, patience: Duration) -> Vec<RuntimeError> {
        let mut errors = Vec::new();
        if let Some(left) = self.leftovers.clone() {
            let cleared = tokio::task::spawn_blocking(move || leftovers::clear(&left)).await;
            match cleared.unwrap_or_else(|e| Err(io::Error::other(e))) {
                Ok(()) => self.leftovers = None,
                Err(e) => errors.push(io_error("clear the cgroup of", Path::new(&self.id))(e)),
            }
        }
        if self.detach {
            match timeout(patience, network::detach(&engine.peers, &self.id)).await {
                Ok(Ok(())) => self.detach = false,
                Ok(Err(e)) => errors.push(e),
                Err(_) => errors.push(RuntimeError::PeerLate { daemon: "netd", patience }),
            }
            failpoint::pass("teardown.detached");
        }
        if let Some(monitor) = self.monitor.take() {
            // It ends also when nobody waits for that any more: a start that is cut short does not.
            let _ = tokio::spawn(end(monitor)).await;
            failpoint::pass("teardown.monitor");
            // An OCI runtime that fails to delete leaves them.
            let (parent, id) = (self.cgroup_parent.clone(), self.id.clone());
            let _ = tokio::task::spawn_blocking(move || leftovers::clear_cgroups(&parent, &id)).await;
        }
        if self.run_dir && self.leftovers.is_none() {
            let run = engine.dirs.run_dir(&self.id);
            match remove_run_dir(&run) {
                Ok(()) => {
                    self.run_dir = false;
                    failpoint::pass("teardown.run_dir");
                }
                Err(e) => errors.push(io_error("remove", run.path())(e)),
            }
        }
        if self.leftovers.is_none() {
            let freed = timeout(patience, self.storage(engine, &mut errors)).await;
            if freed.is_err() {
                errors.push(RuntimeError::PeerLate { daemon: "storaged", patience });
            }
        }
        if errors.is_empty()
            && let Some(dir) = &self.directory
        {
            match remove_tree(dir) {
                Ok(()) => {
                    self.directory = None;
                    failpoint::pass("teardown.done");
                }
                Err(e) => errors.push(io_error("remove", dir)(e)),
            }
        }
        errors
    }

    /// Lets go of networks, image and volumes at the same time, if netd and storaged answer soon; what they refuse or take too long for
    /// is tried again with the rest. The root may still be mounted in the monitor's namespace, where nothing runs any more.
    pub async fn free(&mut self, engine: &Engine) {
        if self.leftovers.is_some() {
            return;
        }
        let (id, attached) = (self.id.clone(), self.detach);
        let network = async {
            !attached
                || matches!(timeout(NETWORK_SOON, network::detach(&engine.peers, &id)).await, Ok(Ok(())))
        };
        let storage = async {
            let mut errors = Vec::new();
            let _ = timeout(SOON, self.storage(engine, &mut errors)).await;
        };
        let (detached, ()) = tokio::join!(network, storage);
        self.detach = !detached;
    }

    async fn storage(&mut self, engine: &Engine, errors: &mut Vec<RuntimeError>) {
        if let Some(anonymous) = self.release {
            match volumes::release(&engine.peers, &self.id, anonymous).await {
                Ok(()) => self.release = None,
                Err(e) => errors.push(e),
            }
        }
        if self.snapshot {
            match remove_snapshot(engine, &self.id).await {
                Ok(()) => {
                    self.snapshot = false;
                    failpoint::pass("teardown.storage");
                }
                Err(e) => errors.push(e),
            }
        }
    }

    /// Goes on until everything is undone.
    pub async fn finish(mut self, engine: &Engine) {
        let mut wait = Duration::from_millis(100);
        loop {
            let errors = self.attempt(engine, PATIENTLY).await;
            if self.is_done() {
                engine.registry.free_ids(&self.id);
                return;
            }
            log(&self.id, &errors);
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(30));
        }
    }
}

/// Why a container cannot start: its last run is not undone. A daemon that does not start is the person's business, the rest the log's.
pub fn in_the_way(name: &str, errors: Vec<RuntimeError>) -> RuntimeError {
    let hopeless = errors.into_iter().find(|e| matches!(e, RuntimeError::PeerHopeless { .. }));
    hopeless.unwrap_or_else(|| {
        RuntimeError::WrongState(format!(
            "container {name} still waits for what its last run left to be undone: see runtimed's log"
        ))
    })
}

/// Says once for an attempt what keeps a teardown from being done.
pub fn log(id: &str, errors: &[RuntimeError]) {
    for error in errors {
        tracing::warn!(
            container.id = &id[..12.min(id.len())],
            error = error.line(),
            "teardown is tried again"
        );
    }
}

/// Removes a snapshot; unknown is success.
pub async fn remove_snapshot(engine: &Engine, id: &str) -> Result<(), RuntimeError> {
    let call = |channel| async move {
        snapshots(channel).remove(RemoveSnapshotRequest { key: id.to_owned() }).await
    };
    engine.peers.storage.call(call).await.map(|_| ())
}

/// Tells a monitor to go and waits until it has gone; one that does not go is killed.
pub async fn end(monitor: Monitor) {
    let pidfd = monitor.process.as_ref().pidfd();
    let asked = timeout(DRAIN, monitor.link.request(Request::Shutdown)).await;
    if !matches!(asked, Ok(Ok(Ok(_)))) {
        tracing::debug!(monitor.pid = monitor.process.pid, answer = ?asked, "the monitor did not acknowledge");
    }
    drop(monitor.link);
    let Ok(pidfd) = pidfd else { return };
    let Ok(ended) = readable::watch(pidfd) else { return };
    let patience = if asked.is_ok() { DRAIN } else { Duration::ZERO };
    if timeout(patience, ended.readable()).await.is_err() {
        tracing::warn!(monitor.pid = monitor.process.pid, "the monitor did not end: killed");
        let _ = pidfd_send_signal(ended.get_ref(), Signal::KILL);
        let _ = timeout(Duration::from_secs(5), ended.readable()).await;
    }
}

/// A monitor process that cannot be spoken to.
pub fn recorded_monitor(run: &RunDir) -> Option<ProcessRecord> {
    let text = fs::read_to_string(run.monitor_pid()).ok()?;
    let (pid, start_time) = text.trim().split_once(' ')?;
    Some(ProcessRecord { pid: pid.parse().ok()?, start_time: start_time.parse().ok()? })
}

/// Removes a run directory. The root's mount point is removed as an empty directory only: should the root still be mounted where we
/// see it, its files must not be touched.
pub fn remove_run_dir(run: &RunDir) -> io::Result<()> {
    match fs::remove_dir(run.rootfs()) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    remove_tree(run.path())
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_is_not_empty_is_never_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir(dir.path().join("c"));
        fs::create_dir_all(run.rootfs()).unwrap();
        fs::write(run.rootfs().join("precious"), "").unwrap();
        assert!(remove_run_dir(&run).is_err());
        assert!(run.rootfs().join("precious").exists());
        fs::remove_file(run.rootfs().join("precious")).unwrap();
        remove_run_dir(&run).unwrap();
        assert!(!run.path().exists());
        remove_run_dir(&run).unwrap();
    }

    #[test]
    fn a_monitors_pid_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir(dir.path().to_owned());
        assert!(recorded_monitor(&run).is_none());
        fs::write(run.monitor_pid(), "12 345\n").unwrap();
        assert_eq!(recorded_monitor(&run), Some(ProcessRecord { pid: 12, start_time: 345 }));
    }
}
