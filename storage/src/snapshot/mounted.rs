//! A snapshot's tree at hand: its mounts made where nobody else sees them, for as long as some work takes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use davit_sys::mount::{MountError, mount_at, open_target};
use davit_sys::private_mounts::{self, PrivateMountsError};
use davit_sys::served::{self, Served, ServedError};

use super::driver::{Mount, cowfs_program};
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
    /// A mount that a program serves.
    #[error(transparent)]
    Served(#[from] ServedError),
    /// The program that serves a mount is not there.
    #[error("cannot mount the files: {0}")]
    NoProgram(String),
    /// The place to mount at.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The work itself failed.
    #[error("its files cannot be read or written")]
    Work(#[source] io::Error),
}

/// Makes one mount, with other options than it says, at the directory `point`, which is open as `place`. A mount that a program serves
/// comes with its server, which is to be ended after the work, when nothing of the tree is open any more.
pub fn make(
    mount: &Mount,
    options: &[String],
    point: &Path,
    place: BorrowedFd<'_>,
) -> Result<Option<Served>, MountedError> {
    if !served::is_served(&mount.kind) {
        mount_at(&mount.kind, Path::new(&mount.source), options, place)?;
        return Ok(None);
    }
    let program: PathBuf = cowfs_program(mount.server.as_deref()).map_err(MountedError::NoProgram)?;
    let log = served::nameless_log().map_err(MountedError::Work)?;
    Ok(Some(Served::start(&program, options, point, log)?))
}

/// Mounts at the directory `point`, in a mount namespace of its own, and runs `work` with the root of what is there.
pub fn with_tree<T: Send>(
    mounts: &[Mount],
    point: &Path,
    work: impl FnOnce(BorrowedFd<'_>) -> io::Result<T> + Send,
) -> Result<T, MountedError> {
    std::fs::create_dir_all(point).at("create", point)?;
    private_mounts::run(|| {
        let open = || davit_sys::beneath::open_root(point).map_err(|e| MountedError::Work(e.source));
        let mut servers = Vec::new();
        for mount in mounts {
            let target = open_target(open()?.as_fd(), Path::new(""))?;
            servers.extend(make(mount, &mount.options, point, target.as_fd())?);
        }
        // Opened anew: this is what is mounted there.
        let root = open()?;
        let result = work(root.as_fd()).map_err(MountedError::Work)?;
        drop(root);
        while let Some(server) = servers.pop() {
            server.end()?;
        }
        Ok(result)
    })?
}
