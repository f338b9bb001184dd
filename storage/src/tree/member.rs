//! One file of a tree with everything that a tar says of it, opened so that nothing is followed and nothing blocks.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use davit_cowfs::is_reserved_xattr;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat};

use crate::tarball::{Entry, Kind, SparseMap, Time};

/// A file of a tree, described and opened.
pub(super) struct Member {
    /// What its header says.
    pub(super) entry: Entry,
    /// Its data, or the directory itself.
    pub(super) opened: Opened,
    /// Device, inode, number of names.
    pub(super) identity: (u64, u64),
    pub(super) links: u64,
}

/// What there is to read of it.
pub(super) enum Opened {
    /// Of a regular file.
    File(File),
    /// A directory, to be listed.
    Directory(OwnedFd),
    /// Nothing more.
    Nothing,
}

/// Describes `name` in `dir` as `path`. `None`: a socket, which no tar can hold.
pub(super) fn read(dir: BorrowedFd<'_>, name: &OsStr, path: Vec<u8>) -> io::Result<Option<Member>> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let (stat, opened) = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => return Ok(None),
        FileType::Directory => {
            let fd = rustix::fs::openat(dir, name, directory_flags(), Mode::empty())?;
            (rustix::fs::fstat(&fd)?, Opened::Directory(fd))
        }
        FileType::RegularFile => {
            // Another kind of file may have taken its place: only what is known to be regular is opened for reading.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
            let stat = rustix::fs::fstat(&fd)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(rustix::io::Errno::NOENT.into());
            }
            let again = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let file = File::from(rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
            (stat, Opened::File(file))
        }
        _ => (stat, Opened::Nothing),
    };
    let mut entry = described(&stat, path);
    if entry.kind == Kind::Symlink {
        entry.link = rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes();
    }
    entry.xattrs = match &opened {
        Opened::File(file) => attributes_of(file.as_fd())?,
        Opened::Directory(fd) => attributes_of(fd.as_fd())?,
        Opened::Nothing => kept(davit_sys::xattr::all_at(dir, name)?),
    };
    Ok(Some(Member { entry, opened, identity: (stat.st_dev, stat.st_ino), links: stat.st_nlink }))
}

/// Describes an open directory as `path`.
pub(super) fn of_directory(fd: BorrowedFd<'_>, path: Vec<u8>) -> io::Result<Entry> {
    let mut entry = described(&rustix::fs::fstat(fd)?, path);
    entry.xattrs = attributes_of(fd)?;
    Ok(entry)
}

/// Flags to open a directory for listing without following a link.
pub(super) fn directory_flags() -> OFlags {
    OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// The type of a file as tars name it.
pub(super) fn kind_of(stat: &Stat) -> Kind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Fifo => Kind::Fifo,
        _ => Kind::File,
    }
}

fn described(stat: &Stat, mut path: Vec<u8>) -> Entry {
    let kind = kind_of(stat);
    if kind == Kind::Directory && !path.ends_with(b"/") {
        path.push(b'/');
    }
    let device = match kind {
        Kind::CharDevice | Kind::BlockDevice => {
            (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
        }
        _ => (0, 0),
    };
    let (uid, gid) = super::ids::inside(stat.st_uid, stat.st_gid);
    Entry {
        path,
        link: Vec::new(),
        kind,
        mode: stat.st_mode & 0o7777,
        uid,
        gid,
        mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
        size: if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
        device,
        xattrs: Vec::new(),
        sparse: None,
    }
}

pub(super) fn attributes_of(fd: BorrowedFd<'_>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut all = Vec::new();
    for name in davit_sys::xattr::list(fd)? {
        // One that has gone meanwhile is none.
        if let Some(value) = davit_sys::xattr::get(fd, &name)? {
            all.push((name, value));
        }
    }
    Ok(kept(all))
}

/// overlayfs's own attributes and labels of this host's security modules are no part of the tree. Sorted.
pub(super) fn kept(all: Vec<(std::ffi::OsString, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let wanted = |name: &[u8]| {
        let foreign = name.starts_with(b"security.") && name != b"security.capability";
        !is_reserved_xattr(name) && !foreign
    };
    let mut kept: Vec<_> = all
        .into_iter()
        .filter(|(name, _)| wanted(name.as_bytes()))
        .map(|(name, value)| (name.into_vec(), value))
        .collect();
    kept.sort();
    kept
}

/// The names in a directory, sorted, without "." and "..". `None`: more bytes of names than are held in memory.
pub(super) fn names(dir: BorrowedFd<'_>) -> io::Result<Option<Vec<Box<[u8]>>>> {
    let mut names: Vec<Box<[u8]>> = Vec::new();
    let mut held = 0;
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        held += name.len() + size_of::<Box<[u8]>>();
        if held > MAX_NAMES {
            return Ok(None);
        }
        names.push(name.into());
    }
    names.sort_unstable();
    // A directory that is changed while it is read may answer a name twice.
    names.dedup();
    Ok(Some(names))
}

/// Some million entries.
const MAX_NAMES: usize = 128 << 20;
/// Holes of fewer bytes are written as zeros: not every reader knows sparse members.
const WORTH_IT: u64 = 16 << 20;
/// Our own reader, and others, bound the number of parts.
const MAX_PARTS: usize = 4096;

/// Where a file has data (lseek(2), SEEK_DATA and SEEK_HOLE); `None` when it is not worth to be written as sparse.
pub(super) fn sparse_map(file: &File, size: u64, blocks: u64) -> Option<SparseMap> {
    if size.saturating_sub(blocks * 512) < WORTH_IT {
        return None;
    }
    let mut parts = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            // Nothing but a hole until the end.
            Err(rustix::io::Errno::NXIO) => break,
            Err(_) => return None,
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start)).ok()?.min(size);
        if end <= start || parts.len() == MAX_PARTS {
            return None;
        }
        parts.push((start, end - start));
        at = end;
    }
    // The file's end shows in the last part, also when it is a hole: GNU tar writes it so.
    if parts.last().is_none_or(|(offset, length)| offset + length < size) {
        parts.push((size, 0));
    }
    let data: u64 = parts.iter().map(|p| p.1).sum();
    (size - data >= WORTH_IT).then_some(SparseMap { parts, real_size: size })
}
