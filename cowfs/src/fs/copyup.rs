//! Copying up: before anything of a lower layer changes, it is made anew in the upper layer.
//!
//! ```text
//! made in the work directory -> data, owner, xattrs, mode, times, origin -> (fsync) -> renamed into its place
//! ```
//! The rename is the only step that can be seen, so that a crash leaves either the lower file or the whole copy.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::sync::Arc;

use davit_sys::file_handle;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::CowFs;
use super::attributes::{read_link, times_of};
use crate::at::At;
use crate::copy::copy_data;
use crate::failpoint::pass;
use crate::fds::Key;
use crate::origin;
use crate::table::{Fd, Place, UPPER};
use crate::types::{Ino, ROOT};
use crate::work::Work;

impl CowFs {
    /// Makes sure that an inode's file is in the upper layer.
    pub(super) fn copy_up(&self, ino: Ino) -> Result<(), Errno> {
        self.copy_up_to(ino, None)
    }

    /// The same, of a file that will be cut to `size` at once.
    pub(super) fn copy_up_to(&self, ino: Ino, size: Option<u64>) -> Result<(), Errno> {
        if self.is_whole(ino)? {
            return Ok(());
        }
        if self.table().is_dir(ino) {
            return self.upper_dir(ino).map(drop);
        }
        let _turn = self.busy.turn(ino);
        self.copy_up_in_turn(ino, size)
    }

    /// Whether it is in the upper layer with its data.
    fn is_whole(&self, ino: Ino) -> Result<bool, Errno> {
        let table = self.table();
        Ok(table.layer(ino).ok_or(Errno::STALE)? == UPPER && table.data(ino).is_none())
    }

    /// Copies a file up. The caller has its turn.
    pub(super) fn copy_up_in_turn(&self, ino: Ino, size: Option<u64>) -> Result<(), Errno> {
        if self.is_whole(ino)? {
            return Ok(());
        }
        let work = self.work()?;
        let (place, data) = {
            let table = self.table();
            (table.place(ino)?, table.data(ino))
        };
        let source = self.at(&place)?;
        let stat = source.stat()?;
        let named = match &place {
            Place::Named { parent, name, .. } => Some((self.upper_dir(*parent)?, *parent, name.clone())),
            _ => None,
        };
        let data = match data {
            Some((layer, path)) => self.file_at(layer, &path)?.ok_or(Errno::IO)?,
            None => source.clone(),
        };
        let fresh = work.fresh();
        let placed = self.copy_to(work, &fresh, &source, &data, &stat, size).and_then(|copy| {
            let origin = if place.layer() == UPPER { None } else { self.origin(&source, &stat) };
            self.put_in_place(work, &fresh, &copy, ino, &place, named.as_ref(), &stat, origin.as_deref())?;
            Ok(copy)
        });
        if let (Ok(At::Fd(copy)), Some(_)) = (&placed, &named) {
            // Whoever wanted it copied up will want it.
            let mut table = self.table();
            if table.layer(ino) == Some(UPPER) {
                table.opened(ino);
                let _closed_unlocked = self.fds.put(Key::File(ino), Arc::clone(copy), true);
                drop(table);
            }
        }
        placed.map(drop).inspect_err(|_| {
            if place.layer() != UPPER {
                self.aliases.forget(&[ino]); // the copy's number becomes another's
            }
            work.discard(&fresh);
        })
    }

    /// The origin xattr's value for a lower object, where its file system has handles with inode numbers.
    fn origin(&self, source: &At, stat: &Stat) -> Option<Vec<u8>> {
        let handle = match source {
            At::Name(dir, name) => file_handle::of(dir.as_fd(), name),
            At::Fd(fd) => file_handle::of(fd.as_fd(), c""),
        };
        let handle = handle.ok().filter(|h| origin::ino(h) == Some(stat.st_ino))?;
        let uuid = self.layers[1..].iter().flatten().find(|l| l.dev == stat.st_dev)?.uuid;
        self.fs_of_uuid(uuid)?;
        origin::encode(&handle, uuid)
    }

