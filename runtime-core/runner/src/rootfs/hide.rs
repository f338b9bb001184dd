//! Masked and read-only paths. Missing ones are no error: lists are written for many kernels.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use davit_sys::rootfs::{self as sys, MountAttributes};
use rustix::fs::{FileType, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::error::{Context, Error, Result};

/// Makes paths look empty: files become /dev/null, directories an empty read-only tmpfs (one for all of them).
pub fn mask(root: BorrowedFd<'_>, paths: &[PathBuf]) -> Result<()> {
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let Some(target) = existing(root, path)? else { continue };
        let shown = path.display();
        let kind = sys::file_type(target.as_fd()).context(|| format!("stat {shown}"))?;
        let cover = if kind != FileType::Directory {
            sys::clone_tree_at(Path::new("/dev/null"), false).context(|| "clone the mount of /dev/null")?
        } else if let Some(first) = &empty {
            sys::clone_tree(first.as_fd(), Path::new(""), false).context(|| format!("mask {shown}"))?
        } else {
            empty_directory()
                .map_err(|e| Error::Io { operation: format!("mask {shown}"), source: e.into() })?
        };
        sys::attach(cover.as_fd(), target.as_fd()).context(|| format!("mask {shown}"))?;
        if kind == FileType::Directory {
            empty.get_or_insert(cover);
        }
    }
    Ok(())
}

fn empty_directory() -> std::result::Result<OwnedFd, rustix::io::Errno> {
    use rustix::mount::{fsconfig_create, fsconfig_set_string, fsmount, fsopen};
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "nr_blocks", "1")?;
    fsconfig_set_string(&context, "mode", "755")?;
    fsconfig_create(&context)?;
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// Makes paths and all below them read-only by binding them to themselves.
pub fn make_read_only(root: BorrowedFd<'_>, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        let Some(target) = existing(root, path)? else { continue };
        let operation = || format!("make {} read-only", path.display());
        let tree = sys::clone_tree(target.as_fd(), Path::new(""), true).context(operation)?;
        let attributes = MountAttributes { set: sys::ATTR_RDONLY, ..MountAttributes::default() };
        sys::set_attributes(tree.as_fd(), attributes, true).context(operation)?;
        sys::attach(tree.as_fd(), target.as_fd()).context(operation)?;
    }
    Ok(())
}

fn existing(root: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>> {
    match sys::open_in_root(root, path, OFlags::PATH) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Ok(None),
        other => other.map(Some).context(|| format!("open {}", path.display())),
    }
}
