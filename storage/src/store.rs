//! The store as a whole: what is on disk, and the one way in which images come into it.
//!
//! Owner of everything below the state directory. Invariants:
//! - a record in the database names only what is durable: publish by rename, then one syncfs, then one commit (`durable`);
//! - what no record names is garbage and is swept at start, and by a collection (`gc`);
//! - commits and collections exclude each other; commits do not exclude one another. Readers wait for neither.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use davit_cowfs::Namespace;
use tokio::sync::Semaphore;

use crate::content::{ContentStore, StagedBlob};
use crate::error::Error;
use crate::failpoint;
use crate::layer::{LayerHandle, LayerStore};
use crate::metadata::{ImageRecord, Metadata};
use crate::settings::Settings;
use crate::snapshot::Snapshots;
use crate::trash::Trash;
use crate::volume::Volumes;
use writeback::Writeback;

mod durable;
mod gc;
mod intake;
mod outgoing;
mod verified;
mod writeback;

pub(crate) use gc::Outcome;
pub use intake::{Again, LayerSource, Opener};
pub use outgoing::LayerArchive;

/// The version of the state directory's layout.
pub const FORMAT: u32 = 2;

/// Everything that this daemon keeps.
pub struct Store {
    /// Where.
    pub state: PathBuf,
    /// certs.d and the like.
    pub config_dir: PathBuf,
    /// From the configuration file.
    pub settings: Settings,
    /// In a user namespace without rights over the host.
    pub rootless: bool,
    /// Of the layers' xattrs.
    pub namespace: Namespace,
    /// Records.
    pub metadata: Metadata,
    /// Blobs.
    pub content: ContentStore,
    /// Unpacked layers.
    pub layers: Arc<LayerStore>,
    /// Containers' trees.
    pub snapshots: Snapshots,
    /// Volumes.
    pub volumes: Volumes,
    committing: RwLock<()>,
    durable: durable::Durable,
    unpacking: Semaphore,
    writeback: Arc<Writeback>,
}

/// An image to be committed.
pub struct NewImage {
    /// Its record.
    pub record: ImageRecord,
    /// Bottom first.
    pub layers: Vec<LayerHandle>,
    /// Config and manifest.
    pub blobs: Vec<StagedBlob>,
    /// Canonical references.
    pub tags: Vec<String>,
}

impl Store {
    /// Opens the state directory, which the caller has locked, and sweeps what a crash left.
    pub fn open(
        state: &Path,
        config_dir: &Path,
        settings: Settings,
        rootless: bool,
    ) -> Result<Arc<Self>, Error> {
        // Before anything is swept: what the database does not know would be.
        let stored = |dir| std::fs::read_dir(state.join(dir)).is_ok_and(|mut d| d.next().is_some());
        let metadata = Metadata::open(&state.join("metadata.redb"), !stored("layers") && !stored("blobs"))?;
        let known = metadata.contents()?;
        let trash = Trash::open(state.join("trash"))?;
        let content = ContentStore::open(state, trash.clone())?;
        let layers = LayerStore::open(state, trash.clone())?;
        let namespace = if rootless { Namespace::User } else { Namespace::Trusted };
        let swept = layers.sweep(|d| known.layers.contains_key(d))?
            + content.sweep(|d| known.blobs.contains_key(d))?;
        if swept > 0 {
            tracing::info!(swept, "removed what an unfinished operation had left");
        }
        failpoint::pass("open.swept");
        let snapshots = Snapshots::open(state, trash.clone(), &settings, namespace)?;
        let volumes = Volumes::open(state, trash)?;
        let parallel = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 6);
        let store = Arc::new(Self {
            state: state.to_path_buf(),
            config_dir: config_dir.to_path_buf(),
            settings,
            rootless,
            namespace,
            metadata,
            content,
            layers,
            snapshots,
            volumes,
            committing: RwLock::new(()),
            durable: durable::Durable::default(),
            unpacking: Semaphore::new(parallel),
            writeback: Writeback::new(state),
        });
        store.begin_collecting(&known);
        Ok(store)
    }

    /// Excludes commits and collections.
    pub(crate) fn exclusive(&self) -> RwLockWriteGuard<'_, ()> {
        self.committing.write().expect("no one panics while collecting")
    }

    /// Excludes collections only.
    pub(crate) fn beside_commits(&self) -> RwLockReadGuard<'_, ()> {
        self.committing.read().expect("no one panics while collecting")
    }
}
