//! The kernel's overlayfs. Layers are used as they are: one `lowerdir+` each (Linux 6.8), so that neither their number nor
//! a colon in a path matters.

use std::os::fd::AsFd;
use std::path::Path;

use davit_cowfs::Namespace;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::layered::{Layered, Trial};
use super::{Driver, Forking, Mount, Stack};
use crate::snapshot::SnapshotError;

/// fsconfig(2) takes values of at most 255 bytes.
const MAX_VALUE: usize = 255;

pub(super) struct Overlay {
    layered: Layered,
    reason: String,
}

impl Overlay {
    /// Mounts a small overlay, attached nowhere, and looks whether a whiteout in it works.
    pub(super) fn probe(state: &Path, namespace: Namespace, reason: String) -> Result<Self, String> {
        let layered = Layered::open(state, namespace)?;
        let longest = state.join("snapshots").join("k".repeat(128)).join("work");
        if longest.as_os_str().len() > MAX_VALUE {
            return Err(format!("the path {} is too long for mount options", state.display()));
        }
        try_mount(&Trial::make(state, namespace)?, namespace)?;
        Ok(Self { layered, reason })
    }
}

fn try_mount(trial: &Trial, namespace: Namespace) -> Result<(), String> {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|e| format!("this kernel has no overlayfs: {e}"))?;
    let set = |key: &str, value: &Path| {
        rustix::mount::fsconfig_set_string(fs.as_fd(), key, value)
            .map_err(|e| format!("option {key} is refused: {e}"))
    };
    set("lowerdir+", &trial.lower)?;
    set("upperdir", &trial.upper)?;
    set("workdir", &trial.work)?;
    if let Some(option) = namespace.mount_option() {
        rustix::mount::fsconfig_set_flag(fs.as_fd(), option)
            .map_err(|e| format!("option {option} is refused: {e}"))?;
    }
    rustix::mount::fsconfig_create(fs.as_fd()).map_err(|e| format!("it cannot be mounted here: {e}"))?;
    let mount = rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(|e| format!("it cannot be mounted here: {e}"))?;
    match rustix::fs::openat(&mount, "hidden", OFlags::RDONLY, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        _ => Err("whiteouts have no effect".into()),
    }
}

impl Driver for Overlay {
    fn name(&self) -> &'static str {
        "overlay"
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
        let options = self.layered.options(dir, stack, read_only);
        Ok(vec![Mount { kind: "overlay".into(), source: "overlay".into(), options, server: None }])
    }
}
