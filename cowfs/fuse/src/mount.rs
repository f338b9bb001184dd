//! The mount: /dev/fuse and mount(2), or fusermount3(1) where mount(2) is not allowed (fuse(4), mount.fuse3(8)).
//!
//! A mount whose process dies stays in the tree, answering ENOTCONN, until somebody unmounts it.

mod helper;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;

use crate::options::{Access, MountWords};

/// The mount could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point cannot be used.
    #[error("cannot use {path:?} as a mount point")]
    Mountpoint {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A mount whose process has died lies there.
    #[error(
        "the file system that is mounted at {path:?} has died: `umount -l` or `fusermount3 -uz` it first"
    )]
    Dead {
        /// Where.
        path: PathBuf,
    },
    /// No connection to the kernel.
    #[error("cannot open /dev/fuse")]
    Device(#[source] io::Error),
    /// mount(2).
    #[error("cannot mount at {path:?}")]
    Mount {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// fusermount3 is not there or says no.
    #[error("cannot mount at {path:?} by fusermount3")]
    Helper {
        /// Where.
        path: PathBuf,
        /// Why; what fusermount3 says goes to standard error.
        #[source]
        source: io::Error,
    },
    /// umount(2).
    #[error("cannot unmount {path:?}")]
    Unmount {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Where a mount is or will be.
#[derive(Debug, Clone)]
pub struct Place {
    mountpoint: PathBuf,
}

/// statfs(2).
const FUSE_SUPER_MAGIC: i64 = 0x6573_5546;

const EPERM: i32 = rustix::io::Errno::PERM.raw_os_error();

impl Place {
    /// A directory, given by an absolute path.
    pub fn new(mountpoint: &Path) -> Self {
        Self { mountpoint: mountpoint.to_owned() }
    }

    /// Mounts. Answers the connection: requests are read from it and answers written to it.
    pub fn mount(&self, words: &MountWords) -> Result<OwnedFd, MountError> {
        match by_syscall(&self.mountpoint, words) {
            Err(MountError::Mount { source, .. }) if source.raw_os_error() == Some(EPERM) => {
                helper::mount(&self.mountpoint, words)
                    .map_err(|source| MountError::Helper { path: self.mountpoint.clone(), source })
            }
            other => other,
        }
    }

    /// Takes the mount out of the tree; it ends with its last user (MNT_DETACH).
    pub fn detach(&self) -> Result<(), MountError> {
        let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
        let result = match rustix::mount::unmount(&self.mountpoint, flags) {
            Err(rustix::io::Errno::PERM) => helper::unmount(&self.mountpoint),
            other => other.map_err(io::Error::from),
        };
        result.map_err(|source| MountError::Unmount { path: self.mountpoint.clone(), source })
    }

    /// Writes back what the kernel has of it in its cache, as far as that goes.
    pub fn flush(&self) {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let Ok(root) = rustix::fs::open(&self.mountpoint, flags, Mode::empty()) else { return };
        // Where somebody else has unmounted, another file system lies here.
        if rustix::fs::fstatfs(&root).is_ok_and(|fs| fs.f_type == FUSE_SUPER_MAGIC) {
            // A failure is seen by those who wrote, at their fsync.
            let _ = rustix::fs::syncfs(root);
        }
    }

    /// Unmounts what a process that died has left; a mount that is still served is somebody else's.
    pub fn clear(&self) {
        let dead = rustix::fs::statfs(&self.mountpoint).err() == Some(rustix::io::Errno::NOTCONN);
        if dead && let Err(e) = self.detach() {
            tracing::warn!(error = &e as &dyn std::error::Error, "the mount is left behind");
        }
    }
}

fn by_syscall(mountpoint: &Path, words: &MountWords) -> Result<OwnedFd, MountError> {
    let unusable = |e: rustix::io::Errno| match e {
        rustix::io::Errno::NOTCONN => MountError::Dead { path: mountpoint.to_owned() },
        e => MountError::Mountpoint { path: mountpoint.to_owned(), source: e.into() },
    };
    let mode = rustix::fs::stat(mountpoint).map_err(unusable)?.st_mode;
    if !rustix::fs::FileType::from_raw_mode(mode).is_dir() {
        return Err(unusable(rustix::io::Errno::NOTDIR));
    }
    let device = match rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(device) => device,
        // fusermount3 is set-user-id root and may open it where this process may not.
        Err(e @ (rustix::io::Errno::ACCESS | rustix::io::Errno::PERM))
            if !rustix::process::geteuid().is_root() =>
        {
            tracing::debug!(error = %e, "/dev/fuse is left to fusermount3");
            let source = io::Error::from_raw_os_error(EPERM);
            return Err(MountError::Mount { path: mountpoint.to_owned(), source });
        }
        Err(e) => return Err(MountError::Device(e.into())),
    };
    let mut data = format!(
        "fd={},rootmode={:o},user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        mode & 0o170_000,
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
    .into_bytes();
    if words.access != Access::Usual || rustix::process::geteuid().is_root() {
        data.extend_from_slice(b",allow_other");
    }
    if let Some(context) = &words.context {
        data.extend_from_slice(b",context=\"");
        data.extend_from_slice(context.as_encoded_bytes());
        data.push(b'"');
    }
    let data = std::ffi::CString::new(data).expect("option values hold no zero byte");
    let fstype = [b"fuse.", words.subtype.as_encoded_bytes()].concat();
    rustix::mount::mount(&words.fsname, mountpoint, fstype, words.flags, data.as_c_str())
        .map_err(|e| MountError::Mount { path: mountpoint.to_owned(), source: e.into() })?;
    Ok(device)
}
