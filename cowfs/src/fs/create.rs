//! Making files, directories, devices and symbolic links in the upper layer.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::attributes::{S_ISGID, S_ISUID};
use super::find::{Hit, Probe, is_dir};
use super::shown::decode_rdev;
use super::{CowFs, name_of};
use crate::at::{At, fd_xattr};
use crate::failpoint::pass;
use crate::fds::Key;
use crate::name::OPAQUE_VALUE;
use crate::table::{Fd, Real, UPPER};
use crate::types::{Attr, Caller, Ino};
use crate::work::Work;

/// What is to be made.
#[derive(Debug)]
enum Make<'a> {
    Regular(u32),
    Directory(u32),
    Node(FileType, u32, u64),
    Symlink(&'a CStr),
}

/// What was made: a regular file is open.
struct Made {
    stat: Stat,
    fd: Option<Fd>,
}

impl Made {
    fn at(&self, dir: &Fd, name: &CStr) -> At {
        self.fd.as_ref().map_or_else(|| At::name(dir, name), |fd| At::Fd(Arc::clone(fd)))
    }
}

const DEFAULT_ACL: &CStr = c"system.posix_acl_default";

impl CowFs {
    /// Makes a regular file, device, fifo or socket and looks it up. `rdev` as in [`Attr`]. A character device 0:0 is EPERM: it would be a
    /// whiteout.
    pub fn mknod(
        &self,
        parent: Ino,
        name: &[u8],
        mode: u32,
        rdev: u32,
        caller: &Caller,
    ) -> Result<Attr, Errno> {
        let kind = FileType::from_raw_mode(mode);
        let bits = mode & 0o7777;
        match kind {
            FileType::RegularFile | FileType::Unknown => self.make(parent, name, Make::Regular(bits), caller),
            FileType::CharacterDevice if rdev == 0 => Err(Errno::PERM),
            FileType::Directory | FileType::Symlink => Err(Errno::INVAL),
            kind => self.make(parent, name, Make::Node(kind, bits, decode_rdev(rdev)), caller),
        }
    }

    /// mkdir(2) and a lookup.
    pub fn mkdir(&self, parent: Ino, name: &[u8], mode: u32, caller: &Caller) -> Result<Attr, Errno> {
        self.make(parent, name, Make::Directory(mode & 0o7777), caller)
    }

    /// symlink(2) and a lookup.
    pub fn symlink(&self, parent: Ino, name: &[u8], target: &[u8], caller: &Caller) -> Result<Attr, Errno> {
        let target = CString::new(target).map_err(|_| Errno::INVAL)?;
        self.make(parent, name, Make::Symlink(&target), caller)
    }

    fn make(&self, parent: Ino, name: &[u8], what: Make<'_>, caller: &Caller) -> Result<Attr, Errno> {
        let name = name_of(name)?;
        if self.is_aufs(&name) {
            return Err(Errno::INVAL);
        }
        let dir = self.upper_dir(parent)?;
        self.check_free(parent, &name)?;
        let what = self.masked(what, parent, &dir, caller)?;
        let owner = self.owner(caller)?;
        let covered = matches!(what, Make::Directory(_)) && self.has_aufs_whiteout(&dir, &name)?;
        let asked = self.moment();
        let turn = self.times_turn([parent; 2]);
        let made = if covered { Err(Errno::EXIST) } else { self.make_in(&dir, &name, &what, owner) };
        let made = match made {
            Err(Errno::EXIST) if self.is_whited_out(&dir, &name)? => {
                self.make_over_whiteout(parent, &dir, &name, &what, owner)?
            }
            other => other?,
        };
        drop(turn);
        let ino = self.ino(self.layer(UPPER).fs, made.stat.st_ino);
        let reals =
            matches!(what, Make::Directory(_)).then(|| Arc::from([Real { layer: UPPER, path: None }]));
        let hit =
            Hit { ino, layer: UPPER, stat: made.stat, reals, redirect: None, index: None, data: None, asked };
        if let Some(fd) = made.fd {
            self.fds.put(Key::File(ino), fd, true);
        }
        let attr = self.enter(parent, &name, &hit, 1)?;
        if matches!(what, Make::Regular(_)) {
            self.table().opened(ino);
        }
        Ok(attr)
    }

    /// Makes something. What fails for want of a descriptor has made nothing, and is tried again.
    fn make_in(&self, dir: &Fd, name: &CStr, what: &Make<'_>, owner: (u32, u32)) -> Result<Made, Errno> {
        self.with_room(|| make_as(self.ids, owner, dir, name, what))
    }

