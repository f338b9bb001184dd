//! `tmpcopyup`: a tmpfs begins with a copy of the directory that it covers.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use davit_sys::rootfs::open_in_root;
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};

use crate::error::{Context, Result};

/// Copies what is at `path` inside the root into the (still detached) mount.
pub fn fill(root: BorrowedFd<'_>, path: &Path, into: BorrowedFd<'_>) -> Result<()> {
    let opened = open_in_root(root, path, OFlags::RDONLY | OFlags::DIRECTORY);
    let from = opened.context(|| format!("open {} to copy it up", path.display()))?;
    copy(&from, into, 0).context(|| format!("copy up {}", path.display()))
}

fn copy(from: &OwnedFd, to: BorrowedFd<'_>, depth: u32) -> io::Result<()> {
    if depth > 256 {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    let nofollow = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                let source = rustix::fs::openat(
                    from,
                    name,
                    OFlags::RDONLY | OFlags::DIRECTORY | nofollow,
                    Mode::empty(),
                )?;
                let target = rustix::fs::openat(
                    to,
                    name,
                    OFlags::RDONLY | OFlags::DIRECTORY | nofollow,
                    Mode::empty(),
                )?;
                copy(&source, target.as_fd(), depth + 1)?;
            }
            FileType::RegularFile => {
                let source = rustix::fs::openat(from, name, OFlags::RDONLY | nofollow, Mode::empty())?;
                let target = rustix::fs::openat(
                    to,
                    name,
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | nofollow,
                    Mode::RWXU,
                )?;
                io::copy(&mut std::fs::File::from(source), &mut std::fs::File::from(target))?;
            }
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&*link, to, name)?;
            }
            kind => rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?,
        }
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
        }
    }
    Ok(())
}
