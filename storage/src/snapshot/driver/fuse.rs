//! davit-cowfs: overlayfs's work done by a process of ours, for kernels that have no overlayfs, or none for a plain user.
//!
//! The driver only describes the mount. Whoever makes it starts the server in its own mount namespace and ends it afterwards
//! (`davit_sys::served`): a container's monitor, and this daemon where it reads or changes a tree that does not run.

use std::path::{Path, PathBuf};

use davit_cowfs::Namespace;
use davit_daemon_kit::paths::Layout;
use davit_sys::private_mounts;
use davit_sys::served::{self, Served};

use super::layered::{Layered, Trial};
use super::{Driver, Forking, Mount, Stack};
use crate::snapshot::SnapshotError;

/// The type of its mounts.
pub(super) const KIND: &str = "fuse.davit-cowfs";

pub(super) struct Fuse {
    layered: Layered,
    program: PathBuf,
    reason: String,
}

impl Fuse {
    /// Mounts a small tree where nobody sees it, and looks whether a whiteout in it works and a file can be written.
    pub(super) fn probe(
        state: &Path,
        namespace: Namespace,
        configured: Option<&Path>,
        reason: String,
    ) -> Result<Self, String> {
        let layered = Layered::open(state, namespace)?;
        if state.to_string_lossy().contains([':', ',', '\\']) {
            let path = state.display();
            return Err(format!(
                "the path {path} has a character that separates options (colon, comma, backslash)"
            ));
        }
        std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .map_err(|e| format!("/dev/fuse cannot be opened: {e}"))?;
        let program = program(configured)?;
        let trial = Trial::make(state, namespace)?;
        private_mounts::run(|| try_mount(&program, &trial, namespace)).map_err(|e| said(&e))??;
        Ok(Self { layered, program, reason })
    }
}

/// The program that serves mounts of this driver: the configured one, else davit's own, as all of its programs are found.
pub(crate) fn program(configured: Option<&Path>) -> Result<PathBuf, String> {
    let found = match configured {
        Some(path) => Some(path.to_owned()),
        None => Layout::binary(served::PROGRAM),
    };
    found.ok_or_else(|| format!("no program {} beside davit-storaged nor in PATH", served::PROGRAM))
}

fn try_mount(program: &Path, trial: &Trial, namespace: Namespace) -> Result<(), String> {
    let mut options = vec![
        format!("lowerdir+={}", trial.lower.display()),
        format!("upperdir={}", trial.upper.display()),
        format!("workdir={}", trial.work.display()),
    ];
    options.extend(namespace.mount_option().map(str::to_owned));
    let at = trial.place().map_err(|e| format!("cannot make a mount point: {e}"))?;
    let log = served::nameless_log().map_err(|e| e.to_string())?;
    let mount = Served::start(program, &options, &at, log).map_err(|e| said(&e))?;
    let hides = !at.join("hidden").exists();
    let written = std::fs::write(at.join("written"), "x");
    mount.end().map_err(|e| said(&e))?;
    written.map_err(|e| format!("no file can be written in it: {e}"))?;
    match (hides, trial.upper.join("written").exists()) {
        (true, true) => Ok(()),
        (false, _) => Err("whiteouts have no effect".into()),
        (true, false) => Err("what is written in it does not reach the upper directory".into()),
    }
}

/// An error with its causes on one line.
fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(c) = cause {
        text = format!("{text}: {c}");
        cause = c.source();
    }
    text
}

impl Driver for Fuse {
    fn name(&self) -> &'static str {
        "fuse"
    }

    fn reason(&self) -> &str {
        &self.reason
    }

    fn create(&self, dir: &Path, stack: &Stack, read_only: bool) -> Result<(), SnapshotError> {
        self.layered.create(dir, stack, read_only)
    }

    fn fork(&self, source: &Path, dir: &Path, stack: &Stack, how: &Forking<'_>) -> Result<(), SnapshotError> {
        self.layered.fork(source, dir, stack, how)
    }

    fn mounts(&self, dir: &Path, stack: &Stack, read_only: bool) -> Result<Vec<Mount>, SnapshotError> {
        let mut options = self.layered.options(dir, stack, read_only);
        options.extend(read_only.then(|| "ro".to_owned()));
        let server = Some(self.program.clone());
        Ok(vec![Mount { kind: KIND.into(), source: served::PROGRAM.into(), options, server }])
    }
}
