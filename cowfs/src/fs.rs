//! The file system.

use rustix::io::Errno;

use crate::config::{Config, OpenError};
use crate::types::{Attr, Caller, Change, DirEntry, Ino, RenameMode, StatFs};

/// Layers shown as one tree, whose changes go to the upper layer.
///
/// Threads may call it at the same time. Operations on one directory's names are expected one at a time, as the kernel's VFS sends
/// them; everything else may run in parallel. No lock is held over I/O.
#[derive(Debug)]
pub struct CowFs {}

#[allow(unused_variables, clippy::unused_self, clippy::needless_pass_by_value, missing_docs)]
impl CowFs {
    /// The file system that shows `config`'s layers. Opens the layers through read-only mount clones where this process may make them,
    /// clears what an earlier life left in the work directory, and holds no mount itself.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        Ok(Self {})
    }

    /// Finds a name. `Ok(None)`: there is none. An answer adds one lookup to the inode, to be given back by [`Self::forget`].
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Option<Attr>, Errno> {
        Err(Errno::NOSYS)
    }

    /// Gives back lookups. An inode without any is forgotten.
    pub fn forget(&self, ino: Ino, lookups: u64) {}

    /// How many inodes are known (those the kernel has not forgotten, and the directories above them).
    pub fn known(&self) -> usize {
        0
    }

    /// stat(2).
    pub fn getattr(&self, ino: Ino) -> Result<Attr, Errno> {
        Err(Errno::NOSYS)
    }

    /// chmod, chown, truncate, utimens in one. Copies the file up first. `blocks`, `ctime` and all else in the answer are as they are then.
    pub fn setattr(&self, ino: Ino, change: &Change) -> Result<Attr, Errno> {
        Err(Errno::NOSYS)
    }

    /// readlink(2).
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>, Errno> {
        Err(Errno::NOSYS)
    }

    /// Makes a regular file, device, fifo or socket and looks it up. `rdev` as in [`Attr`]. A character device 0:0 is EPERM: it would be a
    /// whiteout.
    pub fn mknod(
        &self,
        parent: Ino,
        name: &[u8],
        mode: u32,
        rdev: u32,
        caller: &Caller,
    ) -> Result<Attr, Errno> {
        Err(Errno::NOSYS)
    }

    /// mkdir(2) and a lookup.
    pub fn mkdir(&self, parent: Ino, name: &[u8], mode: u32, caller: &Caller) -> Result<Attr, Errno> {
        Err(Errno::NOSYS)
    }

    /// symlink(2) and a lookup.
    pub fn symlink(&self, parent: Ino, name: &[u8], target: &[u8], caller: &Caller) -> Result<Attr, Errno> {
        Err(Errno::NOSYS)
    }

    /// link(2) and a lookup.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr, Errno> {
        Err(Errno::NOSYS)
    }

    /// unlink(2). The inode stays usable until it is forgotten.
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }

    /// rmdir(2).
    pub fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }

    /// renameat2(2).
    pub fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }

    /// pread(2) into `buf`, which it fills unless the file ends. Answers the bytes read.
    pub fn read(&self, ino: Ino, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::NOSYS)
    }

    /// pwrite(2) of all of `data`. Copies the file up first. `kill_privileges`: see [`Change`].
    pub fn write(&self, ino: Ino, offset: u64, data: &[u8], kill_privileges: bool) -> Result<usize, Errno> {
        Err(Errno::NOSYS)
    }

    /// fsync(2) or fdatasync(2), of a file or a directory.
    pub fn fsync(&self, ino: Ino, data_only: bool) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }

    /// fallocate(2) with its flags.
    pub fn fallocate(&self, ino: Ino, mode: i32, offset: u64, len: u64) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }

    /// lseek(2) with SEEK_DATA or SEEK_HOLE.
    pub fn lseek(&self, ino: Ino, offset: u64, whence: i32) -> Result<u64, Errno> {
        Err(Errno::NOSYS)
    }

    /// copy_file_range(2) between two files of this file system; answers the bytes copied.
    pub fn copy_file_range(&self, from: (Ino, u64), to: (Ino, u64), len: usize) -> Result<usize, Errno> {
        Err(Errno::NOSYS)
    }

    /// Entries from `offset` on (0: the first, `.` and `..` included) until `sink` answers `false`: that entry was not taken.
    pub fn readdir(
        &self,
        ino: Ino,
        offset: u64,
        sink: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }

    /// The same with attributes; each entry taken, other than `.` and `..`, is a lookup.
    pub fn readdirplus(
        &self,
        ino: Ino,
        offset: u64,
        sink: &mut dyn FnMut(DirEntry<'_>, &Attr) -> bool,
    ) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }

    /// getxattr(2): the value. ENODATA if there is none. overlay's own names are hidden (kernel: overlay.overlay. escapes).
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Errno> {
        Err(Errno::NOSYS)
    }

    /// listxattr(2): names, each followed by a zero byte.
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<u8>, Errno> {
        Err(Errno::NOSYS)
    }

    /// setxattr(2) with XATTR_CREATE or XATTR_REPLACE in `flags`.
    pub fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }

    /// removexattr(2).
    pub fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }

    /// statvfs(3) of the upper's file system, or of the topmost lower's.
    pub fn statfs(&self) -> Result<StatFs, Errno> {
        Err(Errno::NOSYS)
    }
}