    /// EEXIST if a lower layer has a name; of the upper, making it says so.
    pub(super) fn check_free(&self, parent: Ino, name: &CStr) -> Result<(), Errno> {
        let asked = self.missing().take().is_some_and(|(dir, missing)| dir == parent && *missing == *name);
        if !asked && self.reals(parent)?.len() > 1 && self.find(parent, name)?.is_some() {
            return Err(Errno::EXIST);
        }
        Ok(())
    }

    /// The owner of what a caller makes, as it is on disk.
    fn owner(&self, caller: &Caller) -> Result<(u32, u32), Errno> {
        let uid = if self.squash.uid.is_some() { Some(0) } else { self.uid_map.to_disk(caller.uid) };
        let gid = if self.squash.gid.is_some() { Some(0) } else { self.gid_map.to_disk(caller.gid) };
        // EOVERFLOW is what the VFS says of ids without a place in the file system (open(2)).
        uid.zip(gid).ok_or(Errno::OVERFLOW)
    }

    /// Applies the umask, which a default ACL of the directory takes the place of.
    fn masked<'a>(&self, what: Make<'a>, parent: Ino, dir: &Fd, caller: &Caller) -> Result<Make<'a>, Errno> {
        if caller.umask == 0 || matches!(what, Make::Symlink(_)) || self.has_default_acl(parent, dir)? {
            return Ok(what);
        }
        Ok(match what {
            Make::Regular(mode) => Make::Regular(mode & !caller.umask),
            Make::Directory(mode) => Make::Directory(mode & !caller.umask),
            Make::Node(kind, mode, dev) => Make::Node(kind, mode & !caller.umask, dev),
            Make::Symlink(target) => Make::Symlink(target),
        })
    }

    fn has_default_acl(&self, parent: Ino, dir: &Fd) -> Result<bool, Errno> {
        if let Some(known) = self.table().dir(parent)?.default_acl {
            return Ok(known);
        }
        let has = fd_xattr(dir, DEFAULT_ACL)?.is_some();
        if let Some(known) = self.table().dir_mut(parent) {
            known.default_acl = Some(has);
        }
        Ok(has)
    }

    /// Whether the upper hides a name.
    pub(super) fn is_whited_out(&self, dir: &Fd, name: &CStr) -> Result<bool, Errno> {
        Ok(match self.probe(dir, name, UPPER)? {
            Probe::Whiteout => true,
            Probe::Absent => self.has_aufs_whiteout(dir, name)?,
            Probe::There(_) => false,
        })
    }

    /// Makes something where the upper has a whiteout: beside it, then in its place in one step.
    fn make_over_whiteout(
        &self,
        parent: Ino,
        dir: &Fd,
        name: &CStr,
        what: &Make<'_>,
        owner: (u32, u32),
    ) -> Result<Made, Errno> {
        let work = self.work()?;
        let fresh = work.fresh();
        let nursery = self.nursery(work, parent, dir)?;
        let place = nursery.as_ref().map_or(&work.dir, |n| &n.1);
        let finish = || {
            let mut made = self.make_in(place, &fresh, what, owner)?;
            pass("create.made");
            if matches!(what, Make::Directory(_)) {
                // What the lower layers have under this name must not show through.
                let at = At::name(place, &fresh);
                at.set_xattr(&self.attr.opaque, OPAQUE_VALUE, XattrFlags::empty())?;
                let rename = |flags| rustix::fs::renameat_with(place, fresh.as_c_str(), dir, name, flags);
                match rename(RenameFlags::EXCHANGE) {
                    Err(Errno::NOENT) => rename(RenameFlags::NOREPLACE)?, // the whiteout has a name of its own (aufs)
                    other => {
                        other?;
                        rustix::fs::unlinkat(place, fresh.as_c_str(), AtFlags::empty())?;
                    }
                }
                made.stat = At::name(dir, name).stat()?;
            } else {
                rustix::fs::renameat(place, fresh.as_c_str(), dir, name)?;
            }
            Ok(made)
        };
        let made = finish();
        pass("create.placed");
        if made.is_err() {
            let _ = rustix::fs::unlinkat(place, fresh.as_c_str(), AtFlags::empty());
            let _ = rustix::fs::unlinkat(place, fresh.as_c_str(), AtFlags::REMOVEDIR);
        }
        if let Some((name, _)) = nursery {
            work.discard(&name);
        }
        made
    }

    /// A directory in the work directory that gives what is made in it the group and the ACL that `dir` would; `None` if it would give
    /// none.
    fn nursery(&self, work: &Work, parent: Ino, dir: &Fd) -> Result<Option<(CString, Fd)>, Errno> {
        let stat = rustix::fs::fstat(dir)?;
        let acl = if self.has_default_acl(parent, dir)? { fd_xattr(dir, DEFAULT_ACL)? } else { None };
        if stat.st_mode & S_ISGID == 0 && acl.is_none() {
            return Ok(None);
        }
        let name = work.fresh();
        rustix::fs::mkdirat(&work.dir, name.as_c_str(), Mode::RWXU)?;
        let made = || {
            let at = At::name(&work.dir, &name);
            at.chown(None, Some(stat.st_gid))?;
            at.chmod(0o777 | stat.st_mode & S_ISGID)?;
            if let Some(acl) = acl {
                at.set_xattr(DEFAULT_ACL, &acl, XattrFlags::empty())?;
            }
            self.open_child_dir(&work.dir, &name)
        };
        match made() {
            Ok(fd) => Ok(Some((name, Arc::new(fd)))),
            Err(e) => {
                work.discard(&name);
                Err(e)
            }
        }
    }
}

