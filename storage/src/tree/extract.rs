//! Unpacking a tar into a tree that is in use: `docker cp` in.
//!
//! The tree's programs may change it meanwhile, and links in it are followed, as docker follows them. So this runs on a thread whose
//! root is the tree's root: wherever a link leads, it is inside.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dev, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use super::{TreeError, ids, io_error, shown};
use crate::tarball::{Entry, Kind, Skip, TarReader, Time};

/// The kernel's bound on a path.
const MAX_PATH: usize = 4096;
/// Directories whose times are set at the end.
const MAX_DIRECTORIES: usize = 1 << 20;

/// How a tar is unpacked into a tree.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// Whether a directory and something else may take each other's place.
    pub keep_kinds: bool,
    /// Owners as in the tar; otherwise root.
    pub keep_owner: bool,
}

/// Unpacks below the directory `into`.
pub(super) fn extract<R: Skip>(
    tar: &mut TarReader<R>,
    into: BorrowedFd<'_>,
    rules: Rules,
) -> Result<(), TreeError> {
    let mut extractor = Extractor { into, rules, last: None, directories: Vec::new() };
    while let Some(entry) = tar.next_entry()? {
        extractor.entry(tar, entry)?;
    }
    for (path, time) in extractor.directories.iter().rev() {
        // It may have been removed meanwhile.
        if let Ok(dir) = open_dir(into, path) {
            let _ = rustix::fs::futimens(&dir, &stamps(*time));
        }
    }
    Ok(())
}

struct Extractor<'a> {
    into: BorrowedFd<'a>,
    rules: Rules,
    /// The directory of the last entry.
    last: Option<(Vec<u8>, OwnedFd)>,
    directories: Vec<(Vec<u8>, Time)>,
}

impl Extractor<'_> {
    fn entry<R: Skip>(&mut self, tar: &mut TarReader<R>, mut entry: Entry) -> Result<(), TreeError> {
        let path = clean(&entry.path)?;
        if path.is_empty() {
            // The directory that is unpacked into stays as it is.
            return Ok(());
        }
        if !self.rules.keep_owner {
            (entry.uid, entry.gid) = (0, 0);
        }
        let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path.as_slice()),
        };
        let dir = self.parent(parent, &path)?;
        let name = OsStr::from_bytes(name);
        let made = self
            .make_room(dir.as_fd(), name, &entry, &path)
            .and_then(|there| place(tar, self.into, dir.as_fd(), name, &entry, &path, there));
        self.last = Some((parent.to_vec(), dir));
        made?;
        if entry.kind == Kind::Directory && self.directories.len() < MAX_DIRECTORIES {
            self.directories.push((path, entry.mtime));
        }
        Ok(())
    }

    /// The directory that an entry goes to. Missing ones are made.
    fn parent(&mut self, parent: &[u8], path: &[u8]) -> Result<OwnedFd, TreeError> {
        if let Some((known, dir)) = self.last.take()
            && known == parent
        {
            return Ok(dir);
        }
        match open_dir(self.into, parent) {
            Err(rustix::io::Errno::NOENT) => {}
            other => return other.map_err(|e| io_error("open the directory of", path, e)),
        }
        let mut at = 0;
        loop {
            let end = parent[at..].iter().position(|b| *b == b'/').map_or(parent.len(), |n| at + n);
            let mode = Mode::from_raw_mode(0o755);
            match rustix::fs::mkdirat(self.into, OsStr::from_bytes(&parent[..end]), mode) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(io_error("create a directory of", path, e)),
            }
            if end == parent.len() {
                break;
            }
            at = end + 1;
        }
        open_dir(self.into, parent).map_err(|e| io_error("open the directory of", path, e))
    }

    /// Removes what an entry takes the place of; answers whether a directory is there that stays.
    fn make_room(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        entry: &Entry,
        path: &[u8],
    ) -> Result<bool, TreeError> {
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return Ok(false),
            Err(e) => return Err(io_error("look at", path, e)),
        };
        let was_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        match (was_dir, entry.kind == Kind::Directory) {
            (true, true) => return Ok(true),
            (true, false) if self.rules.keep_kinds => {
                return Err(TreeError::OtherOverDirectory(shown(path)));
            }
            (false, true) if self.rules.keep_kinds => {
                return Err(TreeError::DirectoryOverOther(shown(path)));
            }
            _ => {}
        }
        crate::trash::delete_in(dir, name).map_err(|e| io_error("replace", path, e))?;
        Ok(false)
    }
}

