//! Opening paths beneath a directory, so that neither `..` nor a symbolic link in an untrusted tree leads out of it.
//!
//! openat2(2), Linux 5.6, with RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS. Where the call is missing
//! (an older kernel, a seccomp filter) each component is opened on its own with O_NOFOLLOW, which means the same.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// A path could not be opened beneath a directory.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {} beneath {}", path.display(), root.display())]
pub struct BeneathError {
    /// The directory, as /proc names it.
    pub root: PathBuf,
    /// What was asked for.
    pub path: PathBuf,
    /// ELOOP: a component is a symbolic link. EXDEV: the path leads out.
    #[source]
    pub source: io::Error,
}

impl BeneathError {
    /// The errno, when there is one.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

/// Opens `path` beneath `root` without following any symbolic link.
///
/// `path` is relative; "" is `root` itself. A last component that is a symbolic link is ELOOP too.
pub fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, BeneathError> {
    let wanted = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC;
    let opened = match rustix::fs::openat2(root, wanted, flags, mode, resolve) {
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => walk(root, wanted, flags, mode),
        other => other.map_err(io::Error::from),
    };
    opened.map_err(|source| BeneathError { root: name_of(root), path: path.to_path_buf(), source })
}

/// Opens `path` as if `root` were "/": symbolic links are followed, but stay inside (RESOLVE_IN_ROOT).
///
/// There is no fallback where openat2 is missing: the error is ENOSYS.
pub fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, BeneathError> {
    let wanted = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, wanted, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
        .map_err(|e| BeneathError { root: name_of(root), path: path.to_path_buf(), source: e.into() })
}

/// Opens a directory of the host by path, for use as the `root` of the functions above.
pub fn open_root(path: &Path) -> Result<OwnedFd, BeneathError> {
    rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| BeneathError { root: PathBuf::from("/"), path: path.to_path_buf(), source: e.into() })
}

fn walk(root: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let mut names: Vec<&OsStr> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(io::Error::from_raw_os_error(libc::EXDEV));
            }
        }
    }
    let Some((last, parents)) = names.split_last() else {
        return Ok(rustix::fs::openat(root, ".", flags, mode)?);
    };
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at: Option<OwnedFd> = None;
    for name in parents {
        let here = at.as_ref().map_or(root, |fd| fd.as_fd());
        // ENOTDIR is what O_DIRECTORY|O_NOFOLLOW says of a symbolic link; openat2 says ELOOP of it.
        let next =
            rustix::fs::openat(here, *name, step, Mode::empty()).map_err(|e| link_error(here, name, e))?;
        at = Some(next);
    }
    let here = at.as_ref().map_or(root, |fd| fd.as_fd());
    rustix::fs::openat(here, *last, flags | OFlags::NOFOLLOW, mode).map_err(|e| link_error(here, last, e))
}

fn link_error(dir: BorrowedFd<'_>, name: &OsStr, e: rustix::io::Errno) -> io::Error {
    let is_link = rustix::fs::statat(dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode) == rustix::fs::FileType::Symlink);
    if is_link { io::Error::from_raw_os_error(libc::ELOOP) } else { e.into() }
}

/// What /proc calls a descriptor; its number when /proc does not say.
fn name_of(fd: BorrowedFd<'_>) -> PathBuf {
    let number = fd.as_raw_fd();
    std::fs::read_link(format!("/proc/self/fd/{number}"))
        .unwrap_or_else(|_| PathBuf::from(format!("fd {number}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> (PathBuf, OwnedFd) {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("davit-beneath-{}-{n}", std::process::id()));
        std::fs::create_dir_all(dir.join("a/b")).unwrap();
        std::fs::write(dir.join("a/b/file"), "x").unwrap();
        symlink("/etc", dir.join("out")).unwrap();
        symlink("a/b", dir.join("in")).unwrap();
        let fd = open_root(&dir).unwrap();
        (dir, fd)
    }

    type Open = fn(BorrowedFd<'_>, &Path) -> io::Result<OwnedFd>;

    #[test]
    fn both_ways_of_opening_stay_beneath() {
        let (dir, root) = tree();
        let kernel: Open = |root, p| open(root, p, OFlags::RDONLY, Mode::empty()).map_err(|e| e.source);
        let fallback: Open = |root, p| walk(root, p, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        for way in [kernel, fallback] {
            way(root.as_fd(), Path::new("a/b/file")).unwrap();
            way(root.as_fd(), Path::new("./a")).unwrap();
            let errno = |p: &str| way(root.as_fd(), Path::new(p)).unwrap_err().raw_os_error().unwrap();
            assert_eq!(errno("out/passwd"), libc::ELOOP);
            assert_eq!(errno("in/file"), libc::ELOOP);
            assert_eq!(errno("in"), libc::ELOOP);
            assert_eq!(errno("../x"), libc::EXDEV);
            assert_eq!(errno("/etc/passwd"), libc::EXDEV);
            assert_eq!(errno("missing/x"), libc::ENOENT);
            assert_eq!(errno("a/b/file/x"), libc::ENOTDIR);
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn in_root_follows_links_but_keeps_them_inside() {
        let (dir, root) = tree();
        open_in_root(root.as_fd(), Path::new("in/file"), OFlags::RDONLY).unwrap();
        // "out" leads to /etc, which does not exist below this root.
        assert_eq!(
            open_in_root(root.as_fd(), Path::new("out"), OFlags::RDONLY).unwrap_err().errno(),
            Some(libc::ENOENT)
        );
        std::fs::remove_dir_all(dir).unwrap();
    }
}
