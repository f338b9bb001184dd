//! Owner, mode, xattrs and times, in the order in which none undoes another: chown clears setuid bits and capabilities.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid};

use super::{Options, UnpackError, io_error};
use crate::tarball::{Entry, Kind, Time};

/// Of an open file or directory: all but the times.
pub(super) fn of_descriptor(fd: BorrowedFd<'_>, entry: &Entry, options: &Options) -> Result<(), UnpackError> {
    let owned = owned(rustix::fs::fchown(fd, Some(uid(entry)), Some(gid(entry))), entry, options)?;
    rustix::fs::fchmod(fd, mode(entry, owned)).map_err(|e| io_error("set the mode of", &entry.path, e))?;
    for (name, value) in wanted(entry) {
        tolerate(davit_sys::xattr::set(fd, name, value), name, entry)?;
    }
    Ok(())
}

/// Of what cannot be opened (links, devices, fifos): everything.
pub(super) fn of_name(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    entry: &Entry,
    options: &Options,
) -> Result<(), UnpackError> {
    let chown = rustix::fs::chownat(dir, name, Some(uid(entry)), Some(gid(entry)), AtFlags::SYMLINK_NOFOLLOW);
    let owned = owned(chown, entry, options)?;
    if entry.kind != Kind::Symlink {
        // It is no link, having been made just now, so that following it is not possible.
        rustix::fs::chmodat(dir, name, mode(entry, owned), AtFlags::empty())
            .map_err(|e| io_error("set the mode of", &entry.path, e))?;
    }
    for (attribute, value) in wanted(entry) {
        tolerate(davit_sys::xattr::set_at(dir, name, attribute, value), attribute, entry)?;
    }
    rustix::fs::utimensat(dir, name, &stamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| io_error("set the time of", &entry.path, e))
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
fn mode(entry: &Entry, owned: bool) -> Mode {
    Mode::from_raw_mode(if owned { entry.mode } else { entry.mode & !0o6000 })
}

/// overlayfs's own attributes are never taken from an image, nor labels of another host's security modules.
fn wanted(entry: &Entry) -> impl Iterator<Item = (&OsStr, &[u8])> {
    entry
        .xattrs
        .iter()
        .filter(|(name, _)| {
            let security = name.starts_with(b"security.") && name != b"security.capability";
            !davit_cowfs::is_reserved_xattr(name) && !security && !name.contains(&0)
        })
        .map(|(name, value)| (OsStr::from_bytes(name), value.as_slice()))
}

/// A file system without room for an attribute does not make an image unusable; losing a capability would.
fn tolerate(set: io::Result<()>, name: &OsStr, entry: &Entry) -> Result<(), UnpackError> {
    match set {
        Err(e) if name != "security.capability" && davit_sys::xattr::is_unsupported(&e) => Ok(()),
        Err(e) if name != "security.capability" && e.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other.map_err(|e| io_error("set an attribute of", &entry.path, e)),
    }
}
