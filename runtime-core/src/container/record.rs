//! The record of a container on disk: what is needed to start it again, list it and remove it.
//!
//! Written to a temporary name and renamed, never fsynced: a power cut ends containers anyway, and kill -9 loses nothing that was renamed.

use std::fs;
use std::io;
use std::path::Path;

use davit_contracts::runtime::{Container, RestartPolicy, State};
use davit_contracts::storage::ImageConfig;
use davit_sys::process::ProcessRef;
use davit_wire::ExitRecord;
use serde::{Deserialize, Serialize};

use crate::error::{RuntimeError, io_error};
use crate::pod::PodRecord;
use crate::spec::userns::{self, Range};

/// The file's name in the container's directory.
pub const FILE: &str = "container.json";

/// A process as a record names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// In our pid namespace.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat.
    pub start_time: u64,
}

impl ProcessRecord {
    /// Names a running process; none when it is gone already.
    pub fn of(pid: i32) -> Option<Self> {
        ProcessRef::of(pid).ok().map(|p| Self { pid: p.pid, start_time: p.start_time })
    }

    /// As the kernel fence takes it.
    pub fn as_ref(self) -> ProcessRef {
        ProcessRef { pid: self.pid, start_time: self.start_time }
    }
}

/// Everything that is kept about a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// As clients see it; its `spec` is what was asked for.
    pub container: Container,
    /// The image's defaults at the time of creation.
    pub image: ImageConfig,
    /// Created and handed to a client that has still to attach before the program begins.
    pub held: bool,
    /// Made by a run that has not begun its program yet: nobody knows this container, so it goes when the run cannot be finished.
    pub unseen: bool,
    /// Its monitor, while there is one.
    pub monitor: Option<ProcessRecord>,
    /// Its first process, while there is one.
    pub process: Option<ProcessRecord>,
    /// netd was asked to attach it, and not yet to detach it.
    pub attached: bool,
    /// Anonymous or named volumes are held for it.
    pub volumes: bool,
    /// Which init its last start found, of a system container; else empty.
    pub init: String,
    /// Its init has asked to be booted again, and it has not come to that yet.
    pub rebooting: bool,
    /// It is frozen while its files are copied, and is to be thawed if we find it so.
    pub copying: bool,
    /// It is the infra container of a pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRecord>,
    /// Environment and command were merged from the image.
    pub prepared: bool,
    /// A person ended it, or is doing so: neither its restart policy nor a reboot of its own starts it again, until a person does.
    pub stopped: bool,
    /// How long its restart policy waited last, in milliseconds; 0 when it would wait the shortest time.
    pub backoff_ms: u64,
}

impl Record {
    /// 64 hex.
    pub fn id(&self) -> &str {
        &self.container.id
    }

    /// 12 hex.
    pub fn short(&self) -> &str {
        &self.container.id[..12.min(self.container.id.len())]
    }

    /// The ids of the host that it has.
    pub fn host_ids(&self) -> Vec<Range> {
        userns::ranges(&self.container.uid_map, &self.container.gid_map)
    }

    /// The part that changes; always there.
    pub fn state(&self) -> State {
        self.container.state.clone().unwrap_or_default()
    }

    /// The same, to change it.
    pub fn state_mut(&mut self) -> &mut State {
        self.container.state.get_or_insert_default()
    }

    /// docker's word.
    pub fn status(&self) -> &str {
        self.container.state.as_ref().map_or("", |s| s.status.as_str())
    }

    /// Whether a removal follows its end.
    pub fn auto_remove(&self) -> bool {
        self.container.spec.as_ref().is_some_and(|s| s.auto_remove)
    }

    /// What happens when it ends.
    pub fn policy(&self) -> RestartPolicy {
        self.container.spec.as_ref().and_then(|s| s.restart.clone()).unwrap_or_default()
    }

