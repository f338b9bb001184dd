//! Containers' trees as archives: what `diff`, `commit`, `export` and `cp` read and write.
//!
//! A tree may belong to a running container, whose programs change it while it is read. So everything is opened by descriptors below
//! the tree's root and no link is followed, but where docker follows one; then it is resolved inside the tree's root. Nothing here is
//! kept: each operation opens the tree, streams, and is gone.
//!
//! ```text
//! place     how a tree is reached: mounted on a thread apart, or through a process of the container
//! member    one file with everything that a tar says of it
//! archive   a whole tree as a tar
//! lower     the image below a snapshot, its layers merged without a mount
//! compare   what differs between the two   -> changes (lines), layer (a tar with whiteouts)
//! copy      single files and directories, out and in
//! ```

use std::io;

use davit_contracts::Kind;
use davit_sys::apart::ApartError;
use davit_sys::mount::MountError;
use davit_sys::process::ProcessError;

use crate::snapshot::mounted::MountedError;
use crate::tarball::TarError;

pub mod archive;
pub mod changes;
mod chunks;
mod compare;
pub mod copy;
mod extract;
mod ids;
mod layer;
mod lower;
mod member;
mod place;
mod tarwriter;

pub use chunks::{Chunks, piped};
pub use layer::write_layer;
pub use place::{Bind, Process, Tree, write_back};
pub use tarwriter::TarWriter;

/// Why a tree cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A system call on a file of the tree failed.
    #[error("cannot {operation} '{path}' of the container")]
    Io {
        /// What.
        operation: &'static str,
        /// In the tree.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive could not be passed on.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// The tree could not be mounted.
    #[error("cannot mount the container's files")]
    Mount(#[from] MountError),
    /// The same, or what serves the mount did not end well.
    #[error(transparent)]
    Mounted(#[from] MountedError),
    /// No thread with mounts of its own.
    #[error(transparent)]
    Apart(#[from] ApartError),
    /// The container has ended meanwhile.
    #[error("the container's process cannot be entered")]
    Process(#[from] ProcessError),
    /// The path is not there.
    #[error("Could not find the file {path} in container {container}")]
    NotFound {
        /// As asked for.
        path: String,
        /// Its snapshot's key.
        container: String,
    },
    /// A path that must be a directory is none.
    #[error("{0} is not a directory")]
    NotDirectory(String),
    /// `--read-only`.
    #[error("container rootfs is marked read-only")]
    ReadOnlyRoot,
    /// `:ro`.
    #[error("mounted volume is marked read-only")]
    ReadOnlyMount,
    /// A directory would take the place of something else.
    #[error("cannot overwrite non-directory '{0}' with directory")]
    DirectoryOverOther(String),
    /// Something else would take the place of a directory.
    #[error("cannot overwrite directory '{0}' with non-directory")]
    OtherOverDirectory(String),
    /// A snapshot without a layer of its own has no changes.
    #[error("snapshot '{0}' is read-only: it has no changes")]
    View(String),
    /// `..`, or a name with a zero byte.
    #[error("the archive holds an unsafe path '{0}'")]
    UnsafePath(String),
    /// The archive to be unpacked is broken.
    #[error("the archive cannot be read")]
    Tar(#[from] TarError),
    /// A directory with more names than are held in memory.
    #[error("the directory '{0}' has too many entries")]
    TooManyEntries(String),
    /// Deeper than a path can be.
    #[error("the directory '{0}...' lies too deep")]
    TooDeep(String),
    /// A thread of ours panicked.
    #[error("a task of this daemon failed")]
    Panicked,
}

impl TreeError {
    /// For the contract.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } => Kind::NotFound,
            Self::NotDirectory(_)
            | Self::DirectoryOverOther(_)
            | Self::OtherOverDirectory(_)
            | Self::View(_) => Kind::InvalidArgument,
            Self::ReadOnlyRoot | Self::ReadOnlyMount => Kind::PermissionDenied,
            Self::Process(_) => Kind::WrongState,
            Self::Tar(_) | Self::UnsafePath(_) => Kind::Corrupt,
            Self::TooManyEntries(_) | Self::TooDeep(_) => Kind::Unsupported,
            Self::Io { .. }
            | Self::Write(_)
            | Self::Mount(_)
            | Self::Mounted(_)
            | Self::Apart(_)
            | Self::Panicked => Kind::Internal,
        }
    }
}

/// A path of a tree for an error; hostile names are escaped and bounded.
fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(&path[..path.len().min(300)]).escape_debug())
}

fn io_error(operation: &'static str, path: &[u8], e: impl Into<io::Error>) -> TreeError {
    TreeError::Io { operation, path: shown(path), source: e.into() }
}

/// What has gone between two steps was removed by the container: it is left out.
fn vanished(e: &io::Error) -> bool {
    matches!(
        rustix::io::Errno::from_io_error(e),
        Some(
            rustix::io::Errno::NOENT
                | rustix::io::Errno::NOTDIR
                | rustix::io::Errno::LOOP
                | rustix::io::Errno::STALE
        )
    )
}

/// A failure while a member is written: of the archive, or of reading the file.
fn write_error(path: &[u8], e: io::Error) -> TreeError {
    match e.kind() {
        io::ErrorKind::InvalidData => io_error("write", path, e),
        _ => TreeError::Write(e),
    }
}

/// A relative path and a name as one.
fn joined(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, name].join(&b'/') }
}
