//! davit's copy-on-write file system, and the overlay on-disk format that it shares with the kernel.
//!
//! Nothing here knows of FUSE: [`CowFs`] answers operations on inode numbers from directories on disk, so all of it can be tested
//! without a mount. `davit-cowfs-fuse` translates the kernel's requests into these calls.
//!
//! The format (kernel: Documentation/filesystems/overlayfs.rst):
//! - *whiteout*: a character device 0:0 named like what it hides;
//! - *opaque directory*: hides everything that lower layers have below it; xattr `overlay.opaque` = `y`;
//! - *redirect*: a renamed directory; xattr `overlay.redirect` = where it was below;
//! - the xattrs live in `trusted.` (root of the initial user namespace) or `user.` (mount option `userxattr`).
//!
//! Layer tars spell the same with file names (OCI image-spec, layer.md): `.wh.NAME` and `.wh..wh..opq`.

mod at;
mod busy;
mod config;
mod copy;
pub mod failpoint;
mod fds;
mod fs;
mod layer;
mod listing;
mod name;
mod names;
mod origin;
mod slab;
mod table;
mod types;
mod work;

pub use config::{Config, IdMap, IdRange, OpenError, Redirect, Squash};
pub use fs::CowFs;
pub use name::{
    Namespace, OPAQUE_VALUE, TarName, WHITEOUT_RDEV, XATTR_WHITEOUTS_VALUE, is_reserved_xattr, tar_name,
};
pub use types::{Attr, Caller, Change, DirEntry, Ino, Kind, ROOT, RenameMode, StatFs, Time, TimeChange};

/// The error of every operation: what the caller of the system call sees.
pub use rustix::io::Errno;
