//! A snapshot's tree at hand: its mounts made where nobody else sees them, for as long as some work takes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use davit_sys::mount::{MountError, mount_at, open_target};
use davit_sys::private_mounts::{self, PrivateMountsError};

use super::driver::Mount;
use crate::failure::{At, PathError};

/// Why a tree is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum MountedError {
    /// No private mount namespace.
    #[error(transparent)]
    Private(#[from] PrivateMountsError),
    /// A mount was refused.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The place to mount at.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The work itself failed.
    #[error("its files cannot be read or written")]
    Work(#[source] io::Error),
}

/// Mounts at the directory `point`, in a mount namespace of its own, and runs `work` with the root of what is there.
pub fn with_tree<T: Send>(
    mounts: &[Mount],
    point: &Path,
    work: impl FnOnce(BorrowedFd<'_>) -> io::Result<T> + Send,
) -> Result<T, MountedError> {
    std::fs::create_dir_all(point).at("create", point)?;
    private_mounts::run(|| {
        for mount in mounts {
            let root = davit_sys::beneath::open_root(point).map_err(|e| MountedError::Work(e.source))?;
            let target = open_target(root.as_fd(), Path::new(""))?;
            mount_at(&mount.kind, Path::new(&mount.source), &mount.options, target.as_fd())?;
        }
        // Opened anew: this is what is mounted there.
        let root = davit_sys::beneath::open_root(point).map_err(|e| MountedError::Work(e.source))?;
        work(root.as_fd()).map_err(MountedError::Work)
    })?
}
