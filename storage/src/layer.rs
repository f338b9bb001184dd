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
//! holds it; a committed one that is leased is never collected.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use crate::content::StagedBlob;
use crate::digest::Digest;
use crate::failure::{At, PathError};
use crate::metadata::{LayerRecord, Metadata, MetadataError};
use crate::trash::Trash;

const TREE: &str = "fs";
const LEDGER: &str = "ledger";
const RECIPE: &str = "recipe";

/// Layers on disk and those on their way there.
pub struct LayerStore {
    layers: PathBuf,
    staging: PathBuf,
    trash: Trash,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    ready: HashMap<Digest, Weak<ReadyLayer>>,
    gates: HashMap<Digest, Weak<tokio::sync::Mutex<()>>>,
    leases: HashMap<Digest, usize>,
}

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
    store: Arc<LayerStore>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut shared = self.store.lock();
        if let Some(count) = shared.leases.get_mut(&self.record.diff_id) {
            *count -= 1;
            if *count == 0 {
                shared.leases.remove(&self.record.diff_id);
            }
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
            trash,
            shared: Mutex::default(),
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

    /// Throws away layers that no record names.
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
        let mut shared = self.lock();
        if let Some(ready) = shared.ready.get(diff_id).and_then(Weak::upgrade) {
            return Ok(Some(LayerHandle::Ready(ready)));
        }
        let Some(record) = metadata.layer(diff_id)? else { return Ok(None) };
        *shared.leases.entry(diff_id.clone()).or_default() += 1;
        Ok(Some(LayerHandle::Committed(Arc::new(Lease { record, store: Arc::clone(self) }))))
    }

    /// A fresh directory to unpack into.
    pub fn stage(&self) -> Result<StagedTree, PathError> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.staging.join(format!("{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&path).at("create", &path)?;
        let staged = StagedTree { path, trash: self.trash.clone() };
        let tree = staged.tree();
        std::fs::create_dir(&tree).at("create", &tree)?;
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

    /// Which layers may not be collected now. Hold the answer's lock while removing others from the database.
    pub fn held(&self) -> Held<'_> {
        let shared = self.lock();
        let mut ids: BTreeSet<Digest> = shared.leases.keys().cloned().collect();
        ids.extend(shared.ready.iter().filter(|(_, r)| r.strong_count() > 0).map(|(d, _)| d.clone()));
        Held { ids, _lock: shared }
    }

    /// Removes a layer's tree.
    pub fn delete(&self, diff_id: &Digest) -> Result<(), PathError> {
        self.trash.discard(&self.directory(diff_id))
    }

    /// Writes everything below the state directory to the disk (syncfs(2)).
    pub fn sync(&self) -> Result<(), PathError> {
        let dir = std::fs::File::open(&self.layers).at("open", &self.layers)?;
        rustix::fs::syncfs(dir.as_fd()).at("sync", &self.layers)
    }
}

/// The layers in use by running operations; nobody can take another one while this exists.
pub struct Held<'a> {
    /// Their diff ids.
    pub ids: BTreeSet<Digest>,
    _lock: MutexGuard<'a, Shared>,
}
