//! The store as a whole: what is on disk, and the one way in which images come into it.
//!
//! Owner of everything below the state directory. Invariants:
//! - a record in the database names only what is durable: publish by rename, then one syncfs, then one commit (`durable`);
//! - what no record names is garbage and is swept at start, and by a collection (`gc`);
//! - commits and collections exclude each other; commits do not exclude one another. Readers wait for neither.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

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
    /// Held by the one repair that may run.
    pub(crate) repairing: Mutex<()>,
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
            repairing: Mutex::new(()),
            unpacking: Semaphore::new(parallel),
            writeback: Writeback::new(state),
        });
        store.begin_collecting(&known);
        store.retain_chains();
        if store.snapshots.driver().name() == "proxy" {
            store.retain_chains_later();
        }
        Ok(store)
    }

    /// Tells the snapshot driver what is still needed. What cannot be given up now is given up at the next start or removal.
    pub(crate) fn retain_chains(&self) {
        if self.snapshots.driver().name() != "proxy" {
            return;
        }
        let retained = self.chains().and_then(|chains| Ok(self.snapshots.retain(&chains)?));
        if let Err(e) = retained {
            tracing::warn!(error = %e, "the snapshot driver cannot give up what no image needs any more");
        }
    }

    /// What another program was asked for just before an earlier life of ours ended may be made only now.
    fn retain_chains_later(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        let later = move || {
            std::thread::sleep(std::time::Duration::from_secs(10));
            if let Some(store) = weak.upgrade() {
                store.retain_chains();
            }
        };
        if let Err(e) = std::thread::Builder::new().name("retain".into()).stack_size(512 << 10).spawn(later) {
            tracing::warn!(error = %e, "what a crash left at a snapshotter is looked for at the next start only");
        }
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
