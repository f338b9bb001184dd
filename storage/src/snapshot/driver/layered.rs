//! What the drivers have in common that show a snapshot's own directory over the image's layers: the kernel's overlayfs and davit-cowfs.
//! They keep the same directories in the same format, so a snapshot that one made can be mounted by the other.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use davit_cowfs::Namespace;
use rustix::fs::{FileType, Mode};

use super::{Forking, Stack};
use crate::failure::{At, PathError};
use crate::snapshot::SnapshotError;

/// Both names.
pub(super) const NAMES: [&str; 2] = ["overlay", "fuse"];

/// The directories of snapshots and how they are named to a mount.
pub(super) struct Layered {
    pub(super) namespace: Namespace,
    /// An empty layer: overlayfs wants one lower directory, and two without an upper one.
    empty: PathBuf,
}

impl Layered {
    pub(super) fn open(state: &Path, namespace: Namespace) -> Result<Self, String> {
        let empty = state.join("empty");
        make_dir(&empty).map_err(|e| format!("{e}: {}", e.source))?;
        Ok(Self { namespace, empty })
    }

    /// Makes `fs` and `work`. The root of the mount takes its owner and mode from `fs`: they are those of the topmost layer's root.
    pub(super) fn create(&self, dir: &Path, stack: &Stack, read_only: bool) -> Result<(), SnapshotError> {
        if read_only {
            return Ok(());
        }
        let (upper, work) = (dir.join("fs"), dir.join("work"));
        std::fs::create_dir(&upper).at("create", &upper)?;
        std::fs::create_dir(&work).at("create", &work)?;
        let top = stack.layers.first().unwrap_or(&self.empty);
        let meta = std::fs::metadata(top).at("look at", top)?;
        std::os::unix::fs::chown(&upper, Some(meta.uid()), Some(meta.gid()))
            .at("set the owner of", &upper)?;
        let mode = std::fs::Permissions::from_mode(meta.mode() & 0o7777);
        std::fs::set_permissions(&upper, mode).at("set the mode of", &upper)?;
        Ok(())
    }

    /// A snapshot with what another one holds.
    pub(super) fn fork(
        &self,
        source: &Path,
        dir: &Path,
        stack: &Stack,
        how: &Forking<'_>,
    ) -> Result<(), SnapshotError> {
        self.create(dir, stack, how.read_only)?;
        if how.read_only {
            return Ok(());
        }
        how.copy(&source.join("fs"), &dir.join("fs"))
    }

    /// The mount's options, in the words of both.
    pub(super) fn options(&self, dir: &Path, stack: &Stack, read_only: bool) -> Vec<String> {
        let mut options: Vec<String> =
            stack.layers.iter().map(|l| format!("lowerdir+={}", l.display())).collect();
        if options.is_empty() {
            options.push(format!("lowerdir+={}", self.empty.display()));
        }
        if read_only {
            options.push(format!("lowerdir+={}", self.empty.display()));
        } else {
            options.push(format!("upperdir={}", dir.join("fs").display()));
            options.push(format!("workdir={}", dir.join("work").display()));
        }
        options.extend(self.namespace.mount_option().map(str::to_owned));
        options
    }
}

/// A directory of mode 0755, whatever our umask is.
fn make_dir(path: &Path) -> Result<(), PathError> {
    std::fs::create_dir_all(path).at("create", path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).at("set the mode of", path)
}

const TRIAL: &str = ".probe-";

/// Removes the trials of daemons that were killed in the middle of one.
pub(super) fn sweep(state: &Path) {
    for entry in std::fs::read_dir(state).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(TRIAL) {
            let _ = std::fs::remove_dir_all(entry.path()).or_else(|_| std::fs::remove_file(entry.path()));
        }
    }
}

/// Layers for a trial: a file `hidden` that a whiteout of the upper one hides. They are removed with this.
pub(super) struct Trial {
    dir: PathBuf,
    /// Has `hidden`.
    pub(super) lower: PathBuf,
    /// Hides it.
    pub(super) upper: PathBuf,
    /// On the upper one's file system.
    pub(super) work: PathBuf,
}

impl Trial {
    pub(super) fn make(state: &Path, namespace: Namespace) -> Result<Self, String> {
        let dir = state.join(format!("{TRIAL}{:016x}", rand::random::<u64>()));
        let [lower, upper, work] = ["lower", "upper", "work"].map(|n| dir.join(n));
        // From here on it is removed.
        let trial = Self { dir, lower, upper, work };
        for path in [&trial.lower, &trial.upper, &trial.work] {
            std::fs::create_dir_all(path).map_err(|e| format!("cannot create {}: {e}", path.display()))?;
        }
        std::fs::write(trial.lower.join("hidden"), b"").map_err(|e| format!("cannot write a file: {e}"))?;
        let upper = File::open(&trial.upper).map_err(|e| e.to_string())?;
        rustix::fs::mknodat(upper.as_fd(), "hidden", FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(|e| format!("whiteouts cannot be made: {e}"))?;
        davit_sys::xattr::set(upper.as_fd(), std::ffi::OsStr::new(namespace.opaque()), b"n")
            .map_err(|e| format!("{} cannot be set: {e}", namespace.opaque()))?;
        Ok(trial)
    }

    /// Makes a place to mount at.
    pub(super) fn place(&self) -> std::io::Result<PathBuf> {
        let at = self.dir.join("at");
        std::fs::create_dir(&at)?;
        Ok(at)
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_that_were_cut_off_are_swept_and_nothing_else() {
        let tmp = tempfile::tempdir().unwrap();
        let left = tmp.path().join(".probe-0123");
        std::fs::create_dir_all(left.join("upper/x")).unwrap();
        std::fs::write(tmp.path().join(".probe-from-0123"), "x").unwrap();
        std::fs::create_dir(tmp.path().join("layers")).unwrap();
        sweep(tmp.path());
        let names: Vec<_> = std::fs::read_dir(tmp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["layers"]);
    }
}
