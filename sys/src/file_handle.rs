//! File handles, and the identity of a file system (open_by_handle_at(2), ioctl_getfsuuid: Linux 6.9).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The kernel's bound on a handle's bytes (MAX_HANDLE_SZ).
const MAX: usize = 128;

/// A handle as the file system encodes it: opaque to all but the file system of its type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileHandle {
    /// The encoding (FILEID_*).
    pub kind: i32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

#[repr(C)]
struct Raw {
    bytes: u32,
    kind: i32,
    handle: [u8; MAX],
}

/// The handle of `name` in `dir`, not following a symbolic link. EOPNOTSUPP where the file system has none. Needs no privilege.
pub fn of(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<FileHandle> {
    let mut raw = Raw { bytes: MAX as u32, kind: 0, handle: [0; MAX] };
    let mut mount = 0i32;
    // SAFETY: `name` ends in a zero byte; `raw` has the layout of struct file_handle with room for MAX bytes, as `bytes` says; `mount`
    // is an int.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir.as_raw_fd(),
            name.as_ptr(),
            &raw mut raw,
            &raw mut mount,
            if name.is_empty() { libc::AT_EMPTY_PATH } else { 0 },
        )
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    let len = (raw.bytes as usize).min(MAX);
    Ok(FileHandle { kind: raw.kind, bytes: raw.handle[..len].to_vec() })
}

/// `struct fsuuid2` of linux/fs.h.
#[repr(C)]
struct Uuid {
    len: u8,
    uuid: [u8; 16],
}

/// `_IOR(0x15, 0, struct fsuuid2)`.
const FS_IOC_GETFSUUID: libc::c_ulong = 0x8011_1500;

/// The UUID of the file system that an open file or directory is on; `None` where it has none or the kernel cannot tell.
pub fn file_system_uuid(fd: BorrowedFd<'_>) -> Option<[u8; 16]> {
    let mut uuid = Uuid { len: 0, uuid: [0; 16] };
    // SAFETY: the ioctl writes one struct fsuuid2, whose layout `Uuid` has.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_GETFSUUID as _, &raw mut uuid) };
    if rc == 0 && uuid.len == 16 { Some(uuid.uuid) } else { btrfs_uuid(fd) }
}

/// The start of `struct btrfs_ioctl_fs_info_args` of linux/btrfs.h, at its whole length.
#[repr(C)]
struct BtrfsInfo {
    max_id: u64,
    devices: u64,
    fsid: [u8; 16],
    rest: [u8; 992],
}

/// `_IOR(0x94, 31, struct btrfs_ioctl_fs_info_args)`.
const BTRFS_IOC_FS_INFO: libc::c_ulong = 0x8400_941f;

/// btrfs has a UUID and no answer to the common question.
fn btrfs_uuid(fd: BorrowedFd<'_>) -> Option<[u8; 16]> {
    let mut info = BtrfsInfo { max_id: 0, devices: 0, fsid: [0; 16], rest: [0; 992] };
    // SAFETY: the ioctl reads and writes one struct of 1024 bytes, which `BtrfsInfo` is; other file systems answer ENOTTY.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), BTRFS_IOC_FS_INFO as _, &raw mut info) };
    (rc == 0).then_some(info.fsid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn two_names_of_a_file_have_one_handle() {
        let dir = std::env::temp_dir().join(format!("davit-handle-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("a"), "x").unwrap();
        std::fs::write(dir.join("c"), "x").unwrap();
        std::fs::hard_link(dir.join("a"), dir.join("b")).unwrap();
        let fd = std::fs::File::open(&dir).unwrap();
        let a = of(fd.as_fd(), c"a").unwrap();
        assert_eq!(a, of(fd.as_fd(), c"b").unwrap());
        assert_ne!(a, of(fd.as_fd(), c"c").unwrap());
        assert!(of(fd.as_fd(), c"missing").is_err());
        assert_eq!(
            file_system_uuid(fd.as_fd()),
            file_system_uuid(std::fs::File::open(dir.join("a")).unwrap().as_fd())
        );
        std::fs::remove_dir_all(dir).unwrap();
    }
}
