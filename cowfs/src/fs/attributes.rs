//! Attributes: stat, chmod, chown, truncate, utimens; symbolic links' targets; statvfs.

use std::sync::Arc;

use rustix::fs::{FileType, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::CowFs;
use super::find::is_dir;
use crate::at::At;
use crate::table::{LayerNo, Place, UPPER};
use crate::types::{Attr, Change, Ino, StatFs, TimeChange};

const CAPABILITY: &std::ffi::CStr = c"security.capability";
const UTIME_NOW: i64 = 0x3fff_ffff;
pub(super) const UTIME_OMIT: i64 = 0x3fff_fffe;

pub(super) const S_ISUID: u32 = 0o4000;
pub(super) const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o010;

impl CowFs {
    /// stat(2).
    pub fn getattr(&self, ino: Ino) -> Result<Attr, Errno> {
        self.ask(ino, |at| self.attr_at(at, ino))
    }

    /// The attributes of an inode whose object is known.
    pub(super) fn attr_at(&self, at: &At, ino: Ino) -> Result<Attr, Errno> {
        let stat = self.stat_settled(ino, at)?;
        if is_dir(&stat) {
            let merged = self.table().dir(ino).is_ok_and(|d| d.reals.len() > 1);
            return Ok(self.attr_of(&stat, ino, merged));
        }
        let mut attr = self.attr_of(&stat, ino, false);
        let place = self.table().place(ino);
        match place {
            Ok(Place::Index(_)) => attr.nlink = self.linked_names(at, &stat),
            // Its name is still in the lower layer, and hidden.
            Ok(Place::Orphan { layer, .. }) if layer != UPPER => attr.nlink = 0,
            _ => {}
        }
        if let Some((layer, path)) = self.table().data(ino)
            && let Some(data) = self.file_at(layer, &path)?
        {
            attr.blocks = data.stat()?.st_blocks as u64;
        }
        Ok(attr)
    }

    /// chmod, chown, truncate, utimens in one. Copies the file up first. `blocks`, `ctime` and all else in the answer are as they are then.
    pub fn setattr(&self, ino: Ino, change: &Change) -> Result<Attr, Errno> {
        let to_disk = |map: &crate::config::IdMap, id: Option<u32>| match id {
            Some(id) => map.to_disk(id).map(Some).ok_or(Errno::INVAL),
            None => Ok(None),
        };
        let uid = to_disk(&self.uid_map, change.uid)?;
        let gid = to_disk(&self.gid_map, change.gid)?;
        if let Some(attr) = self.unchanged(ino, change)? {
            return Ok(attr);
        }
        self.copy_up_to(ino, change.size)?;
        if let Some(size) = change.size {
            let fd = self.file_fd(ino, true)?;
            rustix::fs::ftruncate(&fd, size)?;
            if change.kill_privileges && change.mode.is_none() && uid.is_none() && gid.is_none() {
                kill_privileges(&At::Fd(fd))?;
            }
        }
        let (at, layer) = self.locate(ino)?;
        debug_assert_eq!(layer, UPPER, "it was copied up");
        if uid.is_some() || gid.is_some() {
            let squashed = self.squash;
            at.chown(uid.filter(|_| squashed.uid.is_none()), gid.filter(|_| squashed.gid.is_none()))?;
        }
        let only_kill = Change { kill_privileges: true, ..Change::default() };
        if *change == only_kill && !is_dir(&at.stat()?) {
            kill_privileges(&at)?;
        }
        if let Some(mode) = change.mode {
            at.chmod(mode)?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            let directory = self.table().is_dir(ino);
            let _turn = directory.then(|| self.times_turn([ino; 2]));
            at.utimens(&Timestamps {
                last_access: timespec(change.atime),
                last_modification: timespec(change.mtime),
            })?;
        }
        self.attr_at(&at, ino)
    }

    /// The attributes of a lower file that a change leaves as it is: a kernel that keeps times itself (FUSE_WRITEBACK_CACHE) writes them
    /// back after every link, rename and unlink, and nobody will see those of a file without a name.
    fn unchanged(&self, ino: Ino, change: &Change) -> Result<Option<Attr>, Errno> {
        let others = Change { atime: None, mtime: None, ..*change };
        if others != Change::default() || self.table().layer(ino).ok_or(Errno::STALE)? == UPPER {
            return Ok(None);
        }
        let attr = self.getattr(ino)?;
        let same = |new: Option<TimeChange>, old| new.is_none_or(|new| new == TimeChange::At(old));
        let nameless = self.table().orphan(ino).is_some();
        Ok((nameless || (same(change.atime, attr.atime) && same(change.mtime, attr.mtime))).then_some(attr))
    }

    /// readlink(2).
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>, Errno> {
        self.ask(ino, read_link)
    }

    /// statvfs(3) of the upper's file system, or of the topmost lower's.
    pub fn statfs(&self) -> Result<StatFs, Errno> {
        let top = self.layers.iter().flatten().next().expect("there is a lower layer");
        let stat = rustix::fs::fstatvfs(&top.root)?;
        Ok(StatFs {
            blocks: stat.f_blocks,
            blocks_free: stat.f_bfree,
            blocks_available: stat.f_bavail,
            files: stat.f_files,
            files_free: stat.f_ffree,
            block_size: stat.f_bsize as u32,
            fragment_size: stat.f_frsize as u32,
            name_max: stat.f_namemax as u32,
        })
    }

    /// Opens an object where it is, for keeping it: for writing if it is a regular file of the upper, else for reading, or only as a
    /// place.
    pub(super) fn keep_open(&self, at: &At, layer: LayerNo, stat: &Stat) -> Result<crate::table::Fd, Errno> {
        let At::Name(dir, name) = at else {
            let At::Fd(fd) = at else { unreachable!("there are two kinds") };
            return Ok(Arc::clone(fd));
        };
        let common = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let flags = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if layer == UPPER => common | OFlags::RDWR,
            FileType::RegularFile => common | OFlags::RDONLY,
            FileType::Directory => common | OFlags::RDONLY | OFlags::DIRECTORY,
            _ => common | OFlags::PATH,
        };
        match self.open_at(dir, name, flags) {
            Err(Errno::ACCESS | Errno::PERM | Errno::TXTBSY) => {
                match self.open_at(dir, name, common | OFlags::RDONLY | OFlags::NONBLOCK) {
                    Err(Errno::ACCESS | Errno::PERM) => {
                        self.open_at(dir, name, common | OFlags::PATH).map(Arc::new)
                    }
                    other => other.map(Arc::new),
                }
            }
            other => other.map(Arc::new),
        }
    }
}

