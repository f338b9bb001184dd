//! Work inside another network namespace, done by a thread of its own that ends with the work (setns(2), namespaces(7)).
//!
//! A socket belongs to the namespace that its thread was in when it was opened, whoever uses it later. So the way to
//! act in a namespace is: visit it on a fresh thread, open sockets there, and hand them back. No thread of a pool ever
//! changes its namespace, and none can be left behind in the wrong one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use nix::sched::{CloneFlags, setns};

/// Stack of a visiting thread. Visits open sockets and exchange a few small netlink messages.
const STACK: usize = 128 << 10;

/// Why a namespace could not be visited.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// No thread could be made.
    #[error("cannot start a thread for another network namespace")]
    Thread(#[source] io::Error),
    /// setns(2) refused.
    #[error("cannot enter the network namespace")]
    Enter(#[source] io::Error),
    /// The calling thread's own namespace could not be opened.
    #[error("cannot open /proc/thread-self/ns/net")]
    Own(#[source] io::Error),
}

/// Runs `work` in the namespace `netns` on a thread that exists for nothing else, and waits for it.
///
/// A panic of `work` goes on in the caller.
///
/// # Errors
/// The thread could not be made or could not enter; `work` did not run then.
pub fn visit<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    thread::scope(|scope| {
        let visitor = thread::Builder::new()
            .name("netns-visit".into())
            .stack_size(STACK)
            .spawn_scoped(scope, move || {
                setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|e| NetnsError::Enter(e.into()))?;
                Ok(work())
            })
            .map_err(NetnsError::Thread)?;
        visitor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Opens the calling thread's network namespace.
pub fn own() -> Result<OwnedFd, NetnsError> {
    std::fs::File::open("/proc/thread-self/ns/net").map(Into::into).map_err(NetnsError::Own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_namespace_is_refused_and_the_work_does_not_run() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut ran = false;
        let result = visit(null.as_fd(), || ran = true);
        assert!(matches!(result, Err(NetnsError::Enter(_))));
        assert!(!ran);
    }
}
