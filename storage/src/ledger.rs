//! What a layer's tree must look like, written down while it is unpacked, so that damage can be found later.
//!
//! Unpacking tells a [`Recorder`] each path in the order in which the archive made it. A later record of a path replaces an
//! earlier one; paths are those in the tree (links on the way resolved), relative, without a leading slash, "" for the
//! root.

//!
//! On disk a ledger is one file a layer (see [`path`]), written by [`Writer`], read by [`Reader`]: a header with the
//! version, one record an event, and a trailer with the number of records and the BLAKE3 digest of all before it, so
//! that a damaged or cut ledger is noticed. Numbers are LEB128; a path only stores what differs from the one before.
//!
//! ```text
//! "davit-ledger 1\n"  { 1 PATH BODY | 2 PATH TARGET | 3 PATH | 4 PATH }*  0 COUNT DIGEST
//! PATH = shared-prefix length rest     BODY = kind mode uid gid mtime xattrs [size digest | target | major minor]
//! ```

use std::io;

use crate::tarball::Time;

mod read;
mod write;

pub use read::{LedgerError, Reader, node_at};
pub use write::Writer;

/// The first bytes of every ledger of this version.
const MAGIC: &[u8] = b"davit-ledger 1\n";
/// What every version begins with.
const MAGIC_STEM: &[u8] = b"davit-ledger ";
/// The longest path: links of a layer can lead deeper than any single name of its archive does.
const MAX_PATH: usize = 1 << 20;
/// The most attributes of one path, and the longest name and value (XATTR_NAME_MAX, XATTR_SIZE_MAX).
const MAX_XATTRS: usize = 1 << 16;
const MAX_XATTR_NAME: usize = 255;
const MAX_XATTR_VALUE: usize = 1 << 16;
/// All attributes of one path together.
const MAX_XATTR_BYTES: usize = 8 << 20;

/// What begins a record.
mod tag {
    pub(super) const END: u8 = 0;
    pub(super) const NODE: u8 = 1;
    pub(super) const LINK: u8 = 2;
    pub(super) const OPAQUE: u8 = 3;
    pub(super) const GONE: u8 = 4;
}

/// What begins a body.
mod kind {
    pub(super) const FILE: u8 = 0;
    pub(super) const DIRECTORY: u8 = 1;
    pub(super) const SYMLINK: u8 = 2;
    pub(super) const FIFO: u8 = 3;
    pub(super) const CHAR_DEVICE: u8 = 4;
    pub(super) const BLOCK_DEVICE: u8 = 5;
    pub(super) const WHITEOUT: u8 = 6;
}

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

#[cfg(test)]
mod tests;
