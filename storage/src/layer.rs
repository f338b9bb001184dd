//! Unpacked layers by diff id.
//!
//! Layout below the state directory: `layers/<64 hex>` is a layer, `staging/<random>` one being unpacked. In both:
//! ```text
//! fs/      the tree, in overlay format
//! ledger   what the tree must look like (see [`crate::ledger`])
//! recipe   how to make the plain tar again (see [`crate::recipe`]); only where no archive is kept
//! ```
//! so that one rename publishes, and one removes, all of a layer. States of a layer:
//!
//! ```text
//! (none) --unpack--> ready (staged, shared in memory) --commit--> committed (renamed, synced, in the database)
//!                      `--last holder drops it--> trash
//! ```
//!
//! Invariants: at most one task unpacks a diff id at a time (its gate is held); a ready layer lives as long as someone
//! holds it; a committed one that is leased is never collected. What a collection has chosen is *dying* until it is gone:
//! nobody can find it any more, so that no lock is held while records and files are removed.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};

use crate::content::StagedBlob;
use crate::digest::Digest;
use crate::failpoint;
use crate::failure::{At, PathError};
use crate::metadata::{ImageRecord, LayerRecord, Metadata, MetadataError};
use crate::trash::Trash;

const TREE: &str = "fs";
const LEDGER: &str = "ledger";
const RECIPE: &str = "recipe";

/// Layers on disk and those on their way there.
pub struct LayerStore {
    layers: PathBuf,
    staging: PathBuf,
    root: std::fs::File,
    trash: Trash,
    shared: Mutex<Shared>,
    released: OnceLock<Released>,
}

#[derive(Default)]
struct Shared {
    ready: HashMap<Digest, Weak<ReadyLayer>>,
    gates: HashMap<Digest, Weak<tokio::sync::Mutex<()>>>,
    /// Layers, and configs and manifests of images, that running operations use.
    leases: HashMap<Digest, usize>,
    /// Layers and images that a collection is removing now.
    dying: BTreeSet<Digest>,
    /// A collection left something because of a lease.
    deferred: bool,
}

/// What is called when the last lease on something that should have been collected ends.
type Released = Box<dyn Fn() + Send + Sync>;

/// A layer that an operation may build an image on.
#[derive(Clone)]
pub enum LayerHandle {
    /// In the database, kept from being collected.
    Committed(Arc<Lease>),
    /// Unpacked by some operation that has not committed yet.
    Ready(Arc<ReadyLayer>),
}

impl LayerHandle {
    /// What is known of it.
    pub fn record(&self) -> &LayerRecord {
        match self {
            Self::Committed(lease) => &lease.record,
            Self::Ready(ready) => &ready.record,
        }
    }
}

/// Keeps a committed layer from being collected.
pub struct Lease {
    record: LayerRecord,
    _layer: Hold,
    _image: Option<Arc<Hold>>,
}

/// Keeps layers, configs and manifests from being collected.
pub struct Hold {
    digests: Vec<Digest>,
    store: Arc<LayerStore>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut shared = self.store.lock();
        let mut freed = false;
        for digest in &self.digests {
            if let Some(count) = shared.leases.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    shared.leases.remove(digest);
                    freed = true;
                }
            }
        }
        let collect = freed && std::mem::take(&mut shared.deferred);
        drop(shared);
        if collect && let Some(released) = self.store.released.get() {
            released();
        }
    }
}

/// A staged tree; thrown away unless it was published.
pub struct StagedTree {
    path: PathBuf,
    trash: Trash,
}

impl StagedTree {
    /// Where to unpack.
    pub fn tree(&self) -> PathBuf {
        self.path.join(TREE)
    }

    /// Where its ledger belongs.
    pub fn ledger(&self) -> PathBuf {
        self.path.join(LEDGER)
    }

    /// Where its recipe belongs.
    pub fn recipe(&self) -> PathBuf {
        self.path.join(RECIPE)
    }
}

impl Drop for StagedTree {
    fn drop(&mut self) {
        if let Err(e) = self.trash.discard(&self.path) {
            tracing::warn!(error = %e, "a staged layer is left until the next start");
        }
    }
}

/// An unpacked layer without a name yet.
pub struct ReadyLayer {
    /// What its record will be.
    pub record: LayerRecord,
    /// Its tar, unless it has a recipe.
    pub blob: Option<StagedBlob>,
    tree: StagedTree,
}

