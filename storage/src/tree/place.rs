//! How a container's tree is reached.
//!
//! - While the container runs and all its mounts matter (`cp`): through the root directory of one of its processes.
//! - While it runs on a mount that a program serves, and only its own files matter: through a copy of that mount, because what was written
//!   last may be in its page cache only, and not in the layer yet.
//! - Otherwise the snapshot's mounts are made on a thread with a mount namespace of its own, at the snapshot's own directory: nobody
//!   else sees them, and they are gone when the thread ends, also when the daemon is killed.
//!
//! What is only read is mounted read-only with the container's layer as the topmost lower one. overlayfs forbids two mounts with
//! one upper directory, and a container may be started while it is read. Writing into a tree that does not run is done by one
//! operation at a time.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use davit_cowfs::Namespace;
use davit_sys::apart::{self, Own};
use davit_sys::process::ProcessRef;
use davit_sys::rootfs::{self, Target};
use davit_sys::served::{self, Served};
use rustix::fs::{Mode, OFlags};

use super::ids::Ids;
use super::{TreeError, io_error};
use crate::snapshot::driver::Mount;
use crate::snapshot::mounted;

/// What statfs(2) says of a mount that a program serves.
const FUSE_SUPER_MAGIC: rustix::fs::FsWord = 0x6573_5546;

/// A process of a container, named so that a recycled pid is not taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// In our pid namespace.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat; 0: not checked.
    pub start_ticks: u64,
}

/// A directory or file of the host that a container has in its tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// On the host.
    pub source: PathBuf,
    /// In the tree.
    pub target: PathBuf,
    /// `:ro`.
    pub read_only: bool,
}

/// A container's tree.
#[derive(Debug, Clone)]
pub struct Tree {
    /// Its snapshot's key, for messages.
    pub key: String,
    /// The snapshot's directory: an existing place to mount at.
    pub at: PathBuf,
    /// The snapshot's mounts; the first is the root.
    pub mounts: Vec<Mount>,
    /// What else is mounted in it.
    pub binds: Vec<Bind>,
    /// The root is not to be written to.
    pub read_only: bool,
    /// Set while it runs.
    pub process: Option<Process>,
}

/// What is to be done with a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// The container's own files, without what is mounted in it.
    Snapshot,
    /// As its program sees it, to be read.
    Read,
    /// As its program sees it, to be changed.
    Write,
}

/// An overlay mount's directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Overlay {
    pub(super) upper: PathBuf,
    /// Topmost first.
    pub(super) lower: Vec<PathBuf>,
    pub(super) namespace: Namespace,
    /// Options that decide how the directories are read.
    reading: Vec<String>,
}

impl Overlay {
    /// The directories that a description of a mount names; `None` when it is no overlay, the kernel's or davit-cowfs's, or one without an
    /// upper directory.
    pub(super) fn of(mount: &Mount) -> Option<Self> {
        if mount.kind != "overlay" && !served::is_served(&mount.kind) {
            return None;
        }
        let mut overlay = Self {
            upper: PathBuf::new(),
            lower: Vec::new(),
            namespace: Namespace::Trusted,
            reading: Vec::new(),
        };
        for option in &mount.options {
            match option.split_once('=') {
                Some(("lowerdir+", path)) => overlay.lower.push(path.into()),
                Some(("lowerdir", paths)) => overlay.lower.extend(split(paths)),
                Some(("upperdir", path)) => overlay.upper = path.into(),
                Some(("redirect_dir" | "metacopy" | "xino", _)) => overlay.reading.push(option.clone()),
                _ if option == "userxattr" => overlay.namespace = Namespace::User,
                _ => {}
            }
        }
        (!overlay.upper.as_os_str().is_empty()).then_some(overlay)
    }

    /// Options of the same tree without anything to write to.
    fn read_only(&self) -> Vec<String> {
        let all = [&self.upper].into_iter().chain(&self.lower);
        let mut options: Vec<String> = all.map(|l| format!("lowerdir+={}", l.display())).collect();
        options.extend(self.namespace.mount_option().map(str::to_owned));
        options.extend(self.reading.iter().cloned());
        options
    }
}

