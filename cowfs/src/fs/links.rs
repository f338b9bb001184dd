//! Hard links of lower layers: one file stays one file when it is copied up, whatever name it was changed by.
//!
//! The copy gets a link in the work directory's `index/`, named by its origin, as overlayfs with `index=on` does; names that are still in
//! a lower layer lead to it. The xattr `overlay.nlink` says how many names there are beyond (or short of) the copy's own link count.

use std::ffi::CString;
use std::sync::{Arc, PoisonError};

use rustix::fs::{AtFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::CowFs;
use crate::at::At;
use crate::origin;
use crate::table::Place;
use crate::types::{Attr, Ino};
use crate::work::Work;

impl CowFs {
    /// Enters a copy in the index.
    pub(super) fn index_copy(
        &self,
        work: &Work,
        (fresh, copy): (&CString, &At),
        ino: Ino,
        origin: &[u8],
        lower: &Stat,
    ) -> Result<Arc<[u8]>, Errno> {
        let index = self.index_dir()?;
        let name = CString::new(origin::index_name(origin)).expect("digits");
        // Its own names will be two, here and its place. Until the second is there the count is one too high: names that lead here then
        // outlive a crash, and the entry with them.
        self.set_nlink(copy, lower.st_nlink as i64 - 1)?;
        match rustix::fs::linkat(&work.dir, fresh.as_c_str(), &index, name.as_c_str(), AtFlags::empty()) {
            // Left by a crash between here and the rename; nobody had changed it.
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&index, name.as_c_str(), AtFlags::empty())?;
                rustix::fs::linkat(&work.dir, fresh.as_c_str(), &index, name.as_c_str(), AtFlags::empty())?;
            }
            other => other?,
        }
        let name: Arc<[u8]> = Arc::from(name.as_bytes());
        self.index.lock().unwrap_or_else(PoisonError::into_inner).insert(ino, Arc::clone(&name));
        Ok(name)
    }

    /// Takes a copy that did not come into its place out of the index again.
    pub(super) fn unindex_copy(&self, ino: Ino, index: &Arc<[u8]>) {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).remove(&ino);
        if let (Ok(dir), Ok(name)) = (self.index_dir(), CString::new(&**index)) {
            let _ = rustix::fs::unlinkat(&dir, name.as_c_str(), AtFlags::empty());
        }
    }

    /// Gives a copied-up file all its other names that are known, so that the upper shows them to the kernel's overlayfs too.
    pub(super) fn link_other_names(&self, ino: Ino, placed: (Ino, &[u8])) {
        let names = self.table().all_names(ino);
        for (parent, name) in names {
            if (parent, name.as_slice()) != placed
                && let Err(error) = self.link_name(ino, parent, &name)
            {
                // The index leads there all the same.
                tracing::debug!(%error, "a hard link was not made in the upper layer");
            }
        }
    }

    pub(super) fn link_name(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<(), Errno> {
        let Place::Index(index) = self.table().place(ino)? else { return Ok(()) };
        let index = CString::new(&*index).map_err(|_| Errno::INVAL)?;
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let dir = self.upper_dir(parent)?;
        let from = self.index_dir()?;
        let at = At::Name(Arc::clone(&from), index.clone());
        self.set_impure(parent)?;
        self.unseen((parent, &dir), || {
            rustix::fs::linkat(&from, index.as_c_str(), &dir, name.as_c_str(), AtFlags::empty())
        })?;
        self.add_to_nlink(&at, -1)
    }

    /// The number of names of a file in the index.
    pub(super) fn linked_names(&self, at: &At, stat: &Stat) -> u32 {
        let names = stat.st_nlink as i64 + self.nlink_offset(at);
        u32::try_from(names).unwrap_or(0)
    }

    fn nlink_offset(&self, at: &At) -> i64 {
        let value = at.xattr(&self.attr.nlink).ok().flatten().unwrap_or_default();
        offset_of(&value).map_or(-1, i64::from)
    }

    fn set_nlink(&self, at: &At, offset: i64) -> Result<(), Errno> {
        at.set_xattr(&self.attr.nlink, format!("U{offset:+}").as_bytes(), XattrFlags::empty())
    }

    pub(super) fn add_to_nlink(&self, at: &At, more: i64) -> Result<(), Errno> {
        self.set_nlink(at, self.nlink_offset(at) + more)
    }

    /// A name of an indexed file has gone: one that was only in a lower layer counts in the offset. Without names the entry goes too.
    pub(super) fn index_lost(&self, ino: Ino, index: &Arc<[u8]>, only_lower: bool) -> Result<(), Errno> {
        let name = CString::new(&**index).map_err(|_| Errno::INVAL)?;
        let at = At::Name(self.index_dir()?, name.clone());
        if only_lower {
            self.add_to_nlink(&at, -1)?;
        }
        let stat = at.stat()?;
        if self.linked_names(&at, &stat) == 0 {
            rustix::fs::unlinkat(self.index_dir()?, name.as_c_str(), AtFlags::empty())?;
            self.index.lock().unwrap_or_else(PoisonError::into_inner).remove(&ino);
        }
        Ok(())
    }

    /// link(2) and a lookup.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr, Errno> {
        let name = super::name_of(name)?;
        if self.is_aufs(&name) {
            return Err(Errno::INVAL);
        }
        let work = self.work()?;
        let dir = self.upper_dir(parent)?;
        self.check_free(parent, &name)?;
        let _turn = self.busy.turn(ino);
        self.copy_up_in_turn(ino, None)?;
        let place = self.table().place(ino)?;
        let source = self.at(&place)?;
        let may_have_origin = match &place {
            Place::Named { parent, .. } => self.impure(*parent)?,
            _ => true,
        };
        if may_have_origin && !self.impure(parent)? && source.xattr(&self.attr.origin)?.is_some() {
            self.set_impure(parent)?;
        }
        let link = |dir: &crate::table::Fd, name: &CString| match &source {
            At::Name(from, old) => {
                rustix::fs::linkat(from, old.as_c_str(), dir, name.as_c_str(), AtFlags::empty())
            }
            At::Fd(fd) => {
                let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd));
                rustix::fs::linkat(rustix::fs::CWD, path, dir, name.as_c_str(), AtFlags::SYMLINK_FOLLOW)
            }
        };
        let turn = self.times_turn([parent; 2]);
        match link(&dir, &name) {
            Err(Errno::EXIST) if self.is_whited_out(&dir, &name)? => {
                let fresh = work.fresh();
                link(&work.dir, &fresh)?;
                rustix::fs::renameat(&work.dir, fresh.as_c_str(), &dir, name.as_c_str())
                    .inspect_err(|_| work.discard(&fresh))?;
            }
            other => other?,
        }
        drop(turn);
        self.table().linked(ino, parent, name.to_bytes(), 1)?;
        self.getattr(ino)
    }
}

/// Reads `overlay.nlink`: "U+n" is relative to the upper's link count. overlayfs also writes "L+n" for a moment, relative to the lower's.
fn offset_of(value: &[u8]) -> Option<i32> {
    let text = value.strip_prefix(b"U").and_then(|v| std::str::from_utf8(v).ok());
    text.and_then(|t| t.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_count_of_names_is_read_or_refused(bytes: Vec<u8>, text in "[UL][+-]{0,2}[0-9]{0,20}", offset: i32) {
            for value in [&bytes[..], text.as_bytes()] {
                let read = offset_of(value);
                prop_assert!(read.is_none() || value[0] == b'U');
            }
            prop_assert_eq!(offset_of(format!("U{offset:+}").as_bytes()), Some(offset));
        }
    }
}
