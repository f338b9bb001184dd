//! An object of a layer, named by a directory and a name or by a descriptor of its own, and what can be asked of it and done to it
//! without following a symbolic link.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Gid, Mode, Stat, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::table::Fd;

/// The object.
#[derive(Debug, Clone)]
pub(crate) enum At {
    /// `name` in a directory.
    Name(Fd, CString),
    /// What a descriptor is open on; it may be O_PATH.
    Fd(Fd),
}

impl At {
    pub(crate) fn name(dir: &Fd, name: &CStr) -> Self {
        Self::Name(Arc::clone(dir), name.to_owned())
    }

    pub(crate) fn stat(&self) -> Result<Stat, Errno> {
        match self {
            Self::Name(dir, name) => rustix::fs::statat(dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW),
            Self::Fd(fd) => rustix::fs::fstat(fd),
        }
    }

    /// A path that means this object to system calls that know no descriptors of this kind (there is no getxattrat(2) before Linux 6.13).
    /// The last component of a `Name` may be a symbolic link and must not be followed; that of an `Fd` must be.
    fn path(&self) -> CString {
        let mut path = Vec::with_capacity(32);
        path.extend_from_slice(b"/proc/self/fd/");
        match self {
            Self::Name(dir, name) => {
                path.extend_from_slice(dir.as_raw_fd().to_string().as_bytes());
                path.push(b'/');
                path.extend_from_slice(name.to_bytes());
            }
            Self::Fd(fd) => path.extend_from_slice(fd.as_raw_fd().to_string().as_bytes()),
        }
        CString::new(path).expect("a name has no zero byte")
    }

    /// Reads an attribute. `None`: it is not there, or the file system has none.
    pub(crate) fn xattr(&self, name: &CStr) -> Result<Option<Vec<u8>>, Errno> {
        match self.xattr_strict(name) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Reads an attribute.
    pub(crate) fn xattr_strict(&self, name: &CStr) -> Result<Vec<u8>, Errno> {
        match self {
            Self::Name(..) => {
                let path = self.path();
                whole(|buf| rustix::fs::lgetxattr(&path, name, buf))
            }
            Self::Fd(fd) => or_by_path(whole(|buf| rustix::fs::fgetxattr(fd, name, buf)), || {
                let path = self.path();
                whole(|buf| rustix::fs::getxattr(&path, name, buf))
            }),
        }
    }

    /// The names of all attributes, each followed by a zero byte.
    pub(crate) fn xattrs(&self) -> Result<Vec<u8>, Errno> {
        match self {
            Self::Name(..) => {
                let path = self.path();
                whole(|buf| rustix::fs::llistxattr(&path, buf))
            }
            Self::Fd(fd) => or_by_path(whole(|buf| rustix::fs::flistxattr(fd, buf)), || {
                let path = self.path();
                whole(|buf| rustix::fs::listxattr(&path, buf))
            }),
        }
    }

    pub(crate) fn set_xattr(&self, name: &CStr, value: &[u8], flags: XattrFlags) -> Result<(), Errno> {
        match self {
            Self::Name(..) => rustix::fs::lsetxattr(self.path(), name, value, flags),
            Self::Fd(fd) => or_by_path(rustix::fs::fsetxattr(fd, name, value, flags), || {
                rustix::fs::setxattr(self.path(), name, value, flags)
            }),
        }
    }

    pub(crate) fn remove_xattr(&self, name: &CStr) -> Result<(), Errno> {
        match self {
            Self::Name(..) => rustix::fs::lremovexattr(self.path(), name),
            Self::Fd(fd) => {
                or_by_path(rustix::fs::fremovexattr(fd, name), || rustix::fs::removexattr(self.path(), name))
            }
        }
    }

    pub(crate) fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        match self {
            Self::Name(dir, name) => {
                rustix::fs::chownat(dir, name.as_c_str(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            }
            Self::Fd(fd) => rustix::fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    /// EOPNOTSUPP for symbolic links, which have no mode.
    pub(crate) fn chmod(&self, mode: u32) -> Result<(), Errno> {
        let mode = mode & 0o7777;
        match self {
            Self::Name(dir, name) => davit_sys::chmod::at(dir.as_fd(), name, mode)
                .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO)),
            Self::Fd(fd) => {
                let mode = Mode::from_raw_mode(mode);
                or_by_path(rustix::fs::fchmod(fd, mode), || rustix::fs::chmod(self.path(), mode))
            }
        }
    }

    pub(crate) fn utimens(&self, times: &Timestamps) -> Result<(), Errno> {
        match self {
            Self::Name(dir, name) => {
                rustix::fs::utimensat(dir, name.as_c_str(), times, AtFlags::SYMLINK_NOFOLLOW)
            }
            Self::Fd(fd) => or_by_path(rustix::fs::futimens(fd, times), || {
                rustix::fs::utimensat(rustix::fs::CWD, self.path(), times, AtFlags::empty())
            }),
        }
    }
}

/// What a descriptor cannot be asked directly if it is O_PATH (open(2)), its path can.
fn or_by_path<T>(direct: Result<T, Errno>, by_path: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    match direct {
        Err(Errno::BADF) => by_path(),
        other => other,
    }
}

/// The longest value of an attribute and the longest list of names (XATTR_SIZE_MAX, XATTR_LIST_MAX).
const XATTR_MAX: usize = 65536;

fn whole(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> Result<Vec<u8>, Errno> {
    let mut small = [0u8; 256];
    match call(&mut small) {
        Ok(n) => return Ok(small[..n].to_vec()),
        Err(Errno::RANGE) => {}
        Err(e) => return Err(e),
    }
    let mut value = vec![0u8; XATTR_MAX];
    let n = call(&mut value)?;
    value.truncate(n);
    Ok(value)
}

/// Reads a short attribute of an open file or directory. `None`: it is not there, or the file system has none.
pub(crate) fn fd_xattr(fd: &Fd, name: &CStr) -> Result<Option<Vec<u8>>, Errno> {
    At::Fd(Arc::clone(fd)).xattr(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_name_that_has_become_a_link_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::write(&outside, "").unwrap();
        std::fs::set_permissions(&outside, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::create_dir(dir.path().join("layer")).unwrap();
        symlink(&outside, dir.path().join("layer/name")).unwrap();
        let layer: Fd = Arc::new(std::fs::File::open(dir.path().join("layer")).unwrap().into());
        let at = At::name(&layer, c"name");
        assert_eq!(at.chmod(0o777), Err(Errno::OPNOTSUPP));
        at.utimens(&Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 5, tv_nsec: 0 },
            last_modification: rustix::fs::Timespec { tv_sec: 5, tv_nsec: 0 },
        })
        .unwrap();
        let found = rustix::fs::stat(&outside).unwrap();
        assert_eq!(found.st_mode & 0o7777, 0o600);
        assert_ne!(found.st_mtime, 5);
        assert_eq!(at.stat().unwrap().st_mtime, 5);
    }
}
