//! What a layer's tree must look like, written down while it is unpacked, so that damage can be found later.
//!
//! Unpacking tells a [`Recorder`] each path in the order in which the archive made it. A later record of a path replaces an
//! earlier one; paths are those in the tree (links on the way resolved), relative, without a leading slash, "" for the
//! root.

use std::io;

use crate::tarball::Time;

/// What is known of one path. Digests are BLAKE3: fast enough to be free beside decompression, and as strong as SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node<'a> {
    /// What it is.
    pub kind: NodeKind<'a>,
    /// Permission bits with setuid, setgid and sticky: 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time; `None` where unpacking does not set it (a parent directory that the archive does not name).
    pub mtime: Option<Time>,
    /// Extended attributes as they were set, without overlayfs's own.
    pub xattrs: Vec<(&'a [u8], &'a [u8])>,
}

/// The kinds of a [`Node`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind<'a> {
    /// A regular file.
    File {
        /// Bytes, holes included.
        size: u64,
        /// Of its content.
        digest: [u8; 32],
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: &'a [u8],
    },
    /// A fifo.
    Fifo,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A whiteout of overlayfs.
    Whiteout,
}

/// One step of unpacking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// A path is this now.
    Node {
        /// Which.
        path: &'a [u8],
        /// What.
        node: Node<'a>,
    },
    /// A further name of a file: it has the node that `target` has at this moment.
    Link {
        /// The new name.
        path: &'a [u8],
        /// An earlier one.
        target: &'a [u8],
    },
    /// The directory hides what is below it in lower layers.
    Opaque {
        /// Which.
        path: &'a [u8],
    },
    /// The path and all below it are gone again.
    Gone {
        /// Which.
        path: &'a [u8],
    },
}

/// Takes down what unpacking does.
pub trait Recorder {
    /// One step.
    fn record(&mut self, event: Event<'_>) -> io::Result<()>;
}

/// Takes down nothing.
pub struct Unrecorded;

impl Recorder for Unrecorded {
    fn record(&mut self, _: Event<'_>) -> io::Result<()> {
        Ok(())
    }
}