impl LayerStore {
    /// Brings a state directory of format 1 forward, in which a layer was its tree alone. May be cut off anywhere and called
    /// again.
    pub fn migrate_from_1(state: &Path) -> Result<(), PathError> {
        let (layers, moving) = (state.join("layers"), state.join("layers.1"));
        if !layers.exists() && !moving.exists() {
            return Ok(());
        }
        if !moving.exists() {
            std::fs::rename(&layers, &moving).at("rename", &layers)?;
        }
        std::fs::create_dir_all(&layers).at("create", &layers)?;
        for entry in std::fs::read_dir(&moving).at("read", &moving)?.flatten() {
            let to = layers.join(entry.file_name());
            std::fs::create_dir_all(&to).at("create", &to)?;
            std::fs::rename(entry.path(), to.join(TREE)).at("rename", &entry.path())?;
        }
        std::fs::remove_dir(&moving).at("remove", &moving)?;
        let dir = std::fs::File::open(&layers).at("open", &layers)?;
        rustix::fs::syncfs(dir.as_fd()).at("sync", &layers)
    }

    /// Opens it and throws away what was being unpacked.
    pub fn open(state: &Path, trash: Trash) -> Result<Arc<Self>, PathError> {
        let me = Self {
            layers: state.join("layers"),
            staging: state.join("staging"),
            root: std::fs::File::open(state).at("open", state)?,
            trash,
            shared: Mutex::default(),
            released: OnceLock::new(),
        };
        me.trash.discard(&me.staging)?;
        for dir in [&me.layers, &me.staging] {
            std::fs::create_dir_all(dir).at("create", dir)?;
        }
        Ok(Arc::new(me))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no one panics with the layer table locked")
    }