    /// Makes a copy in the work directory. Answers where it is: open, if it is a regular file.
    fn copy_to(
        &self,
        work: &Work,
        fresh: &CString,
        source: &At,
        data: &At,
        stat: &Stat,
        size: Option<u64>,
    ) -> Result<At, Errno> {
        // As it will be, so that nothing is left to change; nobody else looks in here.
        let mode = Mode::from_raw_mode(stat.st_mode & 0o777) | Mode::RUSR | Mode::WUSR;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let target =
                    self.with_room(|| rustix::fs::openat(&work.dir, fresh.as_c_str(), flags, mode))?;
                let target = Arc::new(target);
                pass("copyup.made");
                let from = self.keep_open(data, 1, stat)?;
                let size = size.map_or(stat.st_size as u64, |s| s.min(stat.st_size as u64));
                let real = rustix::fs::fstat(&from)?;
                let layer = self.layers.iter().flatten().find(|l| l.dev == real.st_dev);
                copy_data(&from, &target, size, &real, layer)?;
                let at = At::Fd(Arc::clone(&target));
                if (real.st_dev, real.st_ino) == (stat.st_dev, stat.st_ino) {
                    self.copy_attributes(&At::Fd(from), &at, stat)?;
                } else {
                    self.copy_attributes(source, &at, stat)?; // its data is elsewhere (metacopy)
                }
                if self.sync {
                    rustix::fs::fsync(&target)?;
                }
                pass("copyup.copied");
                return Ok(at);
            }
            FileType::Symlink => {
                let target = CString::new(read_link(source)?).map_err(|_| Errno::IO)?;
                rustix::fs::symlinkat(target.as_c_str(), &work.dir, fresh.as_c_str())?;
            }
            other => rustix::fs::mknodat(&work.dir, fresh.as_c_str(), other, mode, stat.st_rdev)?,
        }
        let at = At::name(&work.dir, fresh);
        self.copy_attributes(source, &at, stat)?;
        pass("copyup.copied");
        Ok(at)
    }

    /// Owner, xattrs, mode and times, as far as they are not so. The mode comes after what changes it, the times last.
    pub(super) fn copy_attributes(&self, source: &At, target: &At, stat: &Stat) -> Result<(), Errno> {
        let new = target.stat()?;
        let given = (new.st_uid, new.st_gid) != (stat.st_uid, stat.st_gid);
        if given {
            target.chown(Some(stat.st_uid), Some(stat.st_gid))?;
        }
        let marked = self.copy_xattrs(source, target)?;
        let changed = given || marked || new.st_mode != stat.st_mode;
        if changed && FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            target.chmod(stat.st_mode)?;
        }
        target.utimens(&times_of(stat))
    }

    /// Answers whether there were any.
    fn copy_xattrs(&self, source: &At, target: &At) -> Result<bool, Errno> {
        let names = match source.xattrs() {
            Ok(names) => names,
            Err(Errno::OPNOTSUPP) => return Ok(false),
            Err(e) => return Err(e),
        };
        for name in names.split(|b| *b == 0).filter(|n| !n.is_empty()) {
            if self.is_own_xattr(name) {
                continue;
            }
            let name = CString::new(name).map_err(|_| Errno::IO)?;
            let Some(value) = source.xattr(&name)? else { continue };
            match target.set_xattr(&name, &value, XattrFlags::empty()) {
                // What this process or the upper's file system may not have: labels, other namespaces.
                Err(Errno::OPNOTSUPP | Errno::PERM) if !name.to_bytes().starts_with(b"user.") => {}
                other => other?,
            }
        }
        Ok(!names.is_empty())
    }

    /// Whether an xattr is this file system's own bookkeeping, which is not copied.
    fn is_own_xattr(&self, name: &[u8]) -> bool {
        name.strip_prefix(self.attr.prefix.as_bytes()).is_some_and(|rest| !rest.starts_with(b"overlay."))
    }

    /// Brings a whole copy into its place and notes that it is there.
    #[allow(clippy::too_many_arguments)] // all of it is what one copy-up knows
    fn put_in_place(
        &self,
        work: &Work,
        fresh: &CString,
        copy: &At,
        ino: Ino,
        place: &Place,
        named: Option<&(Fd, Ino, Vec<u8>)>,
        stat: &Stat,
        origin: Option<&[u8]>,
    ) -> Result<(), Errno> {
        let Some((dir, parent, name)) = named else {
            // Nobody can name it any more: it lives on in a descriptor.
            let fd = self.keep_open(copy, UPPER, stat)?;
            rustix::fs::unlinkat(&work.dir, fresh.as_c_str(), AtFlags::empty())?;
            self.fds.remove([Key::File(ino)]);
            let _old = self.table().copied_up(ino, None, Some(fd));
            return Ok(());
        };
        let name = CString::new(name.as_slice()).map_err(|_| Errno::INVAL)?;
        let lower = place.layer() != UPPER;
        // What lacked its data was copied from somewhere too.
        let before_that = if lower { None } else { self.at(place)?.xattr(&self.attr.origin)? };
        let noted = match origin.or(before_that.as_deref()) {
            Some(origin) => self.set_origin(copy, origin)?,
            None => false,
        };
        let origin = origin.filter(|_| noted && lower);
        if !noted {
            self.aliases.insert(self.upper_ino(&copy.stat()?), ino);
        }
        let linked = stat.st_nlink > 1 && origin.is_some();
        if origin.is_some() {
            self.set_impure(*parent)?;
        }
        let mut index = None;
        if linked {
            index = Some(self.index_copy(work, (fresh, copy), ino, origin.unwrap_or_default(), stat)?);
            pass("copyup.indexed");
        }
        let flags = if lower { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
        let placed = self.unseen((*parent, dir), || {
            rustix::fs::renameat_with(&work.dir, fresh.as_c_str(), dir, name.as_c_str(), flags)?;
            pass("copyup.placed");
            Ok(())
        });
        if let (Err(_), Some(index)) = (&placed, &index) {
            self.unindex_copy(ino, index);
        }
        placed?;
        self.table().copied_up(ino, index, None);
        self.fds.remove([Key::File(ino)]);
        if linked {
            let _ = self.add_to_nlink(&At::name(dir, &name), -1);
            self.link_other_names(ino, (*parent, name.to_bytes()));
        }
        Ok(())
    }

    /// A directory of the upper layer for an inode, made if it is not there.
    pub(super) fn upper_dir(&self, ino: Ino) -> Result<Fd, Errno> {
        if self.table().dir(ino)?.reals[0].layer == UPPER {
            return self.dir_fd(ino, UPPER);
        }
        let work = self.work()?;
        let _turn = self.busy.turn(ino);
        let (reals, parent) = {
            let table = self.table();
            if table.orphan(ino).is_some() {
                return Err(Errno::NOENT);
            }
            (Arc::clone(&table.dir(ino)?.reals), table.parent(ino).ok_or(Errno::STALE)?)
        };
        if reals[0].layer == UPPER {
            return self.dir_fd(ino, UPPER);
        }
        debug_assert_ne!(ino, ROOT, "the root is in the upper if there is one");
        let Place::Named { name, .. } = self.table().place(ino)? else { return Err(Errno::STALE) };
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let above = self.upper_dir(parent)?;
        let source = At::Fd(self.dir_fd(ino, reals[0].layer)?);
        let stat = source.stat()?;
        let fresh = work.fresh();
        rustix::fs::mkdirat(&work.dir, fresh.as_c_str(), Mode::RWXU)?;
        pass("copydir.made");
        let placed = self.place_dir(work, &fresh, ino, &source, &stat, (parent, &above, &name));
        placed.inspect_err(|_| work.discard(&fresh))?;
        self.table().set_reals(ino, Self::with_upper(&reals));
        self.dir_fd(ino, UPPER)
    }

    fn place_dir(
        &self,
        work: &Work,
        fresh: &CString,
        ino: Ino,
        source: &At,
        stat: &Stat,
        (parent, above, name): (Ino, &Fd, &CString),
    ) -> Result<(), Errno> {
        let copy = At::name(&work.dir, fresh);
        self.copy_attributes(source, &copy, stat)?;
        match self.origin(source, stat) {
            Some(origin) if self.set_origin(&copy, &origin)? => self.set_impure(parent)?,
            _ => self.aliases.insert(self.upper_ino(&copy.stat()?), ino),
        }
        pass("copydir.marked");
        self.unseen((parent, above), || {
            let (fresh, flags) = (fresh.as_c_str(), RenameFlags::NOREPLACE);
            rustix::fs::renameat_with(&work.dir, fresh, above, name.as_c_str(), flags)?;
            pass("copydir.placed");
            Ok(())
        })
    }

    /// Notes where a copy came from. `false`: it cannot be noted, as on symbolic links and fifos in the `user.` namespace (xattr(7)): they
    /// get another inode number at the next mount.
    fn set_origin(&self, copy: &At, origin: &[u8]) -> Result<bool, Errno> {
        match copy.set_xattr(&self.attr.origin, origin, XattrFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::PERM | Errno::OPNOTSUPP) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Notes that a directory of the upper holds objects with an origin: the kernel's overlayfs looks for their inode numbers only then.
    pub(super) fn set_impure(&self, dir: Ino) -> Result<(), Errno> {
        if self.impure(dir)? {
            return Ok(());
        }
        let fd = self.dir_fd(dir, UPPER)?;
        At::Fd(fd).set_xattr(&self.attr.impure, b"y", XattrFlags::empty())?;
        if let Some(known) = self.table().dir_mut(dir) {
            known.impure = Some(true);
        }
        Ok(())
    }
}
