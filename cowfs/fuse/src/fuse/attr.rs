//! Attributes and times in fuser's words.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use davit_cowfs::{Attr, Kind, Time, TimeChange};
use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

/// No file: as an entry, that there is none.
pub(super) const NONE: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: UNIX_EPOCH,
    mtime: UNIX_EPOCH,
    ctime: UNIX_EPOCH,
    crtime: UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind()),
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: attr.blksize,
        flags: 0,
    }
}

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Fifo => FileType::NamedPipe,
        Kind::CharDevice => FileType::CharDevice,
        Kind::Directory => FileType::Directory,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::Regular => FileType::RegularFile,
        Kind::Symlink => FileType::Symlink,
        Kind::Socket => FileType::Socket,
    }
}

pub(super) fn time_change(time: TimeOrNow) -> TimeChange {
    match time {
        TimeOrNow::Now => TimeChange::Now,
        TimeOrNow::SpecificTime(at) => TimeChange::At(time_of(at)),
    }
}

fn system_time(time: Time) -> SystemTime {
    let seconds = Duration::from_secs(time.sec.unsigned_abs());
    let whole = if time.sec < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    whole.and_then(|t| t.checked_add(Duration::from_nanos(time.nsec.into()))).unwrap_or(UNIX_EPOCH)
}

/// A time that fuser has read from a request. Before 1970 fuser goes back by seconds and nanoseconds where the nanoseconds count forward:
/// what it went back by is what the request said.
fn time_of(at: SystemTime) -> Time {
    match at.duration_since(UNIX_EPOCH) {
        Ok(after) => Time { sec: after.as_secs() as i64, nsec: after.subsec_nanos() },
        Err(before) => {
            let back = before.duration();
            Time { sec: (back.as_secs() as i64).wrapping_neg(), nsec: back.subsec_nanos() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_go_out_as_they_are() {
        let time = Time { sec: -2, nsec: 800_000_000 };
        assert_eq!(UNIX_EPOCH.duration_since(system_time(time)).unwrap(), Duration::new(1, 200_000_000));
        let first = Time { sec: i64::MIN, nsec: 0 };
        assert_eq!(UNIX_EPOCH.duration_since(system_time(first)).unwrap(), Duration::new(1 << 63, 0));
    }

    #[test]
    fn times_before_1970_come_in_as_fuser_mistakes_them() {
        // The request said -2 s and 0.8 s on from there.
        let mistaken = UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(time_of(mistaken), Time { sec: -2, nsec: 800_000_000 });
        assert_eq!(time_of(UNIX_EPOCH + Duration::new(5, 7)), Time { sec: 5, nsec: 7 });
    }
}