    /// Throws away layers that no record names; answers how many.
    pub fn sweep(&self, known: impl Fn(&Digest) -> bool) -> Result<u64, PathError> {
        let mut swept = 0;
        for entry in std::fs::read_dir(&self.layers).at("read", &self.layers)?.flatten() {
            let digest = entry.file_name().to_str().and_then(|n| Digest::from_hex(n).ok());
            if !digest.is_some_and(|d| known(&d)) {
                self.trash.discard(&entry.path())?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Where a layer's tree is.
    pub fn path(&self, diff_id: &Digest) -> PathBuf {
        self.directory(diff_id).join(TREE)
    }

    /// Where a layer's ledger is, if it has one.
    pub fn ledger(&self, diff_id: &Digest) -> PathBuf {
        self.directory(diff_id).join(LEDGER)
    }

    /// Where a layer's recipe is, if it has one.
    pub fn recipe(&self, diff_id: &Digest) -> PathBuf {
        self.directory(diff_id).join(RECIPE)
    }

    fn directory(&self, diff_id: &Digest) -> PathBuf {
        self.layers.join(diff_id.hex())
    }

    /// Lets one task at a time work on a diff id.
    pub fn gate(&self, diff_id: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut shared = self.lock();
        shared.gates.retain(|_, g| g.strong_count() > 0);
        if let Some(gate) = shared.gates.get(diff_id).and_then(Weak::upgrade) {
            return gate;
        }
        let gate = Arc::new(tokio::sync::Mutex::new(()));
        shared.gates.insert(diff_id.clone(), Arc::downgrade(&gate));
        gate
    }

    /// The layer, when it is there: leased, or shared with the operation that unpacked it.
    pub fn present(
        self: &Arc<Self>,
        metadata: &Metadata,
        diff_id: &Digest,
    ) -> Result<Option<LayerHandle>, MetadataError> {
        self.present_for(metadata, diff_id, None)
    }

    /// The same for the layer of an image that is held as long.
    pub fn present_for(
        self: &Arc<Self>,
        metadata: &Metadata,
        diff_id: &Digest,
        image: Option<&Arc<Hold>>,
    ) -> Result<Option<LayerHandle>, MetadataError> {
        let mut shared = self.lock();
        if !shared.dying.contains(diff_id)
            && let Some(record) = metadata.layer(diff_id)?
            // A record without its tree, after damage: the layer has to come again.
            && self.path(diff_id).exists()
        {
            *shared.leases.entry(diff_id.clone()).or_default() += 1;
            let layer = Hold { digests: vec![diff_id.clone()], store: Arc::clone(self) };
            let lease = Lease { record, _layer: layer, _image: image.cloned() };
            return Ok(Some(LayerHandle::Committed(Arc::new(lease))));
        }
        Ok(shared.ready.get(diff_id).and_then(Weak::upgrade).map(LayerHandle::Ready))
    }

    /// Keeps the config and the manifest of an image; `None` while it is being removed.
    pub fn hold(self: &Arc<Self>, image: &ImageRecord) -> Option<Arc<Hold>> {
        let digests: Vec<Digest> = std::iter::once(&image.id).chain(&image.manifest).cloned().collect();
        let mut shared = self.lock();
        if shared.dying.contains(&image.id) {
            return None;
        }
        for digest in &digests {
            *shared.leases.entry(digest.clone()).or_default() += 1;
        }
        drop(shared);
        Some(Arc::new(Hold { digests, store: Arc::clone(self) }))
    }

    /// Whether an image or a layer is being removed by a collection.
    pub fn is_dying(&self, digest: &Digest) -> bool {
        self.lock().dying.contains(digest)
    }

    /// What to call when something that a lease kept from being collected is free. Only the first call counts.
    pub fn on_release(&self, call: impl Fn() + Send + Sync + 'static) {
        let _ = self.released.set(Box::new(call));
    }

    /// A fresh directory to unpack into.
    pub fn stage(&self) -> Result<StagedTree, PathError> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.staging.join(format!("{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&path).at("create", &path)?;
        let staged = StagedTree { path, trash: self.trash.clone() };
        let tree = staged.tree();
        std::fs::create_dir(&tree).at("create", &tree)?;
        failpoint::pass("layer.staged");
        // What an image without an entry for its root gets, whatever our umask is.
        std::fs::set_permissions(&tree, std::fs::Permissions::from_mode(0o755))
            .at("set the mode of", &tree)?;
        Ok(staged)
    }

    /// Makes an unpacked tree known to other operations.
    pub fn ready(&self, record: LayerRecord, blob: Option<StagedBlob>, tree: StagedTree) -> LayerHandle {
        let ready = Arc::new(ReadyLayer { record, blob, tree });
        let mut shared = self.lock();
        shared.ready.retain(|_, r| r.strong_count() > 0);
        // An import may make what another operation has ready already: then all share the first.
        if let Some(first) = shared.ready.get(&ready.record.diff_id).and_then(Weak::upgrade) {
            drop(shared);
            return LayerHandle::Ready(first);
        }
        shared.ready.insert(ready.record.diff_id.clone(), Arc::downgrade(&ready));
        LayerHandle::Ready(ready)
    }

    /// Gives a ready layer its name. The caller makes it durable.
    pub fn publish(&self, ready: &ReadyLayer) -> Result<(), PathError> {
        let to = self.directory(&ready.record.diff_id);
        if to.exists() {
            return Ok(());
        }
        std::fs::rename(&ready.tree.path, &to).at("rename", &ready.tree.path)
    }

    /// Takes a name back that no record names. Whoever still holds the layer may publish it again.
    pub fn unpublish(&self, ready: &ReadyLayer) -> Result<(), PathError> {
        let from = self.directory(&ready.record.diff_id);
        match std::fs::rename(&from, &ready.tree.path) {
            Ok(()) => Ok(()),
            // This one was never moved: the tree in its place was another's.
            Err(_) => self.trash.discard(&from),
        }
    }

    /// Lets a collection choose what goes, knowing what is leased; what it chooses is dying until the answer is dropped.
    pub fn choose<T>(&self, choose: impl FnOnce(&BTreeSet<Digest>) -> Chosen<T>) -> (T, Dying<'_>) {
        let mut shared = self.lock();
        let mut held: BTreeSet<Digest> = shared.leases.keys().cloned().collect();
        held.extend(shared.ready.iter().filter(|(_, r)| r.strong_count() > 0).map(|(d, _)| d.clone()));
        let chosen = choose(&held);
        shared.dying.extend(chosen.dying);
        shared.deferred |= chosen.deferred;
        drop(shared);
        (chosen.answer, Dying { layers: self })
    }

    /// Removes a layer's tree.
    pub fn delete(&self, diff_id: &Digest) -> Result<(), PathError> {
        self.trash.discard(&self.directory(diff_id))
    }

    /// Writes everything below the state directory to the disk (syncfs(2)). The descriptor is as old as the store: the kernel
    /// reports a failed write-back once to each descriptor that was open then, so that none is missed.
    pub fn sync(&self) -> Result<(), PathError> {
        rustix::fs::syncfs(self.root.as_fd()).at("sync", &self.layers)
    }
}

/// What a collection chose.
pub struct Chosen<T> {
    /// For the caller.
    pub answer: T,
    /// Layers and images that go.
    pub dying: Vec<Digest>,
    /// Something stays only because it is leased.
    pub deferred: bool,
}

/// A collection under way; there is one at a time.
pub struct Dying<'a> {
    layers: &'a LayerStore,
}

impl Drop for Dying<'_> {
    fn drop(&mut self) {
        self.layers.lock().dying.clear();
    }
}
