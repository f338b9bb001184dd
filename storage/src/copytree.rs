//! Copying a tree with everything that a file has: owner, mode, times, xattrs, hard links, devices.
//!
//! Content is shared with the source where the file system can (`data`), and holes stay holes.
//!
//! Both trees are walked by descriptors and no link is followed. A layer may be laid over what earlier layers left: its
//! whiteouts delete, its opaque directories clear.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use davit_cowfs::{Namespace, is_reserved_xattr};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps};

mod data;

use data::DataCopier;

/// What is being copied.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    /// Files as they are.
    Plain,
    /// A layer in overlay format, over what is there.
    Layer(Namespace),
    /// What a container wrote, into an empty directory: with the marks of an overlay (whiteouts, opaque directories, copied-up names) and
    /// sockets, which have their names. What goes meanwhile is left out.
    Upper,
}

/// Copies what is in one directory into another, and the directory's own attributes.
pub fn copy_tree(from: &Path, to: &Path, source: Source) -> io::Result<()> {
    let open =
        |p: &Path| rustix::fs::open(p, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    copy_open_tree(open(from)?.as_fd(), open(to)?.as_fd(), source)
}

/// The same for open directories.
pub fn copy_open_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>, source: Source) -> io::Result<()> {
    static GO_ON: AtomicBool = AtomicBool::new(false);
    copy_unless(&GO_ON, from, to, source)
}

/// The same, given up with [`io::ErrorKind::Interrupted`] when `stop` is set.
pub fn copy_unless(
    stop: &AtomicBool,
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    source: Source,
) -> io::Result<()> {
    let root = to.try_clone_to_owned()?;
    let mut copier = Copier { source, root, links: HashMap::new(), data: DataCopier::default(), stop };
    copier.directory(from, to, &mut PathBuf::new())
}

struct Copier<'a> {
    source: Source,
    root: OwnedFd,
    /// Where a file of several names was first copied to.
    links: HashMap<(u64, u64), PathBuf>,
    data: DataCopier,
    stop: &'a AtomicBool,
}

