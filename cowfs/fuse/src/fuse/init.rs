//! What is agreed with the kernel before the first request (FUSE_INIT; include/uapi/linux/fuse.h).

use std::time::Duration;

use fuser::{InitFlags, KernelConfig};

/// What the mount's options leave open.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// POSIX ACLs are served and the kernel enforces them.
    pub(super) acl: bool,
    /// The kernel collects writes.
    pub(super) writeback: bool,
}

/// The biggest read or write.
const MAX_WRITE: u32 = 1 << 20;

/// Reads ahead and collected writes that may be under way.
const MAX_BACKGROUND: u16 = 64;

/// Asks for what the kernel has of what is wanted. Answers whether the umask is left to the file system.
///
/// Left out on purpose: ATOMIC_O_TRUNC (opens send no message that could truncate), SETXATTR_EXT (fuser cannot read it), POSIX_LOCKS and
/// FLOCK_LOCKS (the kernel's own locks are right for a file system that only it uses), EXPORT_SUPPORT, AUTO_INVAL_DATA and
/// EXPLICIT_INVAL_DATA (nobody else changes the layers; without either the kernel drops pages only when a size it is told differs).
pub(super) fn negotiate(config: &mut KernelConfig, wanted: Wanted) -> bool {
    let mut flags = InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_READDIRPLUS_AUTO
        | InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_CACHE_SYMLINKS
        | InitFlags::FUSE_NO_OPEN_SUPPORT
        | InitFlags::FUSE_NO_OPENDIR_SUPPORT
        | InitFlags::FUSE_ASYNC_DIO
        | InitFlags::FUSE_HANDLE_KILLPRIV_V2
        | InitFlags::FUSE_NO_EXPORT_SUPPORT;
    if wanted.acl {
        flags |= InitFlags::FUSE_POSIX_ACL | InitFlags::FUSE_DONT_MASK;
    }
    if wanted.writeback {
        flags |= InitFlags::FUSE_WRITEBACK_CACHE;
    }
    let flags = flags & config.capabilities();
    config.add_capabilities(flags).expect("only what the kernel offers is asked for");
    config.set_max_write(MAX_WRITE).expect("fuser takes writes of 16 MiB");
    config.set_max_background(MAX_BACKGROUND).expect("it is not zero");
    config.set_time_granularity(Duration::from_nanos(1)).expect("a nanosecond is a power of ten");
    flags.contains(InitFlags::FUSE_DONT_MASK)
}
