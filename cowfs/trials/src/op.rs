//! System calls as values: what is asked, and what came of it. Paths are relative to a tree's root.

use serde::{Deserialize, Serialize};

/// One system call. `slot` and `map` number the descriptors and the mappings that a process holds in each tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named like the calls and their arguments")]
pub enum Op {
    Open { path: String, slot: u8, flags: i32, mode: u32 },
    Close { slot: u8 },
    Read { slot: u8, len: u32 },
    Pread { slot: u8, at: u64, len: u32 },
    Write { slot: u8, len: u32, seed: u8 },
    Pwrite { slot: u8, at: u64, len: u32, seed: u8 },
    Seek { slot: u8, whence: Whence, at: i64 },
    Ftruncate { slot: u8, len: u64 },
    Truncate { path: String, len: u64 },
    Fallocate { slot: u8, mode: i32, at: u64, len: u64 },
    CopyRange { from: u8, from_at: u64, to: u8, to_at: u64, len: u32 },
    Fsync { slot: u8, data_only: bool },
    Fstat { slot: u8 },
    Fchmod { slot: u8, mode: u32 },
    Fchown { slot: u8, uid: Option<u32>, gid: Option<u32> },
    Futimens { slot: u8, time: u8 },
    Flock { slot: u8, lock: Lock },
    Lock { slot: u8, at: u64, len: u64, lock: Lock },
    Map { slot: u8, map: u8, page: u8, pages: u8, sharing: Sharing },
    MapRead { map: u8, at: u32, len: u32 },
    MapWrite { map: u8, at: u32, len: u32, seed: u8 },
    MapSync { map: u8 },
    Unmap { map: u8 },
    Mkdir { path: String, mode: u32 },
    Rmdir { path: String },
    Unlink { path: String },
    Rename { from: String, to: String, flags: u32 },
    Link { from: String, to: String },
    Symlink { target: String, path: String },
    Readlink { path: String },
    Mknod { path: String, kind: Node, mode: u32 },
    Chmod { path: String, mode: u32 },
    Chown { path: String, uid: Option<u32>, gid: Option<u32>, follow: bool },
    Utimens { path: String, time: u8, follow: bool },
    SetXattr { path: String, name: String, len: u32, flags: u32, follow: bool },
    GetXattr { path: String, name: String, follow: bool },
    ListXattr { path: String, follow: bool },
    RemoveXattr { path: String, name: String, follow: bool },
    Stat { path: String, follow: bool },
    Access { path: String, mode: u32 },
    Readdir { path: String },
}

/// lseek(2)'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Whence {
    Start,
    Current,
    End,
    Data,
    Hole,
}

/// mmap(2)'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Sharing {
    SharedRead,
    SharedWrite,
    Private,
}

/// A lock that is asked for without waiting, by flock(2) or fcntl(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Lock {
    Shared,
    Exclusive,
    Unlock,
}

/// What mknod(2) makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Node {
    Regular,
    Fifo,
    Socket,
    /// /dev/null's numbers.
    Null,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Success without more to say.
    Done,
    /// Bytes, or an offset.
    Count(u64),
    /// Bytes that were read: how many, their hash and the first few.
    Bytes(u64, u64, Vec<u8>),
    /// A link's target.
    Target(String),
    /// Names with their types (readdir(3)) or without (xattrs), sorted.
    Names(Vec<(String, u8)>),
    /// stat(2).
    Stat(Stat),
    /// The process holds no such descriptor or mapping.
    NoSlot,
    /// An errno.
    Failed(i32),
}

/// The part of stat(2) that trees can agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "stat(2)'s fields")]
pub struct Stat {
    pub ino: u64,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub mtime: (i64, u32),
}

impl Stat {
    /// Whether it is a directory's.
    pub fn is_dir(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    /// Whether it is a regular file's.
    pub fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }

    /// With what two trees need not agree on left out: inode numbers, sizes and links of directories, times nobody has set, and
    /// times of pipes (of which overlayfs keeps none).
    #[must_use]
    pub fn comparable(mut self) -> Self {
        self.ino = 0;
        if self.is_dir() {
            (self.nlink, self.size) = (0, 0);
        }
        let has_times = matches!(self.mode >> 12, 0o10 | 0o4 | 0o12);
        if !has_times || !TIMES.contains(&self.mtime) {
            self.mtime = (0, 0);
        }
        self
    }
}

/// Times that are set explicitly, and that no clock shows.
pub const TIMES: [(i64, u32); 6] = [
    (1, 1),
    (-1, 999_999_999),
    (-86_400, 123_456_789),
    (946_684_800, 500_000_001),
    (4_000_000_000, 7),
    (8_589_934_592, 999_999_998),
];

/// Bytes that look different everywhere.
pub fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(7).wrapping_add((i >> 8) as u8).wrapping_add(seed) | 1).collect()
}

/// Of FNV-1a: enough to tell contents apart.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}