/// `a:b\:c` is `a` and `b:c`.
fn split(paths: &str) -> Vec<PathBuf> {
    let (mut all, mut one, mut escaped) = (Vec::new(), String::new(), false);
    for c in paths.chars() {
        match c {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            ':' if !escaped => all.push(std::mem::take(&mut one).into()),
            c => one.push(c),
        }
        escaped = false;
    }
    all.push(one.into());
    all
}

impl Tree {
    /// Runs `work` on a thread of its own with the root of the tree.
    pub(super) fn enter<T: Send + 'static>(
        &self,
        access: Access,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<T, TreeError> + Send + 'static,
    ) -> Result<T, TreeError> {
        let span = tracing::Span::current();
        let thread = if let (Some(process), Access::Read | Access::Write) = (self.process, access) {
            let root = root_of(process)?;
            let ids = Ids::of(process.pid);
            apart::spawn("tree", Own::Root, move || span.in_scope(|| ids.hold(|| work(root.as_fd()))))?
        } else if let Some(root) = self.served_to_a_process()? {
            apart::spawn("tree", Own::Root, move || span.in_scope(|| work(root.as_fd())))?
        } else {
            let tree = self.clone();
            apart::spawn("tree", Own::Mounts, move || span.in_scope(|| tree.mount_and(access, work)))?
        };
        thread.join().map_err(|_| TreeError::Panicked)??
    }

    fn mount_and<T: Send + 'static>(
        &self,
        access: Access,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<T, TreeError> + Send + 'static,
    ) -> Result<T, TreeError> {
        let gate = (access == Access::Write).then(|| writer(&self.at));
        let _one_at_a_time = gate.as_ref().map(|g| g.lock().unwrap_or_else(PoisonError::into_inner));
        let (root, server) = self.mount(access)?;
        let Some(server) = server else { return work(root.as_fd()) };
        // The work may move this thread's root into the tree, from where it could not be unmounted.
        let inner = apart::spawn("tree-work", Own::Root, move || work(root.as_fd()))?;
        let result = inner.join().map_err(|_| TreeError::Panicked)??;
        match server.end() {
            Err(e) if access == Access::Write => result.and(Err(mounted::MountedError::from(e).into())),
            Err(e) => {
                tracing::warn!(error = %e, snapshot.key = %self.key, "a file system that was only read did not end well");
                result
            }
            Ok(()) => result,
        }
    }

    fn served_to_a_process(&self) -> Result<Option<OwnedFd>, TreeError> {
        self.process.map_or(Ok(None), served_root)
    }

    fn mount(&self, access: Access) -> Result<(OwnedFd, Option<Served>), TreeError> {
        if access == Access::Write {
            return self.mount_all(false, access);
        }
        match self.mount_all(true, access) {
            // A place to mount at is not there yet: the container was never started. It is made as the start would make it.
            Err(TreeError::Io { operation: PLACE, .. }) => self.mount_all(false, access),
            other => other,
        }
    }

    fn mount_all(&self, read_only: bool, access: Access) -> Result<(OwnedFd, Option<Served>), TreeError> {
        let mut server = None;
        // davit's drivers have one mount, the root's.
        if let Some(mount) = self.mounts.first() {
            let mut options = mount.options.clone();
            if read_only {
                if let Some(overlay) = Overlay::of(mount) {
                    options = overlay.read_only();
                }
                options.push("ro".into());
            }
            server = mounted::make(mount, &options, &self.at, self.open_place()?.as_fd())?;
        }
        let root = self.open_place()?;
        if access != Access::Snapshot {
            for bind in &self.binds {
                mount_bind(bind, root.as_fd(), read_only)?;
            }
        }
        Ok((root, server))
    }

    fn open_place(&self) -> Result<OwnedFd, TreeError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(&self.at, flags, Mode::empty())
            .map_err(|e| io_error("open the snapshot of", self.key.as_bytes(), e))
    }
}

const PLACE: &str = "find the place of a mount,";

fn mount_bind(bind: &Bind, root: BorrowedFd<'_>, find_only: bool) -> Result<(), TreeError> {
    let failed = |e| io_error(PLACE, bind.target.as_os_str().as_encoded_bytes(), e);
    let place = if find_only {
        rootfs::open_in_root(root, &bind.target, OFlags::PATH)
    } else {
        let is_dir = std::fs::metadata(&bind.source).is_ok_and(|m| m.is_dir());
        rootfs::open_or_make(root, &bind.target, if is_dir { Target::Directory } else { Target::File })
    };
    let mut options = vec!["rbind".to_owned()];
    options.extend(bind.read_only.then(|| "ro".to_owned()));
    davit_sys::mount::mount_at("bind", &bind.source, &options, place.map_err(failed)?.as_fd())?;
    Ok(())
}

