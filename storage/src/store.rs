//! The store as a whole: what is on disk, and the one way in which images come into it.
//!
//! Owner of everything below the state directory. Invariants:
//! - a record in the database names only what is durable: publish by rename, then one syncfs, then one commit;
//! - what no record names is garbage and is swept at start;
//! - commits and collections exclude each other.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use davit_cowfs::Namespace;
use tokio::sync::Semaphore;

use crate::content::{ContentStore, StagedBlob};
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::{LayerHandle, LayerStore};
use crate::metadata::{Addition, ImageRecord, Metadata};
use crate::settings::Settings;
use crate::snapshot::Snapshots;
use crate::trash::Trash;
use crate::volume::Volumes;

mod intake;
mod outgoing;

pub use intake::{LayerSource, Opener};
pub use outgoing::LayerArchive;

/// The version of the state directory's layout.
pub const FORMAT: u32 = 1;

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
    committing: Mutex<()>,
    /// Held by the one repair that may run.
    pub(crate) repairing: Mutex<()>,
    unpacking: Semaphore,
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
        let trash = Trash::open(state.join("trash"))?;
        let metadata = Metadata::open(&state.join("metadata.redb"))?;
        let content = ContentStore::open(state, trash.clone())?;
        let layers = LayerStore::open(state, trash.clone())?;
        let namespace = if rootless { Namespace::User } else { Namespace::Trusted };
        let known = metadata.contents()?;
        let swept = layers.sweep(|d| known.layers.contains_key(d))?
            + content.sweep(|d| known.blobs.contains_key(d))?;
        if swept > 0 {
            tracing::info!(swept, "removed what an unfinished operation had left");
        }
        let snapshots = Snapshots::open(state, trash.clone(), &settings, namespace)?;
        let volumes = Volumes::open(state, trash)?;
        let parallel = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 6);
        Ok(Arc::new(Self {
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
            committing: Mutex::new(()),
            repairing: Mutex::new(()),
            unpacking: Semaphore::new(parallel),
        }))
    }

    /// Excludes other commits and collections.
    pub(crate) fn exclusive(&self) -> MutexGuard<'_, ()> {
        self.committing.lock().expect("no one panics while committing")
    }

    /// Makes images durable and visible, all or none. Blocks on the disk.
    pub fn commit(&self, images: &[NewImage]) -> Result<(), Error> {
        let _span = tracing::info_span!("commit", images = images.len()).entered();
        let exclusive = self.exclusive();
        let committed = self.publish(images).and_then(|addition| {
            let started = std::time::Instant::now();
            self.layers.sync()?;
            let synced = started.elapsed();
            self.metadata.add(&addition)?;
            tracing::debug!(
                sync_ms = synced.as_millis(),
                total_ms = started.elapsed().as_millis(),
                "durable"
            );
            Ok(())
        });
        if committed.is_err() {
            self.unpublish(images);
        }
        drop(exclusive);
        committed
    }

    fn publish(&self, images: &[NewImage]) -> Result<Addition, Error> {
        let mut addition = Addition::default();
        for image in images {
            for layer in &image.layers {
                if let LayerHandle::Ready(ready) = layer {
                    self.layers.publish(ready)?;
                    self.content.publish(&ready.blob)?;
                    addition.layers.push(ready.record.clone());
                    addition.blobs.push((ready.blob.digest.clone(), ready.blob.size));
                }
            }
            for blob in &image.blobs {
                self.content.publish(blob)?;
                addition.blobs.push((blob.digest.clone(), blob.size));
            }
            addition.images.push(image.record.clone());
            addition.tags.extend(image.tags.iter().map(|t| (t.clone(), image.record.id.clone())));
        }
        Ok(addition)
    }

    /// Takes back what a failed commit published: nothing may be left of it.
    fn unpublish(&self, images: &[NewImage]) {
        let forget_blob = |digest: &Digest| {
            if let Ok(None) = self.metadata.blob(digest)
                && let Err(e) = self.content.delete(digest)
            {
                tracing::warn!(error = %e, "a blob of a failed commit is left until the next start");
            }
        };
        for image in images {
            for layer in &image.layers {
                let LayerHandle::Ready(ready) = layer else { continue };
                forget_blob(&ready.blob.digest);
                if let Ok(None) = self.metadata.layer(&ready.record.diff_id)
                    && let Err(e) = self.layers.delete(&ready.record.diff_id)
                {
                    tracing::warn!(error = %e, "a layer of a failed commit is left until the next start");
                }
            }
            image.blobs.iter().for_each(|b| forget_blob(&b.digest));
        }
    }
}
