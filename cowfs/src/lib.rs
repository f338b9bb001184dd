//! The overlay on-disk format that kernel overlayfs defined, as names and rules without any I/O.
//!
//! Who writes it: davit-storaged's unpack. Who reads it: the kernel's overlayfs, fuse-overlayfs and (later) davit's own
//! FUSE file system. Nothing here has state.
//!
//! The format (kernel: Documentation/filesystems/overlayfs.rst):
//! - *whiteout*: a character device 0:0 named like what it hides;
//! - *opaque directory*: hides everything that lower layers have below it; xattr `overlay.opaque` = `y`;
//! - *redirect*: a renamed directory; xattr `overlay.redirect` = where it was below;
//! - the xattrs live in `trusted.` (root of the initial user namespace) or `user.` (mount option `userxattr`).
//!
//! Layer tars spell the same with file names (OCI image-spec, layer.md): `.wh.NAME` and `.wh..wh..opq`.

mod name;

pub use name::{Namespace, OPAQUE_VALUE, TarName, WHITEOUT_RDEV, is_reserved_xattr, tar_name};
