//! What directories get last: making something in a directory changes its time, and a setgid bit or a default ACL would be
//! inherited by what is made in it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::{UnpackError, attributes, io_error};
use crate::tarball::Time;

/// The ACL that new files inherit.
pub(super) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
/// An archive whose directories have larger ACLs than this together gets them in time for its files to inherit them.
const MAX_ACLS: usize = 8 << 20;

struct Directory {
    path: Vec<u8>,
    /// With setgid.
    mode: Option<u32>,
    acl: Option<Vec<u8>>,
    time: Time,
}

/// All directories that entries named.
#[derive(Default)]
pub(super) struct Deferred {
    directories: Vec<Directory>,
    acls: usize,
    /// Which of them has the ACL of a path.
    with_acl: HashMap<Vec<u8>, usize>,
}

impl Deferred {
    /// Whether an ACL of this size may wait.
    pub(super) fn takes_acl(&self, size: usize) -> bool {
        self.acls + size <= MAX_ACLS
    }

    /// The ACL that a directory will have by an earlier entry.
    pub(super) fn acl_of(&self, path: &[u8]) -> Option<&[u8]> {
        self.with_acl.get(path).and_then(|n| self.directories[*n].acl.as_deref())
    }

    /// Remembers a directory. A later entry of the same one wins.
    pub(super) fn add(&mut self, path: &[u8], mode: Option<u32>, acl: Option<&[u8]>, time: Time) {
        self.acls += acl.map_or(0, <[u8]>::len);
        if acl.is_some() {
            self.with_acl.insert(path.to_vec(), self.directories.len());
        }
        self.directories.push(Directory { path: path.to_vec(), mode, acl: acl.map(<[u8]>::to_vec), time });
    }

    /// Sets everything.
    pub(super) fn apply(&self, root: BorrowedFd<'_>) -> Result<(), UnpackError> {
        for directory in &self.directories {
            // It may have been replaced by a later entry: then there is nothing to set.
            let path = Path::new(OsStr::from_bytes(&directory.path));
            let flags = OFlags::DIRECTORY | OFlags::RDONLY;
            let Ok(dir) = davit_sys::beneath::open(root, path, flags, Mode::empty()) else { continue };
            if let Some(mode) = directory.mode {
                rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode))
                    .map_err(|e| io_error("set the mode of", &directory.path, e))?;
            }
            if let Some(acl) = &directory.acl {
                attributes::set_xattr(dir.as_fd(), DEFAULT_ACL, acl, &directory.path)?;
            }
            attributes::times_of(dir.as_fd(), directory.time)
                .map_err(|e| io_error("set the time of", &directory.path, e))?;
        }
        Ok(())
    }
}
