//! The words between the file system and those who mount it.

/// An inode number, as stat(2) shows it and as the kernel's requests name it. [`ROOT`] is an alias of the root's.
pub type Ino = u64;

/// What FUSE calls the root directory. The root's attributes carry its real inode number.
pub const ROOT: Ino = 1;

/// A point in time: seconds since 1970, which may be negative, and nanoseconds below 1,000,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds.
    pub nsec: u32,
}

/// A file type, with the values of `d_type` (readdir(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Kind {
    Fifo = 1,
    CharDevice = 2,
    Directory = 4,
    BlockDevice = 6,
    Regular = 8,
    Symlink = 10,
    Socket = 12,
}

impl Kind {
    /// From `st_mode`.
    pub fn of_mode(mode: u32) -> Self {
        match (mode >> 12) & 0xf {
            1 => Self::Fifo,
            2 => Self::CharDevice,
            4 => Self::Directory,
            6 => Self::BlockDevice,
            10 => Self::Symlink,
            12 => Self::Socket,
            _ => Self::Regular,
        }
    }
}

/// What stat(2) shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Stable over copy-up and remount; the same as the number in readdir(3)'s entries.
    pub ino: Ino,
    /// Bytes.
    pub size: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the data.
    pub mtime: Time,
    /// Last change of data or attributes.
    pub ctime: Time,
    /// Type and permissions: `st_mode`.
    pub mode: u32,
    /// Names; 1 for a directory that is merged from several layers, as overlayfs does.
    pub nlink: u32,
    /// Owner, as shown.
    pub uid: u32,
    /// Group, as shown.
    pub gid: u32,
    /// Device number of a device, in the 32-bit form of Linux (`new_encode_dev`).
    pub rdev: u32,
    /// Preferred size of I/O.
    pub blksize: u32,
}

impl Attr {
    /// Its type.
    pub fn kind(&self) -> Kind {
        Kind::of_mode(self.mode)
    }
}

/// Who makes a request: ids as the mount shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// File-system user id.
    pub uid: u32,
    /// File-system group id.
    pub gid: u32,
    /// Mode bits to leave out of what is created, unless the directory has a default ACL. 0 where the kernel has applied it.
    pub umask: u32,
}

/// A new time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeChange {
    /// The present, by the clock of the upper's file system.
    Now,
    /// This one.
    At(Time),
}

/// What setattr changes; `None` leaves it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Change {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<TimeChange>,
    pub mtime: Option<TimeChange>,
    /// Whether set-user-id, set-group-id and file capabilities go, as they do for a caller without CAP_FSETID.
    pub kill_privileges: bool,
}

/// An entry of a directory.
#[derive(Debug, Clone, Copy)]
pub struct DirEntry<'a> {
    /// Without `/`; any other bytes.
    pub name: &'a [u8],
    /// The same that `lookup` would answer.
    pub ino: Ino,
    /// Type.
    pub kind: Kind,
    /// The offset at which reading goes on after this entry. Valid as long as the directory is known to the kernel.
    pub next: u64,
}

/// renameat2(2)'s flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RenameMode {
    /// Replaces what is there.
    #[default]
    Replace,
    /// EEXIST if something is there.
    NoReplace,
    /// Swaps the two.
    Exchange,
}

/// What statvfs(3) shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct StatFs {
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
    pub block_size: u32,
    pub fragment_size: u32,
    pub name_max: u32,
}
