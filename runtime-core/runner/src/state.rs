//! What is kept about a container between two commands: the directory ROOT/ID.
//!
//! ```text
//! ROOT/ID/state.json    State, written (rename) once the container is created
//! ROOT/ID/exec.sock     where a created container waits for `start`; gone once started
//! ROOT/ID/seccomp.bpf   the compiled filter, for exec
//! ```
//!
//! The status is never stored but read from the machine: process alive (pid and start time), exec.sock there, cgroup frozen.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use davit_sys::process::ProcessRef;
use serde::{Deserialize, Serialize};

use crate::cgroup::Placement;
use crate::error::{Context, Error, Result};
use crate::spec::{Hooks, Process};

pub mod clock;

/// state.json.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Version of the specification in the bundle.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Pid of its first process in our namespace.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat.
    pub start_time: u64,
    /// Absolute.
    pub bundle: PathBuf,
    /// Absolute.
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    /// Who created it.
    pub owner: u32,
    /// From the config.
    pub annotations: BTreeMap<String, String>,
    /// Its cgroups.
    pub cgroups: Placement,
    /// Its process object: what exec without --process starts from.
    pub process: Process,
    /// For poststart and poststop.
    pub hooks: Hooks,
    /// SECCOMP_FILTER_FLAG_* of seccomp.bpf.
    pub seccomp_flags: u32,
    /// An own pid namespace: then the death of the first process is that of all.
    pub own_pid_namespace: bool,
}

/// The state as the specification has it: printed by `state` and given to hooks. Member names and order are runc's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OciState<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: &'a str,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
}

impl State {
    /// The state as the specification has it. The pid of a stopped container is 0.
    pub fn oci<'a>(&'a self, status: &'a str, pid: i32) -> OciState<'a> {
        OciState {
            oci_version: &self.oci_version,
            id: &self.id,
            pid,
            status,
            bundle: &self.bundle,
            rootfs: &self.rootfs,
            created: &self.created,
            annotations: &self.annotations,
            owner: (status != "creating").then(|| self.owner_name()),
        }
    }

    /// Who created it, without the user database: a static executable cannot load its modules.
    pub fn owner_name(&self) -> String {
        if self.owner == 0 { "root".to_owned() } else { self.owner.to_string() }
    }

    /// The same as text, for hooks; empty when there are none to read it.
    pub fn oci_json(&self, status: &str, pid: i32) -> String {
        let h = &self.hooks;
        let any = [
            &h.prestart,
            &h.create_runtime,
            &h.create_container,
            &h.start_container,
            &h.poststart,
            &h.poststop,
        ];
        if any.iter().all(|l| l.is_empty()) {
            return String::new();
        }
        serde_json::to_string(&self.oci(status, pid)).unwrap_or_default()
    }
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Its first process waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Frozen.
    Paused,
    /// Its first process is gone.
    Stopped,
}

impl Status {
    /// As `state` prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// The directory of one container.
#[derive(Debug, Clone)]
pub struct StateDir {
    id: String,
    path: PathBuf,
}

impl StateDir {
    /// Names the directory, whether it exists or not.
    pub fn at(root: &Path, id: &str) -> Self {
        Self { id: id.to_owned(), path: root.join(id) }
    }

    /// Makes the directory; the id is then taken.
    pub fn create(root: &Path, id: &str) -> Result<Self> {
        let dir = Self::at(root, id);
        let made = match nix::unistd::mkdir(&dir.path, nix::sys::stat::Mode::S_IRWXU) {
            Err(nix::errno::Errno::ENOENT) => {
                fs::create_dir_all(root).context(|| format!("make {}", root.display()))?;
                nix::unistd::mkdir(&dir.path, nix::sys::stat::Mode::S_IRWXU)
            }
            other => other,
        };
        match made {
            Err(nix::errno::Errno::EEXIST) => Err(Error::Exists(id.to_owned())),
            other => other.context(|| format!("make {}", dir.path.display())).map(|()| dir),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a created container waits.
    pub fn exec_socket(&self) -> PathBuf {
        self.path.join("exec.sock")
    }

    /// The compiled filter.
    pub fn seccomp_file(&self) -> PathBuf {
        self.path.join("seccomp.bpf")
    }

    /// Reads state.json.
    pub fn load(&self) -> Result<State> {
        let path = self.path.join("state.json");
        let text = match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(Error::NoContainer(self.id.clone())),
            other => other.context(|| format!("read {}", path.display()))?,
        };
        serde_json::from_slice(&text).map_err(|source| Error::Json { path, source })
    }

    /// Writes state.json: a reader sees all of it or none.
    pub fn save(&self, state: &State) -> Result<()> {
        let text =
            serde_json::to_vec(state).map_err(|source| Error::Json { path: self.path.clone(), source })?;
        write_atomically(&self.path.join("state.json"), &text)
    }

    /// Removes the directory; that it is gone is no error.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(e).context(|| format!("remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Whether anything is there, even half of a container.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// What the container is doing now.
    pub fn status(&self, state: &State) -> Status {
        let first = ProcessRef { pid: state.pid, start_time: state.start_time };
        if !first.is_alive() {
            Status::Stopped
        } else if state.cgroups.is_frozen() {
            Status::Paused
        } else if self.exec_socket().exists() {
            Status::Created
        } else {
            Status::Running
        }
    }
}

/// Ids of all containers below `root`, sorted.
pub fn ids(root: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(root) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context(|| format!("list {}", root.display()))?,
    };
    let mut ids: Vec<String> = entries
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|n| !n.starts_with('.'))
        .collect();
    ids.sort();
    Ok(ids)
}

/// Writes to a name beside and renames. No fsync: these files describe what a power cut ends.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    let done: io::Result<()> = fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    done.context(|| format!("write {}", path.display()))
}
