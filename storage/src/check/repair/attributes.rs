//! Owner, mode, attributes and time of a name as the ledger has them, set in the order in which none undoes another.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid};

use crate::check::compare::Options;
use crate::check::expected::{Kind, Wanted};
use crate::check::look;
use crate::tarball::Time;

/// A time of change; that of access stays.
pub(super) fn times(time: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) },
    }
}

/// Sets everything. `name` is in a directory that nobody else changes, and is of the wanted kind.
pub(super) fn set(dir: BorrowedFd<'_>, name: &OsStr, wanted: &Wanted, options: Options) -> io::Result<()> {
    let there = look::xattrs(dir, name)?;
    for key in there.keys().filter(|k| !wanted.xattrs.contains_key(*k)) {
        davit_sys::xattr::remove_at(dir, name, OsStr::from_bytes(key))?;
    }
    if !wanted.bare {
        let (uid, gid) = (Uid::from_raw(wanted.uid), Gid::from_raw(wanted.gid));
        let owned = match rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => true,
            Err(rustix::io::Errno::INVAL) if options.rootless => false,
            Err(e) => return Err(e.into()),
        };
        if !matches!(wanted.kind, Kind::Symlink { .. }) {
            let mode = if owned { wanted.mode } else { wanted.mode & !0o6000 };
            rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
    }
    for (key, value) in &wanted.xattrs {
        davit_sys::xattr::set_at(dir, name, OsStr::from_bytes(key), value)?;
    }
    if let Some(time) = wanted.mtime {
        rustix::fs::utimensat(dir, name, &times(time), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}
