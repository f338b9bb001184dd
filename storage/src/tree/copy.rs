//! `docker cp`: one file or directory out of a tree as a tar, or a tar into a directory of it.
//!
//! Paths are absolute in the container and resolved in its root, whatever links say: `..` of the path itself is taken away first, all
//! parents are followed, the last component is not, unless a slash or a dot follows it (docker's rules).

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use davit_sys::rootfs;
use rustix::fs::{AtFlags, OFlags, StatVfsMountFlags};

use super::archive::{Archiver, Style};
pub use super::extract::Rules;
use super::extract::extract;
use super::member;
use super::place::Access;
use super::tarwriter::TarWriter;
use super::{Chunks, Tree, TreeError, io_error, vanished};
use crate::compression::Plain;
use crate::digest::Hashing;
use crate::tarball::{TarReader, Time};

/// What is at a path of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// Last component of the path as asked for.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// `st_mode`.
    pub mode: u32,
    /// Of the last modification.
    pub mtime: Time,
    /// Of a symbolic link.
    pub link_target: String,
}

/// A path as docker splits it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    /// The directory whose entry is meant, followed.
    parent: String,
    /// The entry; "." when the directory itself is meant.
    name: String,
    /// What the top of an archive is called.
    shown: String,
}

impl Asked {
    fn parse(path: &str) -> Self {
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let whole = format!("/{}", parts.join("/"));
        let last = path.rsplit('/').next().unwrap_or_default();
        match parts.pop() {
            // "dir/." is what is in it; "dir/" is the directory, be it behind a link.
            Some(_) if last == "." => Self { parent: whole, name: ".".into(), shown: ".".into() },
            Some(name) if last.is_empty() => Self { parent: whole, name: ".".into(), shown: name.into() },
            Some(name) => {
                Self { parent: format!("/{}", parts.join("/")), name: name.into(), shown: name.into() }
            }
            None => Self { parent: "/".into(), name: ".".into(), shown: ".".into() },
        }
    }
}

/// Tells what is at `path`, then writes it as a tar. `tell` answers whether the archive is wanted.
pub fn copy_out(
    tree: &Tree,
    path: &str,
    follow_link: bool,
    tell: impl FnOnce(PathStat) -> bool + Send + 'static,
    out: Chunks,
) -> Result<(), TreeError> {
    let (key, path) = (tree.key.clone(), path.to_owned());
    tree.enter(Access::Read, move |root| {
        let asked = Asked::parse(&path);
        let missing = || TreeError::NotFound { path: path.clone(), container: key.clone() };
        let mut place = Place::find(root, &asked).map_err(|e| not_there(e, &path, missing()))?;
        if follow_link {
            place = place.followed(root, &asked).map_err(|e| not_there(e, &path, missing()))?;
        }
        let told = place.stat(&asked).map_err(|e| not_there(e, &path, missing()))?;
        if !tell(told) {
            return Ok(());
        }
        let top = asked.shown.as_bytes();
        let read = member::read(place.dir.as_fd(), OsStr::new(&place.name), top.to_vec());
        let found = read.map_err(|e| not_there(e, &path, missing()))?;
        // Sparse members are not understood by everyone who reads such a stream.
        let mut archiver = Archiver::new(TarWriter::new(out), Style { sparse: false });
        if let Some(found) = found
            && let Some(dir) = archiver.member(found, path.as_bytes())?
        {
            archiver.below(dir.as_fd(), top)?;
        }
        archiver.tar.finish().map(drop).map_err(TreeError::Write)
    })
}

/// Unpacks a tar, compressed or not, in the directory at `path`.
pub fn copy_in(
    tree: &Tree,
    path: &str,
    rules: Rules,
    from: impl Read + Send + 'static,
) -> Result<(), TreeError> {
    let (key, path, read_only) = (tree.key.clone(), path.to_owned(), tree.read_only);
    tree.enter(Access::Write, move |root| {
        let whole = Asked::parse(&format!("{path}/"));
        let missing = TreeError::NotFound { path: path.clone(), container: key };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY;
        let into = rootfs::open_in_root(root, Path::new(&whole.parent), flags)
            .map_err(|e| not_there(e, &path, missing))?;
        writable(root, into.as_fd(), read_only)?;
        rootfs::chroot(root).map_err(|e| io_error("enter the root", b"", e))?;
        let plain = Plain::new(from)
            .map_err(|e| io_error("read the archive for", path.as_bytes(), io::Error::other(e)))?;
        extract(&mut TarReader::new(Hashing::new(plain)), into.as_fd(), rules)
    })
}

