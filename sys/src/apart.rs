//! Threads with a root and a working directory of their own, and where asked for with mounts of their own (unshare(2), CLONE_FS and
//! CLONE_NEWNS).
//!
//! What such a thread mounts is seen by nobody else and is gone when it ends; where it changes its root, links are followed inside
//! that root only, whoever changes the tree meanwhile. It is a fresh thread each time: one that has left its siblings' root can never
//! come back.

use std::io;
use std::thread::JoinHandle;

use nix::sched::CloneFlags;

use crate::mount::{MountError, make_all_slaves};

/// Only what is used of it takes memory.
const STACK: usize = 16 << 20;

/// What a thread has for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// Root and working directory.
    Root,
    /// These, and a copy of the mount namespace: mounts of the host still arrive, those of the thread stay its own.
    Mounts,
}

/// A thread could not be set apart.
#[derive(Debug, thiserror::Error)]
pub enum ApartError {
    /// No thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// unshare(2).
    #[error("cannot give a thread a root and mounts of its own")]
    Unshare(#[source] io::Error),
    /// The propagation of its mounts.
    #[error(transparent)]
    Propagation(#[from] MountError),
}

/// Runs `work` on a new thread that is set apart first.
pub fn spawn<T: Send + 'static>(
    name: &str,
    own: Own,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<Result<T, ApartError>>, ApartError> {
    let apart = move || {
        let flags = match own {
            Own::Root => CloneFlags::CLONE_FS,
            Own::Mounts => CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS,
        };
        nix::sched::unshare(flags).map_err(|e| ApartError::Unshare(e.into()))?;
        if own == Own::Mounts {
            make_all_slaves()?;
        }
        Ok(work())
    };
    // Trees are walked to the depth of the longest path.
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK)
        .spawn(apart)
        .map_err(ApartError::Thread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_root_and_mounts_of_a_thread_are_its_own() {
        let dir = std::env::temp_dir().join(format!("davit-apart-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let inside = dir.clone();
        let thread = spawn("test", Own::Mounts, move || {
            let target = std::fs::File::open(&inside).unwrap();
            crate::mount::mount_at("tmpfs", std::path::Path::new("tmpfs"), &[], target.as_fd()).unwrap();
            std::fs::write(inside.join("mine"), "x").unwrap();
            let root = std::fs::File::open(&inside).unwrap();
            crate::rootfs::chroot(root.as_fd()).unwrap();
            std::path::Path::new("/mine").exists()
        });
        assert!(thread.unwrap().join().unwrap().unwrap());
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        assert!(!std::path::Path::new("/mine").exists());
        std::fs::remove_dir(dir).unwrap();
    }
}
