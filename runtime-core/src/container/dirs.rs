//! Where a container's files are.
//!
//! ```text
//! state/runtime/containers/<id>/   container.json, <id>-json.log or container.log, exit.json (the monitor's second copy)
//! state/runtime/davit-init         the program of containers with --init
//! state/runtime/trash/<id>/        the same directory once its removal is journaled
//! run/runtime/<16 hex>/            the monitor's directory; short, because a socket's path has 108 bytes at most
//! ```

use std::path::{Path, PathBuf};

use davit_contracts::runtime::ContainerSpec;

use crate::logs::options;

/// The two base directories.
#[derive(Debug, Clone)]
pub struct Dirs {
    /// Durable state.
    pub state: PathBuf,
    /// Until a reboot.
    pub run: PathBuf,
}

impl Dirs {
    /// All containers' records.
    pub fn containers(&self) -> PathBuf {
        self.state.join("containers")
    }

    /// Journaled removals.
    pub fn trash(&self) -> PathBuf {
        self.state.join("trash")
    }

    /// One container's durable directory.
    pub fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// Where it goes when it is removed.
    pub fn trashed(&self, id: &str) -> PathBuf {
        self.trash().join(id)
    }

    /// Its log, where that is a file.
    pub fn log(&self, id: &str, spec: &ContainerSpec) -> PathBuf {
        let directory = self.container(id);
        match options::driver(Some(spec)) {
            options::LOCAL => directory.join("container.log"),
            _ => directory.join(format!("{id}-json.log")),
        }
    }

    /// What containers with `--init` begin with. Not in the run directory, which is on a file system without execution on many hosts.
    pub fn init(&self) -> PathBuf {
        self.state.join("davit-init")
    }

    /// Its run directory.
    pub fn run_dir(&self, id: &str) -> RunDir {
        RunDir(self.run.join(&id[..16.min(id.len())]))
    }
}

/// A monitor's directory; the names are the wire protocol's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir(pub PathBuf);

impl RunDir {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What the monitor is told.
    pub fn monitor_config(&self) -> PathBuf {
        self.0.join("monitor.json")
    }

    /// Written when it listens.
    pub fn monitor_pid(&self) -> PathBuf {
        self.0.join("monitor.pid")
    }

    /// Its stderr.
    pub fn monitor_log(&self) -> PathBuf {
        self.0.join("monitor.log")
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.0.join("monitor.sock")
    }

    /// The exit record.
    pub fn exit(&self) -> PathBuf {
        self.0.join("exit.json")
    }

    /// The OCI bundle.
    pub fn bundle(&self) -> PathBuf {
        self.0.join("bundle")
    }

    /// The root, in the monitor's mount namespace.
    pub fn rootfs(&self) -> PathBuf {
        self.0.join("bundle/rootfs")
    }

    /// The container's user namespace, in the monitor's mount namespace.
    pub fn userns(&self) -> PathBuf {
        self.0.join("userns")
    }

    /// Another container's /dev/shm, in the monitor's mount namespace.
    pub fn shm(&self) -> PathBuf {
        self.0.join("shm")
    }

    /// `--root` of the OCI runtime.
    pub fn runtime_root(&self) -> PathBuf {
        self.0.join("runtime")
    }
}
