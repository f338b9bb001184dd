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

/// The mode of directories that no entry names.
pub(super) const IMPLIED_MODE: u32 = 0o755;

/// An open directory of the tree.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) dir: Rc<OwnedFd>,
    /// Where it really is, links on the way resolved; "" is the root.
    pub(super) path: Rc<[u8]>,
    /// Its group; what is made in it gets this one where the file system or a setgid bit wants it so.
    gid: u32,
}

impl Place {
    fn new(dir: OwnedFd, path: &[u8]) -> rustix::io::Result<Self> {
        let gid = rustix::fs::fstat(&dir)?.st_gid;
        Ok(Self { dir: Rc::new(dir), path: path.into(), gid })
    }

    /// The path of a name in it.
    pub(super) fn join(&self, name: &OsStr) -> Vec<u8> {
        below(&self.path, name.as_bytes())
    }

    /// Whether a file made here by a process of this group surely gets this group.
    pub(super) fn gives(&self, gid: u32) -> bool {
        self.gid == gid
    }
}

fn below(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    if !directory.is_empty() {
        path.extend_from_slice(directory);
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// A directory that was made on the way to another one.
pub(super) struct Step {
    pub(super) path: Vec<u8>,
    /// Something else was there before.
    pub(super) replaced: bool,
    /// That was a whiteout.
    pub(super) opaque: bool,
}

/// Resolves parents below one root and remembers the last one, since archives go directory by directory.
pub(super) struct Walk {
    root: Place,
    namespace: Namespace,
    last: Option<(PathBuf, Place)>,
    steps: Vec<Step>,
}

impl Walk {
    pub(super) fn new(root: OwnedFd, namespace: Namespace) -> rustix::io::Result<Self> {
        Ok(Self { root: Place::new(root, b"")?, namespace, last: None, steps: Vec::new() })
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.dir.as_fd()
    }

    pub(super) fn root_place(&self) -> Place {
        self.root.clone()
    }

    /// After the root's owner has changed.
    pub(super) fn look_at_root_again(&mut self) -> rustix::io::Result<()> {
        self.root.gid = rustix::fs::fstat(&self.root.dir)?.st_gid;
        Ok(())
    }

    /// To be called when something that may be on the remembered path is replaced or gets another owner.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// What was made since the last call.
    pub(super) fn take_steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    /// The directory of these components. Missing ones are made (0755), links are followed inside the root only.
    pub(super) fn parent(&mut self, parents: &[&[u8]], path: &[u8]) -> Result<Place, UnpackError> {
        if parents.is_empty() {
            return Ok(self.root.clone());
        }
        let wanted = join(parents);
        if let Some((known, place)) = &self.last
            && *known == wanted
        {
            return Ok(place.clone());
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY;
        let place = match davit_sys::beneath::open(self.root(), &wanted, flags, Mode::empty()) {
            Ok(dir) => {
                Place::new(dir, wanted.as_os_str().as_bytes()).map_err(|e| io_error("look at", path, e))?
            }
            Err(_) => self.slowly(&wanted, path, true)?,
        };
        self.last = Some((wanted, place.clone()));
        Ok(place)
    }

    /// The directory that must exist already, for the target of a hard link.
    pub(super) fn existing(&mut self, parents: &[&[u8]], path: &[u8]) -> Result<Place, UnpackError> {
        if parents.is_empty() {
            return Ok(self.root.clone());
        }
        self.slowly(&join(parents), path, false)
    }

    fn slowly(&mut self, wanted: &Path, path: &[u8], make: bool) -> Result<Place, UnpackError> {
        let mut stack = vec![self.root.clone()];
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
            let here = stack.last().unwrap_or(&self.root).clone();
            let dir = here.dir.as_fd();
            match kind_at(dir, &name) {
                Ok(FileType::Directory) => {}
                Ok(FileType::Symlink) => {
                    links += 1;
                    let target = rustix::fs::readlinkat(dir, name.as_os_str(), Vec::new())
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
                    make_implied(dir, &name).map_err(|e| io_error("create a directory for", path, e))?;
                    self.steps.push(Step { path: here.join(&name), replaced: false, opaque: false });
                }
                // An earlier whiteout or file in the way of a directory: the later entry wins, as in docker.
                Ok(kind) if make => {
                    let opaque = self
                        .replace_by_directory(dir, &name, kind)
                        .map_err(|e| io_error("replace a parent of", path, e))?;
                    self.steps.push(Step { path: here.join(&name), replaced: true, opaque });
                }
                Ok(_) => return Err(io_error("open", path, rustix::io::Errno::NOTDIR)),
                Err(e) => return Err(io_error("open", path, e)),
            }
            let next = open_dir(dir, &name)
                .and_then(|d| Place::new(d, &here.join(&name)))
                .map_err(|e| io_error("open", path, e))?;
            stack.push(next);
        }
        Ok(stack.pop().unwrap_or_else(|| self.root.clone()))
    }

    /// Answers whether it was made opaque.
    fn replace_by_directory(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        old: FileType,
    ) -> std::io::Result<bool> {
        rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
        make_implied(dir, name)?;
        if old == FileType::CharacterDevice {
            // What the whiteout hid stays hidden.
            let made = open_dir(dir, name)?;
            davit_sys::xattr::set(made.as_fd(), OsStr::new(self.namespace.opaque()), OPAQUE_VALUE)?;
        }
        Ok(old == FileType::CharacterDevice)
    }
}

/// With root's group and this mode whatever our umask and the parent's setgid bit say.
fn make_implied(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(IMPLIED_MODE))?;
    let made = open_dir(dir, name)?;
    let gid = rustix::process::getegid();
    if rustix::fs::fstat(&made)?.st_gid != gid.as_raw() {
        rustix::fs::fchown(&made, None, Some(gid))?;
    }
    rustix::fs::fchmod(&made, Mode::from_raw_mode(IMPLIED_MODE))
}