/// Refuses what the container itself may not write to, in docker's words.
fn writable(root: BorrowedFd<'_>, into: BorrowedFd<'_>, read_only: bool) -> Result<(), TreeError> {
    let failed = |e| io_error("look at", b"", e);
    let same_mount = mount_of(root).map_err(failed)? == mount_of(into).map_err(failed)?;
    let flags = rustix::fs::fstatvfs(into).map_err(failed)?.f_flag;
    match (flags.contains(StatVfsMountFlags::RDONLY), same_mount) {
        (true, true) => Err(TreeError::ReadOnlyRoot),
        (true, false) => Err(TreeError::ReadOnlyMount),
        (false, true) if read_only => Err(TreeError::ReadOnlyRoot),
        _ => Ok(()),
    }
}

fn mount_of(fd: BorrowedFd<'_>) -> rustix::io::Result<u64> {
    let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, rustix::fs::StatxFlags::MNT_ID)?;
    Ok(stat.stx_mnt_id)
}

fn not_there(e: io::Error, path: &str, missing: TreeError) -> TreeError {
    match rustix::io::Errno::from_io_error(&e) {
        Some(rustix::io::Errno::NOTDIR) => TreeError::NotDirectory(path.to_owned()),
        _ if vanished(&e) => missing,
        _ => io_error("open", path.trim_start_matches('/').as_bytes(), e),
    }
}

/// Where something is: an entry of an open directory.
struct Place {
    dir: OwnedFd,
    name: String,
}

impl Place {
    fn find(root: BorrowedFd<'_>, asked: &Asked) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY;
        let dir = rootfs::open_in_root(root, Path::new(&asked.parent), flags)?;
        Ok(Self { dir, name: asked.name.clone() })
    }

    /// Behind a link, inside the root: its target's place, found by resolving link by link.
    fn followed(self, root: BorrowedFd<'_>, asked: &Asked) -> io::Result<Self> {
        let mut at = asked.parent.clone();
        let mut place = self;
        for _ in 0..40 {
            let link = match rustix::fs::readlinkat(&place.dir, OsStr::new(&place.name), Vec::new()) {
                Ok(link) => String::from_utf8_lossy(link.as_bytes()).into_owned(),
                Err(rustix::io::Errno::INVAL) => return Ok(place),
                Err(e) => return Err(e.into()),
            };
            let target = if link.starts_with('/') { link } else { format!("{at}/{link}") };
            let mut behind = Asked::parse(&target);
            if behind.name == "." && behind.parent != "/" {
                behind = Asked::parse(&behind.parent);
            }
            place = Self::find(root, &behind)?;
            at = behind.parent;
        }
        Err(rustix::io::Errno::LOOP.into())
    }

    fn stat(&self, asked: &Asked) -> io::Result<PathStat> {
        let name = OsStr::new(&self.name);
        let stat = rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let link = rustix::fs::readlinkat(&self.dir, name, Vec::new());
        Ok(PathStat {
            name: asked.shown.clone(),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode,
            mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
            link_target: link.map_or_else(
                |_| String::new(),
                |l| OsStr::from_bytes(l.as_bytes()).to_string_lossy().into_owned(),
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_as_docker_splits_them() {
        let asked = |path: &str| {
            let a = Asked::parse(path);
            format!("{} {} {}", a.parent, a.name, a.shown)
        };
        assert_eq!(asked("/etc/hosts"), "/etc hosts hosts");
        assert_eq!(asked("etc/hosts"), "/etc hosts hosts");
        assert_eq!(asked("/etc/"), "/etc . etc");
        assert_eq!(asked("/etc/."), "/etc . .");
        assert_eq!(asked("/"), "/ . .");
        assert_eq!(asked("/a/../../etc/x"), "/etc x x");
        assert_eq!(asked("/a/.."), "/ . .");
    }
}
