//! From a path in an archive to the directory that holds its last component, without ever leaving the root.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use davit_cowfs::{Namespace, OPAQUE_VALUE};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::{UnpackError, io_error, open_dir, unsafe_path};

/// docker's and the kernel's bound on a path.
pub(super) const MAX_PATH: usize = 4096;
/// The kernel's bound on one name (NAME_MAX).
const MAX_NAME: usize = 255;
/// The kernel's bound on links in one path.
const MAX_LINKS: usize = 40;

/// Splits a path: "/" and "." are dropped, ".." and zero bytes refused.
pub(super) fn components(path: &[u8]) -> Result<Vec<&[u8]>, UnpackError> {
    if path.len() > MAX_PATH || path.contains(&0) {
        return Err(unsafe_path(path));
    }
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(unsafe_path(path)),
            part if part.len() > MAX_NAME => return Err(unsafe_path(path)),
            _ => parts.push(part),
        }
    }
    Ok(parts)
}

/// The components as a path again.
pub(super) fn join(components: &[&[u8]]) -> PathBuf {
    components.iter().map(|c| OsStr::from_bytes(c)).collect()
}

/// What is at a name, links not followed.
pub(super) fn kind_at(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<FileType> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map(|s| FileType::from_raw_mode(s.st_mode))
}

/// Resolves parents below one root and remembers the last one, since archives go directory by directory.
pub(super) struct Walk {
    root: Rc<OwnedFd>,
    namespace: Namespace,
    last: Option<(PathBuf, Rc<OwnedFd>)>,
}

impl Walk {
    pub(super) fn new(root: OwnedFd, namespace: Namespace) -> Self {
        Self { root: Rc::new(root), namespace, last: None }
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// To be called when something that may be on the remembered path is replaced.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// The directory of these components. Missing ones are made (0755), links are followed inside the root only.
    pub(super) fn parent(&mut self, parents: &[&[u8]], path: &[u8]) -> Result<Rc<OwnedFd>, UnpackError> {
        if parents.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        let wanted = join(parents);
        if let Some((known, dir)) = &self.last
            && *known == wanted
        {
            return Ok(Rc::clone(dir));
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY;
        let dir = match davit_sys::beneath::open(self.root.as_fd(), &wanted, flags, Mode::empty()) {
            Ok(dir) => Rc::new(dir),
            Err(_) => self.slowly(&wanted, path, true)?,
        };
        self.last = Some((wanted, Rc::clone(&dir)));
        Ok(dir)
    }

    /// The directory that must exist already, for the target of a hard link.
    pub(super) fn existing(&self, parents: &[&[u8]], path: &[u8]) -> Result<Rc<OwnedFd>, UnpackError> {
        if parents.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        self.slowly(&join(parents), path, false)
    }

    fn slowly(&self, wanted: &Path, path: &[u8], make: bool) -> Result<Rc<OwnedFd>, UnpackError> {
        let mut stack = vec![Rc::clone(&self.root)];
        let mut todo: Vec<OsString> = wanted.iter().rev().map(OsStr::to_os_string).collect();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match name.as_bytes() {
                b"." | b"" => continue,
                b".." => {
                    // Of a link's target; like chroot, ".." of the root is the root.
                    if stack.len() > 1 {
                        stack.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let here = stack.last().map_or_else(|| self.root.as_fd(), |d| d.as_fd());
            match kind_at(here, &name) {
                Ok(FileType::Directory) => {}
                Ok(FileType::Symlink) => {
                    links += 1;
                    let target = rustix::fs::readlinkat(here, name.as_os_str(), Vec::new())
                        .map_err(|e| io_error("follow", path, e))?
                        .into_bytes();
                    if links > MAX_LINKS || todo.len() + target.len() > MAX_PATH {
                        return Err(unsafe_path(path));
                    }
                    if target.starts_with(b"/") {
                        stack.truncate(1);
                    }
                    todo.extend(target.rsplit(|b| *b == b'/').map(|c| OsString::from_vec(c.to_vec())));
                    continue;
                }
                Err(rustix::io::Errno::NOENT) if make => {
                    rustix::fs::mkdirat(here, name.as_os_str(), Mode::from_raw_mode(0o755))
                        .map_err(|e| io_error("create a directory for", path, e))?;
                }
                // An earlier whiteout or file in the way of a directory: the later entry wins, as in docker.
                Ok(kind) if make => {
                    self.replace_by_directory(here, &name, kind)
                        .map_err(|e| io_error("replace a parent of", path, e))?;
                }
                Ok(_) => return Err(io_error("open", path, rustix::io::Errno::NOTDIR)),
                Err(e) => return Err(io_error("open", path, e)),
            }
            let next = open_dir(here, &name).map_err(|e| io_error("open", path, e))?;
            stack.push(Rc::new(next));
        }
        Ok(stack.pop().unwrap_or_else(|| Rc::clone(&self.root)))
    }

    fn replace_by_directory(&self, dir: BorrowedFd<'_>, name: &OsStr, old: FileType) -> std::io::Result<()> {
        rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
        rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755))?;
        if old == FileType::CharacterDevice {
            // What the whiteout hid stays hidden.
            let made = open_dir(dir, name)?;
            davit_sys::xattr::set(made.as_fd(), OsStr::new(self.namespace.opaque()), OPAQUE_VALUE)?;
        }
        Ok(())
    }
}