pub(super) fn read_link(at: &At) -> Result<Vec<u8>, Errno> {
    let target = match at {
        At::Name(dir, name) => rustix::fs::readlinkat(dir, name.as_c_str(), Vec::new())?,
        At::Fd(fd) => rustix::fs::readlinkat(fd, c"", Vec::new())?,
    };
    Ok(target.into_bytes())
}

/// Takes away set-user-id, set-group-id where the group may execute, and file capabilities, as the kernel does for those who write
/// without CAP_FSETID.
pub(super) fn kill_privileges(at: &At) -> Result<(), Errno> {
    let mode = at.stat()?.st_mode;
    let mut left = mode & !S_ISUID;
    if mode & S_IXGRP != 0 {
        left &= !S_ISGID;
    }
    if left != mode {
        at.chmod(left)?;
    }
    match at.remove_xattr(CAPABILITY) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        // Without the right to set them there is an error even if there are none.
        Err(Errno::PERM) if at.xattr(CAPABILITY)?.is_none() => Ok(()),
        Err(e) => Err(e),
    }
}

fn timespec(change: Option<TimeChange>) -> Timespec {
    match change {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(TimeChange::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(TimeChange::At(time)) => Timespec { tv_sec: time.sec, tv_nsec: i64::from(time.nsec) },
    }
}

/// The times of an object, to be given to another.
pub(super) fn times_of(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as i64 },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as i64 },
    }
}