fn make_at(dir: &Fd, name: &CStr, what: &Make<'_>) -> Result<Made, Errno> {
    let bits = |mode: u32| Mode::from_raw_mode(mode);
    match what {
        Make::Regular(mode) => {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(dir, name, flags, bits(*mode))?;
            let stat = rustix::fs::fstat(&fd)?;
            return Ok(Made { stat, fd: Some(Arc::new(fd)) });
        }
        Make::Directory(mode) => rustix::fs::mkdirat(dir, name, bits(*mode))?,
        Make::Node(kind, mode, dev) => rustix::fs::mknodat(dir, name, *kind, bits(*mode), *dev)?,
        Make::Symlink(target) => rustix::fs::symlinkat(*target, dir, name)?,
    }
    Ok(Made { stat: At::name(dir, name).stat()?, fd: None })
}

/// Makes something as its owner, so that no crash can leave it another's. Where the owner may not (the work directory, or a group of the
/// caller's that we do not know of; the kernel has already decided that the caller may), it is made as this process and given away.
fn make_as(
    own: (u32, u32),
    owner: (u32, u32),
    dir: &Fd,
    name: &CStr,
    what: &Make<'_>,
) -> Result<Made, Errno> {
    if owner == own {
        return make_at(dir, name, what);
    }
    let made = match davit_sys::fs_ids::with(owner.0, owner.1, || make_at(dir, name, what)) {
        Err(Errno::ACCESS | Errno::PERM) => make_at(dir, name, what)?,
        Ok(made) if made.stat.st_uid != owner.0 => made, // it may not take on these ids
        Ok(made) => return keep_set_group_id(dir, name, what, made),
        Err(e) => return Err(e),
    };
    let at = made.at(dir, name);
    give_away(&at, made, owner, dir).inspect_err(|_| {
        let flags = if matches!(what, Make::Directory(_)) { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let _ = rustix::fs::unlinkat(dir, name, flags);
    })
}

/// In a set-group-id directory, set-group-id stays on what is made by those who are in its group or have CAP_FSETID (mode_strip_sgid in
/// fs/inode.c). The kernel has decided that before it came here; that we make it without those groups must not decide again.
fn keep_set_group_id(dir: &Fd, name: &CStr, what: &Make<'_>, mut made: Made) -> Result<Made, Errno> {
    let (Make::Regular(asked) | Make::Node(_, asked, _)) = what else { return Ok(made) };
    if asked & S_ISGID == 0 || made.stat.st_mode & S_ISGID != 0 {
        return Ok(made);
    }
    let at = made.at(dir, name);
    at.chmod(made.stat.st_mode | S_ISGID)?;
    made.stat = at.stat()?;
    Ok(made)
}

fn give_away(at: &At, mut made: Made, owner: (u32, u32), dir: &Fd) -> Result<Made, Errno> {
    let inherits_group = rustix::fs::fstat(dir)?.st_mode & S_ISGID != 0;
    at.chown(Some(owner.0), (!inherits_group).then_some(owner.1))?;
    let mode = made.stat.st_mode;
    if mode & (S_ISUID | S_ISGID) != 0 && !is_dir(&made.stat) {
        at.chmod(mode)?; // which chown has taken away
    }
    made.stat = at.stat()?;
    Ok(made)
}
