//! Whiteouts as aufs spelt them, in layers that were unpacked for fuse-overlayfs: `.wh.NAME` hides NAME, `.wh..wh..opq` makes its directory
//! opaque.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

use rustix::fs::{AtFlags, RawDir};
use rustix::io::Errno;

use super::CowFs;
use crate::table::{Fd, LayerNo, Real};
use crate::types::Ino;

/// aufs's whiteouts are named like this and what they hide,
const AUFS: &[u8] = b".wh.";
/// and an opaque directory has the whiteout of this.
pub(super) const AUFS_OPAQUE: &CStr = c".wh..opq";

/// Questions in vain before a directory is listed.
const QUESTIONS: u8 = 8;
/// The most names that are listed for it.
const LISTED: usize = 4096;

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
        let (plain, _) = self.table().dir(parent)?.plain;
        let may_hide = |layer: LayerNo| layer >= 64 || plain & (1 << layer) == 0;
        for real in reals.iter().filter(|r| may_hide(r.layer)) {
            let dir = self.dir_fd(parent, real.layer)?;
            if self.has_aufs_whiteout(&dir, name)? {
                return Ok(true);
            }
            self.learn(parent, real.layer, &dir)?;
        }
        Ok(false)
    }

    /// After some questions in vain, looks whether a directory of a layer has any such whiteout at all: layers do not get new ones.
    fn learn(&self, parent: Ino, layer: LayerNo, dir: &Fd) -> Result<(), Errno> {
        let again = {
            let mut table = self.table();
            let Some(known) = table.dir_mut(parent) else { return Ok(()) };
            known.plain.1 = known.plain.1.wrapping_add(1);
            known.plain.1.is_multiple_of(QUESTIONS)
        };
        if layer < 64
            && again
            && self.has_none(dir)?
            && let Some(known) = self.table().dir_mut(parent)
        {
            known.plain.0 |= 1 << layer;
        }
        Ok(())
    }

    /// Whether a directory that is not too large has no such whiteout.
    fn has_none(&self, dir: &Fd) -> Result<bool, Errno> {
        let own = self.open_child_dir(dir, c".")?;
        let mut buf = [MaybeUninit::<u8>::uninit(); 16384];
        let mut entries = RawDir::new(&own, &mut buf);
        let mut seen = 0;
        while let Some(entry) = entries.next() {
            seen += 1;
            if entry?.file_name().to_bytes().starts_with(AUFS) || seen > LISTED {
                return Ok(false);
            }
        }
        Ok(true)
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
