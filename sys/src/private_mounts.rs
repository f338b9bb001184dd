//! Work with mounts that nobody else sees: a thread of its own in a mount namespace of its own (unshare(2), mount_namespaces(7)).
//!
//! No thread of a pool ever changes its namespace: the thread exists for one piece of work, and when it ends the kernel
//! takes its namespace apart with all that was mounted in it, also after a panic or kill -9. Nothing propagates in either
//! direction, so nothing of it can stay on the host.

use std::io;
use std::thread;

use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;

/// Stack of the thread: copying trees recurses.
const STACK: usize = 8 << 20;

/// Why the work could not begin.
#[derive(Debug, thiserror::Error)]
pub enum PrivateMountsError {
    /// No thread could be made.
    #[error("cannot start a thread for private mounts")]
    Thread(#[source] io::Error),
    /// unshare(2) refused.
    #[error("cannot make a private mount namespace")]
    Unshare(#[source] io::Error),
    /// The new namespace is still tied to the host's.
    #[error("cannot cut the private mount namespace off from the host's")]
    Propagation(#[source] io::Error),
}

/// Runs `work` on a thread that exists for nothing else, in a mount namespace that ends with it, and waits for it.
///
/// A panic of `work` goes on in the caller.
///
/// # Errors
/// The thread or its namespace could not be made; `work` did not run then.
pub fn run<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, PrivateMountsError> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("private-mounts".into())
            .stack_size(STACK)
            .spawn_scoped(scope, move || {
                enter()?;
                Ok(work())
            })
            .map_err(PrivateMountsError::Thread)?;
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn enter() -> Result<(), PrivateMountsError> {
    // SAFETY: the flag changes what this thread sees of mounts (and un-shares its working directory and umask), no
    // descriptor and no memory; the thread was made for this and shares its new namespace with nobody.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
        .map_err(|e| PrivateMountsError::Unshare(e.into()))?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|e| PrivateMountsError::Propagation(e.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_inside_is_seen_nowhere_else() {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        let dir = std::env::temp_dir().join(format!("davit-private-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        run(|| {
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("tmpfs", &dir, "tmpfs", flags, Some(c"size=64k")).unwrap();
            std::fs::write(dir.join("inside"), b"x").unwrap();
        })
        .unwrap();
        assert!(!dir.join("inside").exists());
        let seen = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!seen.contains(dir.to_str().unwrap()));
        std::fs::remove_dir(dir).unwrap();
    }
}
