//! One entry of a tar, with all its extensions applied.

use tar::EntryType;

use super::TarError;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file (also contiguous and sparse ones).
    File,
    /// A directory.
    Directory,
    /// A symbolic link to `link`.
    Symlink,
    /// Another name for `link`.
    HardLink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A type flag that POSIX does not define.
    Unknown(u8),
}

/// Seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// May be negative.
    pub seconds: i64,
    /// Below 10^9.
    pub nanoseconds: u32,
}

/// One file of an archive.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As written, neither cleaned nor checked.
    pub path: Vec<u8>,
    /// Of links; as written.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When it was changed.
    pub mtime: Time,
    /// Bytes of data in the stream.
    pub size: u64,
    /// Major and minor of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where a sparse file's data belongs, and the file's real size.
    pub sparse: Option<SparseMap>,
}

/// The parts of a sparse file that hold data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SparseMap {
    /// Offset and length, ascending, not overlapping.
    pub parts: Vec<(u64, u64)>,
    /// The file's size with its holes.
    pub real_size: u64,
}

impl Entry {
    /// The size that the file has when it is extracted.
    pub fn real_size(&self) -> u64 {
        self.sparse.as_ref().map_or(self.size, |s| s.real_size)
    }

    pub(super) fn of_header(header: &tar::Header, size: u64) -> Result<Self, TarError> {
        let path = header.path_bytes().into_owned();
        let old = header.as_old();
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::HardLink,
            EntryType::Char => Kind::CharDevice,
            EntryType::Block => Kind::BlockDevice,
            EntryType::Fifo => Kind::Fifo,
            other => Kind::Unknown(other.as_byte()),
        };
        let device = if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
            let part = |v: std::io::Result<Option<u32>>| v.ok().flatten().unwrap_or(0);
            (part(header.device_major()), part(header.device_minor()))
        } else {
            (0, 0)
        };
        Ok(Self {
            path,
            link: header.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default(),
            kind,
            mode: filled(&old.mode, || header.mode().map(u64::from), TarError::Field("a mode"))? as u32
                & 0o7777,
            uid: id(filled(&old.uid, || header.uid(), TarError::Field("an owner"))?)?,
            gid: id(filled(&old.gid, || header.gid(), TarError::Field("an owner"))?)?,
            mtime: Time { seconds: header.mtime().unwrap_or(0) as i64, nanoseconds: 0 },
            size,
            device,
            xattrs: Vec::new(),
            sparse: None,
        })
    }
}

fn id(value: u64) -> Result<u32, TarError> {
    u32::try_from(value).map_err(|_| TarError::Field("an owner"))
}

/// A numeric field; one that was left blank is 0, as other readers take it.
pub(super) fn filled(
    field: &[u8],
    parse: impl FnOnce() -> std::io::Result<u64>,
    error: TarError,
) -> Result<u64, TarError> {
    if field.iter().all(|b| matches!(b, 0 | b' ')) { Ok(0) } else { parse().map_err(|_| error) }
}
