//! What a snapshot driver is.
//!
//! # Vocabulary
//! - A *layer* is a directory in overlay format: what it adds, whiteouts for what it deletes, opaque directories.
//! - A *stack* is an image's layers, topmost first. Its *chain* names what each layer looks like together with all below it
//!   (the OCI chain id), for drivers that keep such trees.
//! - A *snapshot* is a container's tree over a stack; a *view* is one that cannot be written to.
//! - A *snapshot directory* belongs to one snapshot and to its driver alone. It is empty when `create` is called. A driver keeps there
//!   all it needs to know of a snapshot, so that it may be asked again after a restart and after the configured driver has changed.
//! - *Mounts* are only described, in containerd's shape; the consumer makes them in a mount namespace of its own.
//!
//! # Lifecycle of a snapshot directory
//! ```text
//! (empty) --create--> staged --renamed by Snapshots--> there --remove--> (moved to the trash)
//!            `--error or kill -9: remove, then the trash             mounts, usage: any time, any number
//! ```
//! `fork` fills an empty directory as `create` does, with what another snapshot of the same stack holds.
//!
//! `create` and `fork` may be killed at any point: whatever it made outside of the directory must be found again by `retain`, which is called at
//! each start. `remove` is idempotent and comes before the directory is thrown away, so a crash between the two repeats it.
//!
//! # Worked examples
//! A container over the layers `base` and `app`, in each driver:
//! ```text
//! overlay  create: fs/ (owner and mode of app's root), work/
//!          mounts: overlay lowerdir+=layers/app lowerdir+=layers/base upperdir=<dir>/fs workdir=<dir>/work
//!          remove: nothing; all is in the directory
//! fuse     the same directories; mounts: fuse.davit-cowfs with the same options, served by a process of whoever mounts
//! copy     create: fs/ = base, then app over it: its whiteouts delete, its opaque directories clear
//!          mounts: bind <dir>/fs
//! proxy    create: Stat chain(base,app); missing: Prepare x1 "" -> mount, copy base, Commit chain(base);
//!                  Prepare x2 chain(base) -> mount, copy app over it, Commit chain(base,app); then Prepare <own key> chain(base,app)
//!          mounts: what Mounts <own key> answers
//!          remove: Remove <own key>      retain: Remove chains of images that have gone
//! ```
//! A clone of it:
//! ```text
//! overlay  fork: as create, then all of the other's fs/ with its whiteouts and marks; never a layer
//! fuse     the same, after the kernel's cache of the running one was written back
//! copy     fork: fs/ = the other's fs/, which is the whole tree (cheap only with reflinks)
//! proxy    fork: Prepare <own key> chain(base,app), then what both mounts write to: upperdir to upperdir, or a bind's directory
//! ```
//! overlay and fuse are one kind of snapshot: what one made is mounted by the other when that is the driver in use.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::SnapshotError;
use crate::copytree::{Source, copy_unless};

mod choose;
mod copy;
mod fuse;
mod layered;
mod overlay;
mod proxy;

pub use choose::{Drivers, Works, first_of_the_layered};
pub(crate) use fuse::program as cowfs_program;
pub use proxy::ProxyError;

/// The layers that a snapshot is based on, topmost first; a layer that hides all below is the last.
#[derive(Debug, Clone, Default)]
pub struct Stack {
    /// Directories in overlay format, none twice.
    pub layers: Vec<PathBuf>,
    /// The same layers with what each is together with those below it. A layer may come twice.
    pub chain: Vec<Link>,
}

/// A layer as a part of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The chain id, "sha256:...".
    pub id: String,
    /// The directory of the layer.
    pub layer: PathBuf,
}

/// A mount as the contract describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// "overlay", "bind", "fuse.davit-cowfs", or what a proxy answers.
    pub kind: Cow<'static, str>,
    /// Device or directory.
    pub source: String,
    /// In the order in which they are to be set.
    pub options: Vec<String>,
    /// The program that serves it where it is mounted, for types that a program serves; unset: davit's own.
    pub server: Option<PathBuf>,
}

/// How a snapshot is to be copied.
#[derive(Debug, Clone, Copy)]
pub struct Forking<'a> {
    /// The source cannot be written to, and neither can the copy.
    pub read_only: bool,
    /// Set when nobody waits for the copy any more.
    pub stop: &'a AtomicBool,
}

impl Forking<'_> {
    /// Copies what a container wrote.
    fn copy(&self, from: &Path, to: &Path) -> Result<(), SnapshotError> {
        let open = |p| davit_sys::beneath::open_root(p).map_err(|e| e.source);
        let copied = open(from)
            .and_then(|from| copy_unless(self.stop, from.as_fd(), open(to)?.as_fd(), Source::Upper));
        crate::failpoint::pass("snapshot.copied");
        match copied {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => Err(SnapshotError::GivenUp),
            other => other.map_err(SnapshotError::Fork),
        }
    }
}

/// Makes trees of stacks. All methods block.
pub trait Driver: Send + Sync {
    /// Its name: "overlay".
    fn name(&self) -> &'static str;

    /// Why it was chosen over those before it.
    fn reason(&self) -> &str;

    /// Fills an empty snapshot directory.
    fn create(&self, dir: &Path, stack: &Stack, read_only: bool) -> Result<(), SnapshotError>;

    /// Fills an empty snapshot directory with what the snapshot in `source` holds, which may be mounted.
    fn fork(&self, source: &Path, dir: &Path, stack: &Stack, how: &Forking<'_>) -> Result<(), SnapshotError>;

    /// How to mount it.
    fn mounts(&self, dir: &Path, stack: &Stack, read_only: bool) -> Result<Vec<Mount>, SnapshotError>;

    /// Releases what it keeps outside of the directory, which may be half made.
    fn remove(&self, dir: &Path) -> Result<(), SnapshotError> {
        let _ = dir;
        Ok(())
    }

    /// Bytes and inodes that the snapshot takes, without what it shares with its image.
    fn usage(&self, dir: &Path) -> Result<(u64, u64), SnapshotError> {
        Ok(super::usage_of(&dir.join("fs")))
    }

    /// Gives up what it keeps for images that are not among `chains` any more, and what earlier lives of this daemon left for snapshot
    /// directories that are not among `dirs`. Called at the start, somewhat later, and after removals; snapshots may be made meanwhile.
    fn retain(&self, chains: &BTreeSet<String>, dirs: &[PathBuf]) -> Result<(), SnapshotError> {
        let _ = (chains, dirs);
        Ok(())
    }
}
