//! A layer as it is reached: through a mount clone that cannot be written to, where this process may make one.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use davit_sys::{file_handle, rootfs, xattr};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::config::OpenError;
use crate::name::{Namespace, XATTR_WHITEOUTS_VALUE};
use crate::table::Fd;

/// A layer's root directory and what there is to know of its file system.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) root: Fd,
    pub(crate) dev: u64,
    /// Which of the layers' file systems it is on, from 0.
    pub(crate) fs: u16,
    pub(crate) uuid: [u8; 16],
    /// Whiteouts may be spelt as xattrs (Linux 6.7), as the layer's root says.
    pub(crate) xattr_whiteouts: bool,
    /// Blocks of this layer cannot be shared with the upper.
    pub(crate) no_reflink: AtomicBool,
}

impl Layer {
    /// Opens a lower layer. If it could not be through a mount clone, says why.
    pub(crate) fn lower(path: &Path, namespace: Namespace) -> Result<(Self, Option<io::Error>), OpenError> {
        let (root, unprotected) = open_read_only(path)?;
        Ok((Self::new(root, path, namespace)?, unprotected))
    }

    /// Opens the upper layer.
    pub(crate) fn upper(path: &Path, namespace: Namespace) -> Result<Self, OpenError> {
        Self::new(open_dir(path)?, path, namespace)
    }

    fn new(root: OwnedFd, path: &Path, namespace: Namespace) -> Result<Self, OpenError> {
        let stat = rustix::fs::fstat(&root).map_err(|e| directory("stat", path, e))?;
        let opaque = xattr::get(root.as_fd(), OsStr::new(namespace.opaque())).unwrap_or_default();
        Ok(Self {
            uuid: file_handle::file_system_uuid(root.as_fd()).unwrap_or_default(),
            root: Arc::new(root),
            dev: stat.st_dev,
            fs: 0,
            no_reflink: AtomicBool::new(false),
            xattr_whiteouts: opaque.as_deref() == Some(XATTR_WHITEOUTS_VALUE),
        })
    }
}

/// Opens a directory for reading.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd, OpenError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|e| directory("open", path, e))
}

/// Opens a directory through a private, read-only clone of the mount it is on. No descriptor opened from there can write, whatever asks
/// for it. Without the right to clone mounts (a plain user, without a user namespace) the directory itself is opened: then only the
/// flags of this process's own opens protect it.
fn open_read_only(path: &Path) -> Result<(OwnedFd, Option<io::Error>), OpenError> {
    const RDONLY: u64 = 0x1;
    const NOATIME: u64 = 0x10;
    const ATIME: u64 = 0x70;
    let plain = open_dir(path)?;
    let mount = match rootfs::clone_tree(plain.as_fd(), Path::new(""), false) {
        Ok(mount) => mount,
        Err(e) => return Ok((plain, Some(e))),
    };
    let read_only = |set: u64, clear: u64| {
        let attributes = rootfs::MountAttributes { set, clear, propagation: 0, userns_fd: 0 };
        rootfs::set_attributes(mount.as_fd(), attributes, false)
    };
    // A user namespace may not change atime of a mount it was given.
    if let Err(e) = read_only(RDONLY | NOATIME, ATIME).or_else(|_| read_only(RDONLY, 0)) {
        return Ok((plain, Some(e)));
    }
    // The clone's descriptor is O_PATH.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        rustix::fs::openat(&mount, c".", flags, Mode::empty()).map_err(|e| directory("open", path, e))?;
    Ok((root, None))
}

/// Says that layers are protected only by this process's own flags: to be expected of those who may not clone mounts, else worth knowing.
pub(crate) fn log_unprotected(path: &Path, error: &io::Error) {
    const WHAT: &str = "lower layers are opened without a read-only mount of their own";
    let path = path.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported => {
            tracing::debug!(%error, %path, "{WHAT}");
        }
        _ => tracing::warn!(%error, %path, "{WHAT}"),
    }
}

pub(crate) fn directory(what: &'static str, path: &Path, source: Errno) -> OpenError {
    OpenError::Directory { what, path: path.to_path_buf(), source }
}

/// Numbers the file systems that the layers are on.
pub(crate) fn number_file_systems(layers: &mut [Option<Layer>]) -> usize {
    let mut devs: Vec<u64> = Vec::new();
    for layer in layers.iter_mut().flatten() {
        let at = devs.iter().position(|d| *d == layer.dev).unwrap_or_else(|| {
            devs.push(layer.dev);
            devs.len() - 1
        });
        layer.fs = at as u16;
    }
    devs.len()
}