/// Makes one entry.
fn place<R: Skip>(
    tar: &mut TarReader<R>,
    into: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    entry: &Entry,
    path: &[u8],
    there: bool,
) -> Result<(), TreeError> {
    let failed = |operation| move |e: rustix::io::Errno| io_error(operation, path, e);
    match entry.kind {
        Kind::File => return file(tar, dir, name, entry, path),
        Kind::Directory => {
            if !there {
                rustix::fs::mkdirat(dir, name, Mode::RWXU).map_err(failed("create"))?;
            }
            let made = rustix::fs::openat(dir, name, super::member::directory_flags(), Mode::empty())
                .map_err(failed("open"))?;
            return attributes(made.as_fd(), entry, path);
        }
        Kind::HardLink => {
            let target = clean(&entry.link)?;
            return rustix::fs::linkat(into, OsStr::from_bytes(&target), dir, name, AtFlags::empty())
                .map_err(failed("link"));
        }
        Kind::Symlink => {
            rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), dir, name).map_err(failed("create"))?;
        }
        Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => {
            let kind = match entry.kind {
                Kind::Fifo => FileType::Fifo,
                Kind::CharDevice => FileType::CharacterDevice,
                _ => FileType::BlockDevice,
            };
            if kind == FileType::CharacterDevice && entry.device == davit_cowfs::WHITEOUT_RDEV {
                // In the layer below it would delete a file of the image.
                return Ok(());
            }
            let device: Dev = rustix::fs::makedev(entry.device.0, entry.device.1);
            rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(entry.mode), device)
                .map_err(failed("create"))?;
        }
        Kind::Unknown(_) => return Ok(()),
    }
    let (uid, gid) = ids::outside(entry.uid, entry.gid);
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("set the owner of"))?;
    if entry.kind != Kind::Symlink {
        rustix::fs::chmodat(dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
            .map_err(failed("set the mode of"))?;
    }
    rustix::fs::utimensat(dir, name, &stamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("set the time of"))
}

fn file<R: Skip>(
    tar: &mut TarReader<R>,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    entry: &Entry,
    path: &[u8],
) -> Result<(), TreeError> {
    use std::io::{Seek, SeekFrom};
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|e| io_error("create", path, e))?;
    let mut file = File::from(fd);
    let whole = [(0, entry.size)];
    let parts = entry.sparse.as_ref().map_or(&whole[..], |map| &map.parts);
    for (offset, length) in parts {
        file.seek(SeekFrom::Start(*offset)).map_err(|e| io_error("write", path, e))?;
        data(tar, &mut file, *length, path)?;
    }
    if let Some(map) = &entry.sparse {
        file.set_len(map.real_size).map_err(|e| io_error("write", path, e))?;
    }
    attributes(file.as_fd(), entry, path)?;
    rustix::fs::futimens(&file, &stamps(entry.mtime)).map_err(|e| io_error("set the time of", path, e))
}

/// Copies exactly `length` bytes; a failure to read is the archive's.
fn data<R: Skip>(
    tar: &mut TarReader<R>,
    file: &mut File,
    mut length: u64,
    path: &[u8],
) -> Result<(), TreeError> {
    use crate::tarball::TarError;
    use std::io::Write;
    let mut buffer = vec![0u8; 32 << 10];
    let mut from = tar.data();
    while length > 0 {
        let want = buffer.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        let n = match from.read(&mut buffer[..want]) {
            Ok(0) => return Err(TarError::Truncated.into()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(TarError::Truncated.into()),
            Err(e) => return Err(TarError::Read(e).into()),
        };
        file.write_all(&buffer[..n]).map_err(|e| io_error("write", path, e))?;
        length -= n as u64;
    }
    Ok(())
}

/// Owner, mode, attributes: chown clears setuid bits and capabilities, so it comes first.
fn attributes(fd: BorrowedFd<'_>, entry: &Entry, path: &[u8]) -> Result<(), TreeError> {
    let (uid, gid) = ids::outside(entry.uid, entry.gid);
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(|e| io_error("set the owner of", path, e))?;
    let mode = Mode::from_raw_mode(entry.mode);
    rustix::fs::fchmod(fd, mode).map_err(|e| io_error("set the mode of", path, e))?;
    for (name, value) in &entry.xattrs {
        let foreign = name.starts_with(b"security.") && name != b"security.capability";
        if foreign || davit_cowfs::is_reserved_xattr(name) || name.contains(&0) {
            continue;
        }
        match davit_sys::xattr::set(fd, OsStr::from_bytes(name), value) {
            Err(e) if !davit_sys::xattr::is_unsupported(&e) => {
                return Err(io_error("set an attribute of", path, e));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Without "/", "." and empty parts; ".." and zero bytes are refused.
fn clean(path: &[u8]) -> Result<Vec<u8>, TreeError> {
    if path.len() > MAX_PATH || path.contains(&0) {
        return Err(TreeError::UnsafePath(shown(path)));
    }
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(TreeError::UnsafePath(shown(path))),
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

fn open_dir(into: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { &b"."[..] } else { path };
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(into, OsStr::from_bytes(path), flags, Mode::empty())
}

fn stamps(time: Time) -> Timestamps {
    let at = Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) };
    Timestamps { last_access: at, last_modification: at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_up_are_refused() {
        assert_eq!(clean(b"./a//b/.").unwrap(), b"a/b");
        assert_eq!(clean(b"/a").unwrap(), b"a");
        assert!(clean(b"a/../../b").is_err() && clean(b"a\0b").is_err() && clean(&[b'a'; 5000]).is_err());
    }
}
