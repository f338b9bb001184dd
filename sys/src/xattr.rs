//! Extended attributes by descriptor (xattr(7)), also of symbolic links and device nodes, which have no usable
//! descriptor of their own.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::fs::XattrFlags;

/// The kernel's bound on one value (XATTR_SIZE_MAX) and on a list of names (XATTR_LIST_MAX).
const MAX: usize = 65536;

/// Sets an attribute of an open file or directory.
pub fn set(fd: BorrowedFd<'_>, name: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())?)
}

/// Reads an attribute; `None` when the file has none of this name or the file system knows no attributes.
pub fn get(fd: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
    whole(|buf| rustix::fs::fgetxattr(fd, name, buf))
}

/// The names of all attributes that the caller may see.
pub fn list(fd: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    Ok(split(&whole(|buf| rustix::fs::flistxattr(fd, buf))?.unwrap_or_default()))
}

/// Sets an attribute of `name` in the directory `dir`, not following a symbolic link.
///
/// There is no setxattrat(2) before Linux 6.13: the directory is named by its descriptor below /proc/self/fd.
pub fn set_at(dir: BorrowedFd<'_>, name: &OsStr, attribute: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::lsetxattr(named(dir, name), attribute, value, XattrFlags::empty())?)
}

/// Removes an attribute of `name` in `dir`, not following a symbolic link. One that is not there is fine.
pub fn remove_at(dir: BorrowedFd<'_>, name: &OsStr, attribute: &OsStr) -> io::Result<()> {
    match rustix::fs::lremovexattr(named(dir, name), attribute) {
        Ok(()) | Err(rustix::io::Errno::NODATA) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn named(dir: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    path.push(name);
    path
}

/// All attributes of `name` in the directory `dir` that the caller may see, with their values, not following a symbolic link.
/// What vanishes between two calls is left out.
pub fn all_at(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let path = named(dir, name);
    let names = whole(|buf| rustix::fs::llistxattr(&path, buf))?.unwrap_or_default();
    let mut all = Vec::new();
    for attribute in split(&names) {
        if let Some(value) = whole(|buf| rustix::fs::lgetxattr(&path, attribute.as_os_str(), buf))? {
            all.push((attribute, value));
        }
    }
    Ok(all)
}

/// Reads an attribute of `name` in the directory `dir`, not following a symbolic link; `None` as for [`get`].
pub fn get_at(dir: BorrowedFd<'_>, name: &OsStr, attribute: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let path = named(dir, name);
    whole(|buf| rustix::fs::lgetxattr(&path, attribute, buf))
}

/// The names of the attributes of `name` in the directory `dir`, not following a symbolic link.
pub fn list_at(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Vec<OsString>> {
    let path = named(dir, name);
    Ok(split(&whole(|buf| rustix::fs::llistxattr(&path, buf))?.unwrap_or_default()))
}

/// Calls with larger buffers until the answer fits.
fn whole(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0u8; 256];
    loop {
        match call(&mut value) {
            Ok(n) => {
                value.truncate(n);
                return Ok(Some(value));
            }
            Err(rustix::io::Errno::RANGE) if value.len() < MAX => value.resize(MAX, 0),
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Takes an attribute away from an open file or directory; one that is not there is fine.
pub fn remove(fd: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::fremovexattr(fd, name) {
        Ok(()) | Err(rustix::io::Errno::NODATA) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn split(names: &[u8]) -> Vec<OsString> {
    names.split(|b| *b == 0).filter(|n| !n.is_empty()).map(|n| OsString::from_vec(n.to_vec())).collect()
}

/// Whether an error says that the file system or the caller's rights have no room for such an attribute.
pub fn is_unsupported(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EPERM))
}

/// The namespace of an attribute's name: `user`, `trusted`, `security` or `system`.
pub fn namespace(name: &OsStr) -> &[u8] {
    name.as_bytes().split(|b| *b == b'.').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_set_is_listed_and_read_back() {
        let path = std::env::temp_dir().join(format!("davit-xattr-{}", std::process::id()));
        let file = std::fs::File::create(&path).unwrap();
        let name = OsStr::new("user.davit");
        assert_eq!(get(file.as_fd(), name).unwrap(), None);
        let long = vec![7u8; 700];
        set(file.as_fd(), name, &long).unwrap();
        assert_eq!(get(file.as_fd(), name).unwrap(), Some(long));
        assert!(list(file.as_fd()).unwrap().contains(&name.to_os_string()));
        let dir = std::fs::File::open(std::env::temp_dir()).unwrap();
        set_at(dir.as_fd(), path.file_name().unwrap(), name, b"y").unwrap();
        assert_eq!(get(file.as_fd(), name).unwrap(), Some(b"y".to_vec()));
        let all = all_at(dir.as_fd(), path.file_name().unwrap()).unwrap();
        assert!(all.contains(&(name.to_os_string(), b"y".to_vec())), "{all:?}");
        let file_name = path.file_name().unwrap();
        assert_eq!(get_at(dir.as_fd(), file_name, name).unwrap(), Some(b"y".to_vec()));
        assert!(list_at(dir.as_fd(), file_name).unwrap().contains(&name.to_os_string()));
        remove_at(dir.as_fd(), file_name, name).unwrap();
        remove(file.as_fd(), name).unwrap();
        assert_eq!(get(file.as_fd(), name).unwrap(), None);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_namespace_is_the_first_word() {
        assert_eq!(namespace(OsStr::new("security.capability")), b"security");
        assert_eq!(split(b"user.a\0trusted.b\0").len(), 2);
    }
}
