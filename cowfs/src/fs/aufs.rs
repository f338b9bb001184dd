//! Whiteouts as aufs spelt them, in layers that were unpacked for fuse-overlayfs: `.wh.NAME` hides NAME, `.wh..wh..opq` makes its directory
//! opaque.

use std::ffi::{CStr, CString};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::CowFs;
use crate::table::{Fd, Real};
use crate::types::Ino;

/// aufs's whiteouts are named like this and what they hide,
const AUFS: &[u8] = b".wh.";
/// and an opaque directory has the whiteout of this.
pub(super) const AUFS_OPAQUE: &CStr = c".wh..opq";

impl CowFs {
    /// Whether a name is bookkeeping in layers with aufs's whiteouts.
    pub(super) fn is_aufs(&self, name: &CStr) -> bool {
        self.aufs && name.to_bytes().starts_with(AUFS)
    }

    /// Whether one of these layers of a directory hides a name as aufs does. Asked only of names that a layer below them has.
    pub(super) fn hidden_by_aufs(&self, parent: Ino, reals: &[Real], name: &CStr) -> Result<bool, Errno> {
        if !self.aufs {
            return Ok(false);
        }
        for real in reals {
            if self.has_aufs_whiteout(&self.dir_fd(parent, real.layer)?, name)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether `.wh.NAME` is there.
    pub(super) fn has_aufs_whiteout(&self, dir: &Fd, name: &CStr) -> Result<bool, Errno> {
        if !self.aufs || name.to_bytes().len() + AUFS.len() > 255 {
            return Ok(false);
        }
        let whiteout = CString::new([AUFS, name.to_bytes()].concat()).map_err(|_| Errno::INVAL)?;
        match rustix::fs::statat(dir, whiteout, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(e) => Err(e),
        }
    }
}
