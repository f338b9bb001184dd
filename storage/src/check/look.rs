//! Looking at one layer's directory by descriptors: nothing is followed, and a tree may be deeper than there are
//! descriptors or than a path may be long.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use super::expected::Kind;
use super::pace::Pace;
use crate::tarball::Time;

/// A piece of a path that one system call takes for sure (PATH_MAX is 4096).
const PIECE: usize = 3000;

/// What is at a path.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) kind: FileType,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
    pub(super) size: u64,
    pub(super) device: (u32, u32),
    pub(super) inode: u64,
    pub(super) links: u64,
}

impl Found {
    pub(super) fn is_whiteout(&self) -> bool {
        self.kind == FileType::CharacterDevice && self.device == davit_cowfs::WHITEOUT_RDEV
    }
}

/// Opens a directory below `root`, however deep.
pub(super) fn open_dir(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    let mut rest = path;
    let mut at: Option<OwnedFd> = None;
    loop {
        let here = at.as_ref().map_or(root, |fd| fd.as_fd());
        let cut = if rest.len() <= PIECE {
            rest.len()
        } else {
            rest[..PIECE].iter().rposition(|b| *b == b'/').unwrap_or(PIECE)
        };
        let piece = Path::new(OsStr::from_bytes(&rest[..cut]));
        let next = davit_sys::beneath::open(here, piece, flags, Mode::empty()).map_err(|e| e.source)?;
        if cut == rest.len() {
            return Ok(next);
        }
        at = Some(next);
        rest = &rest[cut + 1..];
    }
}

/// The names in a directory.
pub(super) fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    Ok(names)
}

/// What a name is; `None` when it is not there. "." is the directory itself.
pub(super) fn at(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Found>> {
    let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    Ok(Some(Found {
        kind: FileType::from_raw_mode(stat.st_mode),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
        size: stat.st_size as u64,
        device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        inode: stat.st_ino,
        links: stat.st_nlink as u64,
    }))
}

/// The attributes that belong to an image or to overlayfs. Labels of this host's security modules are neither.
pub(super) fn xattrs(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for attribute in davit_sys::xattr::list_at(dir, name)? {
        let bytes = attribute.as_bytes();
        if bytes.starts_with(b"security.") && bytes != b"security.capability" {
            continue;
        }
        if let Some(value) = davit_sys::xattr::get_at(dir, name, &attribute)? {
            all.insert(bytes.to_vec(), value);
        }
    }
    Ok(all)
}

/// Size and BLAKE3 digest of a regular file.
pub(super) fn digest(dir: BorrowedFd<'_>, name: &OsStr, pace: &mut Pace<'_>) -> io::Result<(u64, [u8; 32])> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    let mut hasher = blake3::Hasher::new();
    let size = pace.read_all(&mut file, |bytes| {
        hasher.update(bytes);
    })?;
    Ok((size, *hasher.finalize().as_bytes()))
}

/// Where a symbolic link points.
pub(super) fn target(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes())
}

/// The kind of a name as a ledger knows it, without a file's content; `None` for a socket.
pub(super) fn kind(found: &Found, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Kind>> {
    let (major, minor) = found.device;
    Ok(Some(match found.kind {
        FileType::RegularFile => Kind::File { size: found.size, digest: [0; 32] },
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink { target: target(dir, name)? },
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice if found.is_whiteout() => Kind::Whiteout,
        FileType::CharacterDevice => Kind::CharDevice(major, minor),
        FileType::BlockDevice => Kind::BlockDevice(major, minor),
        _ => return Ok(None),
    }))
}
