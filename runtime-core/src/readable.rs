//! Descriptors that tokio's event loop watches for input: inotify, pidfds.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches an owned descriptor; it stays open as long as it is watched.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // Deprecated because a type's AsRawFd may lie about its descriptor; OwnedFd's cannot. The replacement is `unsafe`.
    #[allow(deprecated)]
    AsyncFd::with_interest(fd, Interest::READABLE)
}