/// Has the kernel hand what programs wrote in a root that is served (mapped files, above all) to whoever serves it, so that it is in the
/// snapshot's own files. A root of the kernel's own needs nothing, nor does a container that has ended.
pub fn write_back(process: Process) -> Result<(), TreeError> {
    let Some(root) = served_root(process)? else { return Ok(()) };
    let open =
        rustix::fs::openat(&root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    open.and_then(rustix::fs::syncfs).map_err(|e| io_error("write back the files of", b"", e))
}

/// The root of a running container whose root is served, without what else is mounted in it. None: it does not run (any more), or its
/// root is a mount of the kernel's own. What it has is looked at: another driver may be in use since it was started.
fn served_root(process: Process) -> Result<Option<OwnedFd>, TreeError> {
    let found = reference_of(process).and_then(|process| {
        let root = process.root()?;
        let served = rustix::fs::fstatfs(&root).is_ok_and(|s| s.f_type == FUSE_SUPER_MAGIC);
        if served { process.own_root().map(Some) } else { Ok(None) }
    });
    match found {
        Err(davit_sys::process::ProcessError::Gone(_)) => Ok(None),
        other => Ok(other?),
    }
}

fn reference_of(process: Process) -> Result<ProcessRef, davit_sys::process::ProcessError> {
    match process.start_ticks {
        0 => ProcessRef::of(process.pid),
        start_time => Ok(ProcessRef { pid: process.pid, start_time }),
    }
}

fn root_of(process: Process) -> Result<OwnedFd, TreeError> {
    let reference = reference_of(process)?;
    // Held while the root is opened: the pid cannot be given to another process meanwhile without `root` seeing it.
    let _pidfd = reference.pidfd()?;
    Ok(reference.root()?)
}

/// The lock of those who write into the tree at `at`.
fn writer(at: &Path) -> Arc<Mutex<()>> {
    static WRITERS: LazyLock<Mutex<HashMap<PathBuf, Weak<Mutex<()>>>>> = LazyLock::new(Mutex::default);
    let mut writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
    writers.retain(|_, w| w.strong_count() > 0);
    if let Some(there) = writers.get(at).and_then(Weak::upgrade) {
        return there;
    }
    let writer = Arc::new(Mutex::new(()));
    writers.insert(at.to_owned(), Arc::downgrade(&writer));
    writer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_lower_directories_are_understood() {
        let mount = |options: &[&str]| Mount {
            kind: "overlay".into(),
            source: "overlay".into(),
            options: options.iter().map(ToString::to_string).collect(),
            server: None,
        };
        let new = mount(&[
            "lowerdir+=/a",
            "lowerdir+=/b:c",
            "upperdir=/u",
            "workdir=/w",
            "userxattr",
            "metacopy=on",
        ]);
        let old = mount(&[r"lowerdir=/a:/b\:c", "upperdir=/u", "workdir=/w", "userxattr", "metacopy=on"]);
        let overlay = Overlay::of(&new).unwrap();
        assert_eq!(Overlay::of(&old).unwrap(), overlay);
        assert_eq!(overlay.lower, [Path::new("/a"), Path::new("/b:c")]);
        assert_eq!(
            overlay.read_only(),
            ["lowerdir+=/u", "lowerdir+=/a", "lowerdir+=/b:c", "userxattr", "metacopy=on"].map(str::to_owned)
        );
        assert_eq!(Overlay::of(&mount(&["lowerdir+=/a"])), None);
        let served = Mount { kind: "fuse.davit-cowfs".into(), ..new };
        assert_eq!(Overlay::of(&served), Some(overlay));
    }

    #[test]
    fn writers_of_one_tree_share_a_lock_and_others_do_not() {
        let one = writer(Path::new("/x/1"));
        assert!(Arc::ptr_eq(&one, &writer(Path::new("/x/1"))));
        assert!(!Arc::ptr_eq(&one, &writer(Path::new("/x/2"))));
    }
}