    /// Enters an exit into the record.
    pub fn ended(&mut self, exit: &ExitRecord) {
        let state = self.state_mut();
        "exited".clone_into(&mut state.status);
        state.pid = 0;
        state.exit_code = exit.code;
        state.oom_killed = exit.oom_killed;
        state.error.clone_from(&exit.error);
        state.log_dropped_bytes = exit.log_dropped_bytes;
        state.log_error.clone_from(&exit.log_error);
        state.finished_unix_ns = exit.finished_unix_ns;
        if exit.started_unix_ns != 0 {
            state.started_unix_ns = exit.started_unix_ns;
        }
        self.held = false;
        self.unseen = false;
        self.process = None;
        self.container.endpoints.clear();
        self.container.ports.clear();
        self.container.etc_dir.clear();
    }

    /// Writes it.
    pub fn save(&self, dir: &Path) -> Result<(), RuntimeError> {
        let bytes = serde_json::to_vec(self).expect("plain structs always serialise");
        write_renamed(&dir.join(FILE), &bytes)
    }

    /// Writes it so that it is there after a power cut: what decides whether a reboot starts the container.
    pub fn save_durably(&self, dir: &Path) -> Result<(), RuntimeError> {
        self.save(dir)?;
        let flush =
            |path: &Path| fs::File::open(path).and_then(|f| f.sync_all()).map_err(io_error("flush", path));
        flush(&dir.join(FILE))?;
        flush(dir)?;
        dir.parent().map_or(Ok(()), flush)
    }

    /// Reads one.
    pub fn load(dir: &Path) -> Result<Self, RuntimeError> {
        let path = dir.join(FILE);
        let bytes = fs::read(&path).map_err(io_error("read", &path))?;
        let invalid = |e| io::Error::new(io::ErrorKind::InvalidData, e);
        serde_json::from_slice(&bytes).map_err(invalid).map_err(io_error("understand", &path))
    }
}

/// Replaces a file in one step as far as other processes see, without waiting for the disk.
pub fn write_renamed(path: &Path, bytes: &[u8]) -> Result<(), RuntimeError> {
    let temporary = path.with_extension("new");
    if let Err(e) = fs::write(&temporary, bytes) {
        // Of a full disk a piece would stay.
        let _ = fs::remove_file(&temporary);
        return Err(e).map_err(io_error("write", &temporary));
    }
    fs::rename(&temporary, path).map_err(io_error("rename", path))
}

/// Reads an exit record, if there is a whole one.
pub fn read_exit(path: &Path) -> Option<ExitRecord> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_disk_and_unknown_fields() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = Record::default();
        record.container.id = "a".repeat(64);
        record.container.spec = Some(davit_contracts::runtime::ContainerSpec {
            entrypoint: Some(davit_contracts::runtime::StringList { values: vec!["/x".into()] }),
            stop_timeout_s: Some(3),
            ..Default::default()
        });
        record.save(dir.path()).unwrap();
        let back = Record::load(dir.path()).unwrap();
        assert_eq!(back.container, record.container);
        fs::write(dir.path().join(FILE), br#"{"held":true,"of_a_newer_davit":1}"#).unwrap();
        assert!(Record::load(dir.path()).unwrap().held);
        fs::write(dir.path().join(FILE), b"{").unwrap();
        assert!(Record::load(dir.path()).unwrap_err().line().contains("container.json"));
    }

    #[test]
    fn an_end_clears_what_only_the_living_have() {
        let mut record = Record { held: true, ..Record::default() };
        record.state_mut().pid = 7;
        record.container.etc_dir = "/run/x".into();
        record.ended(&ExitRecord {
            code: 137,
            oom_killed: true,
            finished_unix_ns: 9,
            ..ExitRecord::default()
        });
        let s = record.state();
        assert_eq!((s.status.as_str(), s.pid, s.exit_code, s.oom_killed), ("exited", 0, 137, true));
        assert!(!record.held && record.container.etc_dir.is_empty());
    }
}
