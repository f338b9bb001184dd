//! What a file system is made of.

use std::path::PathBuf;

use rustix::io::Errno;

use crate::name::Namespace;

/// The layers and how they are to be shown.
#[derive(Debug, Clone)]
pub struct Config {
    /// The read-only layers, topmost first; at least one.
    pub lowers: Vec<PathBuf>,
    /// The writable layer; without it the file system is read-only.
    pub upper: Option<PathBuf>,
    /// A directory on the upper's file system for what is being made; required with `upper`.
    pub work: Option<PathBuf>,
    /// Where overlay's xattrs live; `None` chooses `trusted.` if this process may write them, else `user.`.
    pub namespace: Option<Namespace>,
    /// What happens with a directory of a lower layer that is renamed.
    pub redirect: Redirect,
    /// User ids on disk as they are shown.
    pub uid_map: IdMap,
    /// Group ids on disk as they are shown.
    pub gid_map: IdMap,
    /// Shows all files as owned by one user or group.
    pub squash: Squash,
    /// Whether extended attributes are served at all.
    pub xattrs: bool,
    /// Reads `.wh.NAME` as a whiteout of NAME and `.wh..wh..opq` as what makes a directory opaque, as layers are that were unpacked for
    /// fuse-overlayfs. Such names are then neither shown nor made.
    pub aufs_whiteouts: bool,
    /// Whether copy-ups and fsync(2) reach the disk; `false` is overlayfs's `volatile`.
    pub sync: bool,
    /// The most descriptors of files and directories to keep open.
    pub max_open: usize,
}

impl Config {
    /// Only lower layers; everything else as overlayfs has it by default.
    pub fn new(lowers: Vec<PathBuf>) -> Self {
        Self {
            lowers,
            upper: None,
            work: None,
            namespace: None,
            redirect: Redirect::default(),
            uid_map: IdMap::default(),
            gid_map: IdMap::default(),
            squash: Squash::default(),
            xattrs: true,
            aufs_whiteouts: false,
            sync: true,
            max_open: 1024,
        }
    }
}

/// overlayfs's `redirect_dir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Redirect {
    /// Directories of lower layers are renamed by a redirect xattr.
    On,
    /// Renaming them fails with EXDEV; redirects that are there are followed.
    #[default]
    Follow,
    /// Renaming them fails with EXDEV; a directory with a redirect does not merge.
    NoFollow,
}

/// An id map as user namespaces have it (user_namespaces(7)); empty maps every id to itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMap(pub Vec<IdRange>);

/// `len` ids from `shown` on are `disk` and following on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first id as the mount shows it.
    pub shown: u32,
    /// The first id as it is on disk (seen from this process's user namespace).
    pub disk: u32,
    /// How many.
    pub len: u32,
}

/// What is shown for an id that no range covers (kernel.overflowuid).
pub const OVERFLOW_ID: u32 = 65534;

impl IdMap {
    /// The id to show for one on disk.
    pub fn to_shown(&self, disk: u32) -> u32 {
        if self.0.is_empty() {
            return disk;
        }
        self.0
            .iter()
            .find(|r| disk.wrapping_sub(r.disk) < r.len)
            .map_or(OVERFLOW_ID, |r| r.shown + (disk - r.disk))
    }

    /// The id to write for one that was given; `None`: it has none (EINVAL).
    pub fn to_disk(&self, shown: u32) -> Option<u32> {
        if self.0.is_empty() {
            return Some(shown);
        }
        self.0.iter().find(|r| shown.wrapping_sub(r.shown) < r.len).map(|r| r.disk + (shown - r.shown))
    }
}

/// Owners that are shown instead of the real ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Squash {
    /// The user of every file.
    pub uid: Option<u32>,
    /// The group of every file.
    pub gid: Option<u32>,
}

/// Why a file system could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// `lowers` is empty.
    #[error("no lower layer was given")]
    NoLower,
    /// More than can be numbered.
    #[error("{0} lower layers are too many: 16383 at most")]
    TooManyLayers(usize),
    /// `upper` without `work`, or the other way round.
    #[error("an upper layer needs a work directory, and a work directory an upper layer")]
    UpperWithoutWork,
    /// The two are not on one file system, so that nothing can be renamed from one to the other.
    #[error("the work directory {work} and the upper layer {upper} are not on the same file system")]
    WorkElsewhere {
        /// The work directory.
        work: PathBuf,
        /// The upper layer.
        upper: PathBuf,
    },
    /// One is or lies within the other.
    #[error("{inner} is or lies within {outer}")]
    Overlap {
        /// The inner directory.
        inner: PathBuf,
        /// The outer one.
        outer: PathBuf,
    },
    /// A directory could not be used.
    #[error("cannot {what} {path}")]
    Directory {
        /// The operation that failed.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
}