impl Copier<'_> {
    fn directory(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &mut PathBuf) -> io::Result<()> {
        if let Source::Layer(namespace) = self.source
            && davit_sys::xattr::get(from, OsStr::new(namespace.opaque()))?.is_some_and(|v| v == b"y")
        {
            clear(to)?;
        }
        // A directory that is laid over must not hand its default ACL to what is made in it.
        match davit_sys::xattr::remove(to, OsStr::new("system.posix_acl_default")) {
            Err(e) if !davit_sys::xattr::is_unsupported(&e) => return Err(e),
            _ => {}
        }
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if matches!(name.as_bytes(), b"." | b"..") {
                continue;
            }
            path.push(name);
            match self.entry(from, to, name, path) {
                Err(e) if self.is_upper() && e.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
            path.pop();
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        let stat = rustix::fs::fstat(from)?;
        rustix::fs::fchown(to, Some(uid(&stat)), Some(gid(&stat)))?;
        rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        // Of a directory that was there and is laid over, only the upper one's attributes count.
        let kept = davit_sys::xattr::list(from)?;
        for name in davit_sys::xattr::list(to)? {
            if !is_reserved_xattr(name.as_bytes()) && !kept.contains(&name) {
                davit_sys::xattr::remove(to, &name)?;
            }
        }
        self.xattrs(from, to)?;
        Ok(rustix::fs::futimens(to, &times(&stat))?)
    }

    fn is_upper(&self) -> bool {
        matches!(self.source, Source::Upper)
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &OsStr,
        path: &mut PathBuf,
    ) -> io::Result<()> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let directory = kind == FileType::Directory;
        let there = rustix::fs::statat(to, name, AtFlags::SYMLINK_NOFOLLOW).ok();
        let merges =
            directory && there.is_some_and(|t| FileType::from_raw_mode(t.st_mode) == FileType::Directory);
        if there.is_some() && !merges {
            crate::trash::delete_in(to, name)?;
        }
        let whiteout = kind == FileType::CharacterDevice && stat.st_rdev == 0;
        if whiteout && matches!(self.source, Source::Layer(_)) {
            return Ok(());
        }
        if directory {
            if !merges {
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            }
            return self.directory(open_dir(from, name)?.as_fd(), open_dir(to, name)?.as_fd(), path);
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                return Ok(rustix::fs::linkat(&self.root, first, to, name, AtFlags::empty())?);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        match kind {
            FileType::RegularFile => return self.file(from, to, name, &stat),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(OsStr::from_bytes(target.as_bytes()), to, name)?;
            }
            FileType::Socket if !self.is_upper() => return Ok(()),
            kind => {
                rustix::fs::mknodat(
                    to,
                    name,
                    kind,
                    Mode::from_raw_mode(stat.st_mode & 0o7777),
                    stat.st_rdev,
                )?;
            }
        }
        rustix::fs::chownat(to, name, Some(uid(&stat)), Some(gid(&stat)), AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != FileType::Symlink {
            rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
        }
        self.xattrs_at(from, to, name)?;
        Ok(rustix::fs::utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn file(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &OsStr,
        stat: &Stat,
    ) -> io::Result<()> {
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut source = File::from(rustix::fs::openat(from, name, read, Mode::empty())?);
        let mut target = File::from(rustix::fs::openat(to, name, write, Mode::RUSR | Mode::WUSR)?);
        self.data.copy(&mut source, &mut target, stat.st_size as u64)?;
        rustix::fs::fchown(&target, Some(uid(stat)), Some(gid(stat)))?;
        rustix::fs::fchmod(&target, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        self.xattrs(source.as_fd(), target.as_fd())?;
        Ok(rustix::fs::futimens(&target, &times(stat))?)
    }

    /// Whether an attribute stays behind: an overlay's marks in what is no layer any more, and the identity of one overlay in another.
    fn stays_behind(&self, name: &OsStr) -> bool {
        let name = name.as_bytes();
        if self.is_upper() { name.ends_with(b".overlay.uuid") } else { is_reserved_xattr(name) }
    }

    fn xattrs(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
        for name in davit_sys::xattr::list(from)? {
            if self.stays_behind(&name) {
                continue;
            }
            let Some(value) = davit_sys::xattr::get(from, &name)? else { continue };
            match davit_sys::xattr::set(to, &name, &value) {
                Err(e) if !davit_sys::xattr::is_unsupported(&e) => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// The same for what has no descriptor: symbolic links, devices, fifos.
    fn xattrs_at(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        for attribute in davit_sys::xattr::list_at(from, name)? {
            if self.stays_behind(&attribute) {
                continue;
            }
            let Some(value) = davit_sys::xattr::get_at(from, name, &attribute)? else { continue };
            match davit_sys::xattr::set_at(to, name, &attribute, &value) {
                Err(e) if !davit_sys::xattr::is_unsupported(&e) => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Empties a directory.
pub(crate) fn clear(dir: BorrowedFd<'_>) -> io::Result<()> {
    let mut names: Vec<OsString> = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(OsStr::from_bytes(name).to_os_string());
        }
    }
    names.iter().try_for_each(|n| Ok(crate::trash::delete_in(dir, n)?))
}

fn open_dir(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn uid(stat: &Stat) -> rustix::fs::Uid {
    rustix::fs::Uid::from_raw(stat.st_uid)
}

fn gid(stat: &Stat) -> rustix::fs::Gid {
    rustix::fs::Gid::from_raw(stat.st_gid)
}

fn times(stat: &Stat) -> Timestamps {
    let at = |seconds: i64, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as i64 };
    Timestamps {
        last_access: at(stat.st_atime, stat.st_atime_nsec),
        last_modification: at(stat.st_mtime, stat.st_mtime_nsec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn hard_links_stay_links_and_times_stay() {
        let tmp = tempfile::tempdir().unwrap();
        let (a, b) = (tmp.path().join("a"), tmp.path().join("b"));
        std::fs::create_dir_all(a.join("sub")).unwrap();
        std::fs::create_dir(&b).unwrap();
        std::fs::write(a.join("one"), "text").unwrap();
        std::fs::hard_link(a.join("one"), a.join("sub/two")).unwrap();
        std::os::unix::fs::symlink("/etc", a.join("link")).unwrap();
        copy_tree(&a, &b, Source::Plain).unwrap();
        let (one, two) = (b.join("one").metadata().unwrap(), b.join("sub/two").metadata().unwrap());
        assert_eq!(one.ino(), two.ino());
        assert_eq!(one.mtime_nsec(), a.join("one").metadata().unwrap().mtime_nsec());
        assert_eq!(std::fs::read_link(b.join("link")).unwrap(), Path::new("/etc"));
    }

    #[test]
    fn a_directory_laid_over_another_has_only_its_own_attributes() {
        let tmp = tempfile::tempdir().unwrap();
        let (a, b) = (tmp.path().join("a"), tmp.path().join("b"));
        for dir in [&a, &b] {
            std::fs::create_dir_all(dir.join("sub")).unwrap();
        }
        let set = |path: &Path, name: &str| {
            let open = File::open(path).unwrap();
            davit_sys::xattr::set(open.as_fd(), OsStr::new(name), b"v").unwrap();
        };
        set(&a.join("sub"), "user.upper");
        set(&b.join("sub"), "user.lower");
        // user::rwx,group::r-x,other::---, as the kernel keeps it (acl(5)): 0750 for whatever is made there.
        let acl = [
            2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 0, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255,
            255, 255, 255,
        ];
        let open = File::open(b.join("sub")).unwrap();
        davit_sys::xattr::set(open.as_fd(), OsStr::new("system.posix_acl_default"), &acl).unwrap();
        std::fs::create_dir(a.join("sub/dir")).unwrap();
        copy_tree(&a, &b, Source::Layer(Namespace::Trusted)).unwrap();
        let names = |path: &Path| davit_sys::xattr::list(File::open(path).unwrap().as_fd()).unwrap();
        assert_eq!(names(&b.join("sub")), ["user.upper"]);
        assert_eq!(names(&b.join("sub/dir")), Vec::<OsString>::new());
    }
}
