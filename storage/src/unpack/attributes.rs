//! Owner, mode, xattrs and times, in the order in which none undoes another: chown clears setuid bits and capabilities.
//!
//! A call that would change nothing is left out: of 60,000 files in an image nearly all belong to root and have a mode that
//! open(2) gives them by itself.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid};

use super::deferred::DEFAULT_ACL;
use super::{Options, UnpackError, io_error};
use crate::tarball::{Entry, Kind, Time};

/// What a file gets that this process makes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Creation {
    pub(super) uid: u32,
    pub(super) gid: u32,
    umask: u32,
}

impl Creation {
    pub(super) fn of_this_process() -> Self {
        static UMASK: OnceLock<u32> = OnceLock::new();
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            umask: *UMASK.get_or_init(umask),
        }
    }

    /// The mode to create with, and whether it is the wanted one already.
    pub(super) fn mode(self, wanted: u32) -> (Mode, bool) {
        if wanted & (0o7000 | self.umask) == 0 {
            (Mode::from_raw_mode(wanted), true)
        } else {
            (Mode::RUSR | Mode::WUSR | (Mode::from_raw_mode(wanted) & Mode::XUSR), false)
        }
    }
}

/// umask(2) can only be read by setting it, which other threads would notice; /proc tells it (Linux 4.7). Where it does not,
/// every mode is set by chmod.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("Umask:"));
    line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o777)
}

/// What a file has now.
pub(super) struct Applied<'e> {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) xattrs: Vec<(&'e [u8], &'e [u8])>,
}

/// How a file was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    /// By whom.
    pub(super) creation: Creation,
    /// With this group: the process's, or its directory's.
    pub(super) gid: u32,
    /// It has the wanted mode already.
    pub(super) mode_is_right: bool,
}

/// Of an open file or directory: all but the times. `deferred` attributes come later.
pub(super) fn of_descriptor<'e>(
    fd: BorrowedFd<'_>,
    entry: &'e Entry,
    options: &Options,
    made: Option<Made>,
    deferred: u32,
) -> Result<Applied<'e>, UnpackError> {
    let right = made.is_some_and(|m| m.creation.uid == entry.uid && m.gid == entry.gid);
    let owned = right || owned(rustix::fs::fchown(fd, Some(uid(entry)), Some(gid(entry))), entry, options)?;
    let mode = mode(entry, owned);
    if !(right && made.is_some_and(|m| m.mode_is_right)) || deferred != 0 {
        rustix::fs::fchmod(fd, Mode::from_raw_mode(mode & !deferred))
            .map_err(|e| io_error("set the mode of", &entry.path, e))?;
    }
    let mut xattrs = Vec::new();
    for (name, value) in wanted(entry) {
        if tolerate(davit_sys::xattr::set(fd, OsStr::from_bytes(name), value), name, &entry.path)? {
            xattrs.push((name, value));
        }
    }
    Ok(applied(entry, owned, mode, xattrs))
}

/// Of what cannot be opened (links, devices, fifos): everything.
pub(super) fn of_name<'e>(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    entry: &'e Entry,
    options: &Options,
) -> Result<Applied<'e>, UnpackError> {
    let chown = rustix::fs::chownat(dir, name, Some(uid(entry)), Some(gid(entry)), AtFlags::SYMLINK_NOFOLLOW);
    let owned = owned(chown, entry, options)?;
    let mut mode = mode(entry, owned);
    if entry.kind == Kind::Symlink {
        mode = 0o777;
    } else {
        // It is no link, having been made just now, so that following it is not possible.
        rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())
            .map_err(|e| io_error("set the mode of", &entry.path, e))?;
    }
    let mut xattrs = Vec::new();
    for (attribute, value) in wanted(entry) {
        let set = davit_sys::xattr::set_at(dir, name, OsStr::from_bytes(attribute), value);
        if tolerate(set, attribute, &entry.path)? {
            xattrs.push((attribute, value));
        }
    }
    rustix::fs::utimensat(dir, name, &stamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| io_error("set the time of", &entry.path, e))?;
    Ok(applied(entry, owned, mode, xattrs))
}

fn applied<'e>(entry: &Entry, owned: bool, mode: u32, xattrs: Vec<(&'e [u8], &'e [u8])>) -> Applied<'e> {
    if owned {
        return Applied { mode, uid: entry.uid, gid: entry.gid, xattrs };
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Applied { mode, uid, gid, xattrs }
}

/// Times of an open file.
pub(super) fn times_of(fd: BorrowedFd<'_>, time: Time) -> io::Result<()> {
    Ok(rustix::fs::futimens(fd, &stamps(time))?)
}

fn stamps(time: Time) -> Timestamps {
    let at = Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) };
    Timestamps { last_access: at, last_modification: at }
}

fn uid(entry: &Entry) -> Uid {
    Uid::from_raw(entry.uid)
}

fn gid(entry: &Entry) -> Gid {
    Gid::from_raw(entry.gid)
}

/// EINVAL says that the id does not exist in this user namespace. A plain user without a range of ids keeps everything
/// as its own then; answers whether the owner is the right one.
fn owned(chown: rustix::io::Result<()>, entry: &Entry, options: &Options) -> Result<bool, UnpackError> {
    match chown {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::INVAL) if options.rootless => Ok(false),
        Err(e) => Err(io_error("set the owner of", &entry.path, e)),
    }
}

/// A setuid bit under a wrong owner would give the wrong rights.
fn mode(entry: &Entry, owned: bool) -> u32 {
    if owned { entry.mode } else { entry.mode & !0o6000 }
}

/// overlayfs's own attributes are never taken from an image, nor labels of another host's security modules. A directory's
/// default ACL is set when all is in it.
fn wanted(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    all_wanted(entry).filter(|(name, _)| entry.kind != Kind::Directory || *name != DEFAULT_ACL)
}

/// The same with the default ACL.
pub(super) fn all_wanted(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    let taken = |name: &[u8]| {
        let security = name.starts_with(b"security.") && name != b"security.capability";
        !davit_cowfs::is_reserved_xattr(name) && !security && !name.contains(&0)
    };
    entry
        .xattrs
        .iter()
        .filter(move |(name, _)| taken(name))
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
}

/// Sets one attribute of an open file; answers whether it is there now.
pub(super) fn set_xattr(
    fd: BorrowedFd<'_>,
    name: &[u8],
    value: &[u8],
    path: &[u8],
) -> Result<bool, UnpackError> {
    tolerate(davit_sys::xattr::set(fd, OsStr::from_bytes(name), value), name, path)
}

/// A file system without room for an attribute does not make an image unusable; losing a capability would.
fn tolerate(set: io::Result<()>, name: &[u8], path: &[u8]) -> Result<bool, UnpackError> {
    match set {
        Ok(()) => Ok(true),
        Err(e) if name != b"security.capability" && davit_sys::xattr::is_unsupported(&e) => Ok(false),
        Err(e) if name != b"security.capability" && e.kind() == io::ErrorKind::InvalidInput => Ok(false),
        Err(e) => Err(io_error("set an attribute of", path, e)),
    }
}
