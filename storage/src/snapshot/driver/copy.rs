//! A full copy of the image for each snapshot. Where the file system can share blocks between files (reflinks: xfs, btrfs, bcachefs) it costs
//! inodes only; elsewhere it is slow and large, but it works on every file system.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use davit_cowfs::Namespace;

use super::{Driver, Forking, Mount, Stack};
use crate::copytree::{Source, copy_tree};
use crate::failure::At;
use crate::snapshot::SnapshotError;

pub(super) struct Copy {
    namespace: Namespace,
    reason: String,
}

impl Copy {
    /// It always works; what is found out is whether files share blocks.
    pub(super) fn probe(state: &Path, namespace: Namespace, why: &str) -> Self {
        let how = match reflinks(state) {
            Ok(()) => "files share their blocks with the image (reflinks)".to_owned(),
            Err(e) => format!("every file is copied, blocks cannot be shared here ({e})"),
        };
        Self { namespace, reason: format!("{why}; {how}") }
    }
}

/// Clones a small file (FICLONE of ioctl_ficlone(2)).
fn reflinks(state: &Path) -> std::io::Result<()> {
    let names = ["from", "to"].map(|n| state.join(format!(".probe-{n}-{:016x}", rand::random::<u64>())));
    let [from, to] = &names;
    let cloned = std::fs::write(from, [1; 4096]).and_then(|()| {
        let target = File::create_new(to)?;
        Ok(rustix::fs::ioctl_ficlone(target.as_fd(), File::open(from)?.as_fd())?)
    });
    for name in &names {
        let _ = std::fs::remove_file(name);
    }
    cloned
}

impl Driver for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn reason(&self) -> &str {
        &self.reason
    }

    fn create(&self, dir: &Path, stack: &Stack, _read_only: bool) -> Result<(), SnapshotError> {
        use std::os::unix::fs::PermissionsExt;
        let top = dir.join("fs");
        std::fs::create_dir(&top).at("create", &top)?;
        // An image without layers has a root all the same.
        std::fs::set_permissions(&top, std::fs::Permissions::from_mode(0o755)).at("set the mode of", &top)?;
        for layer in stack.layers.iter().rev() {
            copy_tree(layer, &top, Source::Layer(self.namespace)).map_err(SnapshotError::Copy)?;
        }
        Ok(())
    }

    fn fork(&self, source: &Path, dir: &Path, _: &Stack, how: &Forking<'_>) -> Result<(), SnapshotError> {
        let top = dir.join("fs");
        std::fs::create_dir(&top).at("create", &top)?;
        how.copy(&source.join("fs"), &top)
    }

    fn mounts(&self, dir: &Path, _stack: &Stack, read_only: bool) -> Result<Vec<Mount>, SnapshotError> {
        let mut options = vec!["rbind".to_owned()];
        options.extend(read_only.then(|| "ro".to_owned()));
        let source = dir.join("fs").display().to_string();
        Ok(vec![Mount { kind: "bind".into(), source, options, server: None }])
    }
}
