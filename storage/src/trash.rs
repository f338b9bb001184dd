//! Removing trees: out of sight at once by a rename, for good in the background.
//!
//! Owner: the one [`Trash`] of a store. Invariant: whatever is in its directory is garbage, also after a crash; it is
//! emptied at start. Trees may be hostile: deeper than there are descriptors, so deep parts are cut off and deleted as trees of their own.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use crate::failpoint;
use crate::failure::{At, PathError};

/// Directories deeper than this below the tree's top are moved up.
const MAX_DEPTH: usize = 64;
/// The deleting thread ends after this time without work, so that an idle daemon has no stack for it.
const LINGER: Duration = Duration::from_secs(2);

/// A directory of garbage and a thread, while there is work, that empties it.
#[derive(Clone)]
pub struct Trash {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    next: AtomicU64,
    worker: Mutex<Option<Sender<PathBuf>>>,
}

impl Trash {
    /// Opens the directory and empties what an earlier process left, in the background.
    pub fn open(dir: PathBuf) -> Result<Self, PathError> {
        std::fs::create_dir_all(&dir).at("create", &dir)?;
        let trash =
            Self { inner: Arc::new(Inner { dir, next: AtomicU64::new(0), worker: Mutex::new(None) }) };
        let leftovers = std::fs::read_dir(&trash.inner.dir).at("read", &trash.inner.dir)?;
        for entry in leftovers.flatten() {
            // Whoever was still at it may have come to its end.
            trash.discard(&entry.path())?;
        }
        Ok(trash)
    }

    /// Moves a file or tree away and deletes it soon. A path that does not exist is fine.
    pub fn discard(&self, path: &Path) -> Result<(), PathError> {
        let to = self.fresh_path();
        match std::fs::rename(path, &to) {
            Ok(()) => {
                failpoint::pass("trash.moved");
                self.delete_later(to);
                Ok(())
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e).at("remove", path),
        }
    }

    fn fresh_path(&self) -> PathBuf {
        let random: u64 = rand::random();
        let n = self.inner.next.fetch_add(1, Ordering::Relaxed);
        self.inner.dir.join(format!("{random:016x}-{n}"))
    }

    fn delete_later(&self, path: PathBuf) {
        let mut worker = self.inner.worker.lock().expect("no one panics with the trash locked");
        let path = match worker.as_ref().map(|w| w.send(path.clone())) {
            Some(Ok(())) => return,
            _ => path,
        };
        let (sender, receiver) = channel();
        sender.send(path).expect("the receiver is right here");
        let inner = Arc::clone(&self.inner);
        let started = std::thread::Builder::new()
            .name("trash".into())
            .stack_size(256 << 10)
            .spawn(move || inner.run(&receiver));
        match started {
            Ok(_) => *worker = Some(sender),
            Err(e) => tracing::warn!(error = %e, "cannot start deleting; it is done at the next start"),
        }
    }
}

impl Inner {
    fn run(&self, work: &Receiver<PathBuf>) {
        loop {
            let path = if let Ok(path) = work.recv_timeout(LINGER) {
                path
            } else {
                let mut worker = self.worker.lock().expect("no one panics with the trash locked");
                // What was sent before the lock was taken is still ours.
                if let Ok(path) = work.try_recv() {
                    path
                } else {
                    *worker = None;
                    return;
                }
            };
            failpoint::pass("trash.deleting");
            let deleted = delete_tree(&path);
            failpoint::pass("trash.deleted");
            if let Err(e) = deleted {
                tracing::warn!(error = %e, cause = %e.source, "cannot delete; it is tried again at the next start");
            }
        }
    }
}

/// Deletes a file or a tree of any depth, following nothing.
pub fn delete_tree(path: &Path) -> Result<(), PathError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default();
    let dir = rustix::fs::open(parent, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .at("open", parent)?;
    delete_in(dir.as_fd(), name).at("delete", path)
}

/// The same for `name` in an open directory, which also takes the parts that are too deep.
pub fn delete_in(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    let mut cut_off: Vec<std::ffi::OsString> = vec![name.to_os_string()];
    let mut count = 0u64;
    while let Some(top) = cut_off.pop() {
        delete_level(dir, &top, 0, &mut |from, deep| {
            count += 1;
            let random: u64 = rand::random();
            let fresh = std::ffi::OsString::from(format!(".deep-{random:016x}-{count}"));
            rustix::fs::renameat(from, deep, dir, &fresh)?;
            cut_off.push(fresh);
            Ok(())
        })?;
    }
    Ok(())
}

type CutOff<'a> = dyn FnMut(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<()> + 'a;

fn delete_level(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    depth: usize,
    cut_off: &mut CutOff<'_>,
) -> rustix::io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {}
        Err(e) => return Err(e),
    }
    if depth > MAX_DEPTH {
        return cut_off(dir, name);
    }
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(dir, name, flags, Mode::empty());
    let child = match open() {
        // A plain user's directory without permission bits.
        Err(rustix::io::Errno::ACCESS) => {
            rustix::fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
            open()?
        }
        other => other?,
    };
    // Entries may be skipped while their directory changes: read again until it is empty.
    loop {
        let mut found = false;
        for entry in Dir::read_from(&child)? {
            let entry = entry?;
            let entry_name = OsStr::from_bytes(entry.file_name().to_bytes());
            if matches!(entry_name.as_bytes(), b"." | b"..") {
                continue;
            }
            found = true;
            if entry.file_type() == FileType::Directory {
                delete_level(child.as_fd(), entry_name, depth + 1, cut_off)?;
            } else {
                rustix::fs::unlinkat(&child, entry_name, AtFlags::empty())?;
            }
        }
        if !found {
            break;
        }
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_the_descriptors_is_deleted() {
        let tmp = tempfile::tempdir().unwrap();
        let victim = tmp.path().join("victim");
        std::fs::create_dir(&victim).unwrap();
        let mut dir = rustix::fs::open(&victim, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        for _ in 0..1500 {
            rustix::fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
            rustix::fs::openat(&dir, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
            dir = rustix::fs::openat(&dir, "d", OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        }
        drop(dir);
        std::os::unix::fs::symlink("/etc", victim.join("link")).unwrap();
        delete_tree(&victim).unwrap();
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0);
        assert!(Path::new("/etc/passwd").exists());
    }

    #[test]
    fn what_is_discarded_is_gone_at_once_and_for_good_soon() {
        let tmp = tempfile::tempdir().unwrap();
        let trash = Trash::open(tmp.path().join("trash")).unwrap();
        for round in 0..3 {
            let victim = tmp.path().join("v");
            std::fs::create_dir_all(victim.join("a/b")).unwrap();
            trash.discard(&victim).unwrap();
            assert!(!victim.exists(), "round {round}");
        }
        trash.discard(&tmp.path().join("never-was")).unwrap();
        while std::fs::read_dir(tmp.path().join("trash")).unwrap().count() > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn what_goes_while_the_trash_is_opened_is_no_error() {
        let tmp = tempfile::tempdir().unwrap();
        let open = || Trash::open(tmp.path().join("trash")).unwrap();
        let mut trash = open();
        for round in 0..200 {
            let victim = tmp.path().join("v");
            std::fs::create_dir(&victim).unwrap();
            trash.discard(&victim).unwrap();
            trash = open();
            assert!(!victim.exists(), "round {round}");
        }
    }
}
