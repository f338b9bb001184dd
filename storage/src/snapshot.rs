//! Writable trees over images.
//!
//! A snapshot is `snapshots/<key>/` with `fs` (what the container writes), `work` (overlayfs's) and `record.json`. It is
//! made under a temporary name and renamed, so that it is there whole or not at all. Nothing is fsynced: a snapshot is
//! made on the start path of every container, and what a power cut tears is the container's anyway; a torn record is
//! swept at start. Removing renames to the trash first, so that the key is free at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use davit_contracts::Kind;
use davit_cowfs::Namespace;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::failpoint;
use crate::failure::{At, PathError};
use crate::settings::Settings;
use crate::trash::Trash;

pub mod driver;
pub mod mounted;

use driver::{Driver, Drivers, ProxyError, Stack};

/// Why a snapshot cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A system call failed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// No driver works here.
    #[error("no snapshot driver works here: {0}")]
    NoDriver(String),
    /// A key that could name something else.
    #[error("'{0}' is not a snapshot key: [A-Za-z0-9_.-], 1 to 128 bytes")]
    BadKey(String),
    /// Nothing has this key.
    #[error("no snapshot '{0}'")]
    Unknown(String),
    /// The key is taken by a snapshot of another image.
    #[error("snapshot '{key}' exists already, based on image {image}")]
    OtherImage {
        /// The key.
        key: String,
        /// Short.
        image: String,
    },
    /// A layer of its image has gone.
    #[error("snapshot '{0}' is based on an image that is not there any more")]
    NoImage(String),
    /// A snapshotter elsewhere.
    #[error(transparent)]
    Proxy(Box<ProxyError>),
    /// The key is taken by a snapshot that is no copy of the one that was named.
    #[error("snapshot '{key}' exists already, and is no clone of '{source_key}'")]
    OtherSource {
        /// The key.
        key: String,
        /// The one named.
        source_key: String,
    },
    /// Copying another snapshot failed.
    #[error("cannot copy the container's files")]
    Fork(#[source] std::io::Error),
    /// The caller has gone.
    #[error("the copy was given up: nobody waits for it")]
    GivenUp,
    /// Copying layers failed.
    #[error("cannot copy the image's files")]
    Copy(#[source] std::io::Error),
}

impl From<ProxyError> for SnapshotError {
    fn from(e: ProxyError) -> Self {
        Self::Proxy(Box::new(e))
    }
}

impl SnapshotError {
    /// For the contract.
    pub fn kind(&self) -> Kind {
        match self {
            Self::BadKey(_) => Kind::InvalidArgument,
            Self::Unknown(_) => Kind::NotFound,
            Self::OtherImage { .. } | Self::OtherSource { .. } => Kind::AlreadyExists,
            Self::GivenUp => Kind::Cancelled,
            Self::NoImage(_) => Kind::Corrupt,
            Self::NoDriver(_) => Kind::Unsupported,
            Self::Proxy(e) => e.kind(),
            Self::Path(_) | Self::Copy(_) | Self::Fork(_) => Kind::Internal,
        }
    }
}

/// What is kept about a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// Its name.
    pub key: String,
    /// What it is based on.
    pub image_id: Digest,
    /// What was asked for, in familiar form.
    #[serde(default)]
    pub reference: String,
    /// Free-form.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When.
    pub created_unix_ns: i64,
    /// A view.
    #[serde(default)]
    pub read_only: bool,
    /// The driver that made it; "" in records of the first versions.
    #[serde(default)]
    pub driver: String,
    /// The snapshot that it began as a copy of.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub forked_from: String,
}

/// All snapshots.
pub struct Snapshots {
    dir: PathBuf,
    drivers: Drivers,
    trash: Trash,
    table: Mutex<HashMap<String, SnapshotRecord>>,
}

impl Snapshots {
    /// Chooses a driver and reads the records; torn ones are swept.
    pub fn open(
        state: &Path,
        trash: Trash,
        settings: &Settings,
        namespace: Namespace,
    ) -> Result<Self, SnapshotError> {
        let dir = state.join("snapshots");
        std::fs::create_dir_all(&dir).at("create", &dir)?;
        let drivers = Drivers::open(state, settings, namespace)?;
        let mut table = HashMap::new();
        for entry in std::fs::read_dir(&dir).at("read", &dir)?.flatten() {
            let record = std::fs::read(entry.path().join("record.json"))
                .ok()
                .and_then(|bytes| serde_json::from_slice::<SnapshotRecord>(&bytes).ok())
                .filter(|r| *r.key == *entry.file_name());
            if let Some(mut record) = record {
                if record.driver.is_empty() {
                    first_driver(&entry.path()).clone_into(&mut record.driver);
                }
                table.insert(record.key.clone(), record);
            } else {
                let name = entry.file_name();
                if !name.to_string_lossy().starts_with(".new-") {
                    tracing::warn!(snapshot.key = %name.to_string_lossy(), "removed a snapshot without a whole record");
                }
                trash.discard(&entry.path())?;
            }
        }
        Ok(Self { dir, drivers, trash, table: Mutex::new(table) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, SnapshotRecord>> {
        self.table.lock().expect("no one panics with the snapshot table locked")
    }

    /// The driver of new snapshots and why it was chosen.
    pub fn driver(&self) -> &Arc<dyn Driver> {
        self.drivers.current()
    }

    /// The driver that mounts a snapshot: the one that made it, or its like.
    pub fn driver_of(&self, record: &SnapshotRecord) -> Result<Arc<dyn Driver>, SnapshotError> {
        self.drivers.named(&record.driver)
    }

    /// Tells the driver which chains images still need and which snapshots there are.
    pub fn retain(&self, chains: &BTreeSet<String>) -> Result<(), SnapshotError> {
        let dirs: Vec<_> = self.list().iter().map(|r| self.path(&r.key)).collect();
        self.driver().retain(chains, &dirs)
    }

    /// The record of a key.
    pub fn get(&self, key: &str) -> Option<SnapshotRecord> {
        self.lock().get(key).cloned()
    }

    /// All records, by key.
    pub fn list(&self) -> Vec<SnapshotRecord> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }

    /// Keys of the snapshots of an image.
    pub fn of_image(&self, id: &Digest) -> Vec<String> {
        let mut keys: Vec<_> =
            self.lock().values().filter(|r| r.image_id == *id).map(|r| r.key.clone()).collect();
        keys.sort();
        keys
    }

    /// How many snapshots each image has.
    pub fn counts(&self) -> HashMap<Digest, u32> {
        let mut counts = HashMap::new();
        for record in self.lock().values() {
            *counts.entry(record.image_id.clone()).or_default() += 1;
        }
        counts
    }

    /// Makes a snapshot unless it is there. The caller keeps the image from being removed meanwhile.
    pub fn prepare(
        &self,
        mut record: SnapshotRecord,
        stack: &Stack,
    ) -> Result<SnapshotRecord, SnapshotError> {
        check_key(&record.key)?;
        self.driver().name().clone_into(&mut record.driver);
        if let Some(there) = self.get(&record.key) {
            return same_image(there, &record);
        }
        let driver = Arc::clone(self.driver());
        let staged = self.staged();
        let made = make(&staged, &record, |dir| driver.create(dir, stack, record.read_only));
        self.publish(&staged, record, made, driver.as_ref(), same_image)
    }

    fn staged(&self) -> PathBuf {
        self.dir.join(format!(".new-{:016x}", rand::random::<u64>()))
    }

    /// Gives what was made its name, or throws it away.
    fn publish(
        &self,
        staged: &Path,
        record: SnapshotRecord,
        made: Result<(), SnapshotError>,
        driver: &dyn Driver,
        same: fn(SnapshotRecord, &SnapshotRecord) -> Result<SnapshotRecord, SnapshotError>,
    ) -> Result<SnapshotRecord, SnapshotError> {
        let mut table = self.lock();
        // Another call with the same key may have been faster.
        let there = table.get(&record.key).cloned();
        // What was removed while it was copied may not have been copied whole.
        let sourceless = !record.forked_from.is_empty() && !table.contains_key(&record.forked_from);
        let made = match made {
            Ok(()) if sourceless && there.is_none() => {
                Err(SnapshotError::Unknown(record.forked_from.clone()))
            }
            made => made,
        };
        let lost = made.is_err() || there.is_some();
        let done = made.and_then(|()| {
            if let Some(there) = there {
                same(there, &record)
            } else {
                std::fs::rename(staged, self.path(&record.key)).at("rename", staged)?;
                failpoint::pass("snapshot.named");
                table.insert(record.key.clone(), record.clone());
                Ok(record)
            }
        });
        drop(table);
        if lost || done.is_err() {
            self.abandon(staged, driver);
        }
        done
    }

    /// Makes a snapshot that begins with what another one of the same image holds, unless it is there. With `durable` it is on disk before
    /// it has its name.
    pub fn fork(
        &self,
        mut record: SnapshotRecord,
        stack: &Stack,
        stop: &AtomicBool,
        durable: bool,
    ) -> Result<SnapshotRecord, SnapshotError> {
        check_key(&record.key)?;
        if let Some(there) = self.get(&record.key) {
            return same_source(there, &record);
        }
        let from = record.forked_from.clone();
        let source = self.get(&from).ok_or_else(|| SnapshotError::Unknown(from.clone()))?;
        let driver = self.driver_of(&source)?;
        driver.name().clone_into(&mut record.driver);
        record.read_only = source.read_only;
        let staged = self.staged();
        let how = driver::Forking { read_only: source.read_only, stop };
        let made = make(&staged, &record, |dir| {
            driver.fork(&self.path(&from), dir, stack, &how)?;
            if durable { sync_all_of(dir) } else { Ok(()) }
        });
        self.publish(&staged, record, made, driver.as_ref(), same_source)
    }

    /// Throws away what did not become a snapshot. What a driver cannot take back now it finds at the next start.
    fn abandon(&self, staged: &Path, driver: &dyn Driver) {
        if let Err(e) = driver.remove(staged) {
            tracing::warn!(error = %e, "what was made for a snapshot is left elsewhere until the next start");
        }
        if let Err(e) = self.trash.discard(staged) {
            tracing::warn!(error = %e, "a snapshot that was not made is left until the next start");
        }
    }

    /// Where a snapshot is.
    pub fn path(&self, key: &str) -> PathBuf {
        self.dir.join(key)
    }

    /// How to mount a snapshot.
    pub fn mounts(
        &self,
        record: &SnapshotRecord,
        stack: &Stack,
    ) -> Result<Vec<driver::Mount>, SnapshotError> {
        self.driver_of(record)?.mounts(&self.path(&record.key), stack, record.read_only)
    }

    /// Removes a snapshot; an unknown key is fine.
    pub fn remove(&self, key: &str) -> Result<(), SnapshotError> {
        check_key(key)?;
        // A driver may have to ask somebody else: not with the table locked.
        if let Some(record) = self.get(key) {
            self.driver_of(&record)?.remove(&self.path(key))?;
        }
        let mut table = self.lock();
        self.trash.discard(&self.path(key))?;
        failpoint::pass("snapshot.removed");
        table.remove(key);
        Ok(())
    }

    /// Bytes and inodes of what the snapshot itself holds.
    pub fn usage(&self, key: &str) -> Result<(u64, u64), SnapshotError> {
        let record = self.get(key).ok_or_else(|| SnapshotError::Unknown(key.to_owned()))?;
        self.driver_of(&record)?.usage(&self.path(key))
    }
}

/// Fills a directory under a temporary name.
fn make(
    staged: &Path,
    record: &SnapshotRecord,
    fill: impl FnOnce(&Path) -> Result<(), SnapshotError>,
) -> Result<(), SnapshotError> {
    std::fs::create_dir(staged).at("create", staged)?;
    failpoint::pass("snapshot.staged");
    fill(staged)?;
    let path = staged.join("record.json");
    let bytes = serde_json::to_vec(record).expect("a record of strings is JSON");
    std::fs::write(&path, bytes).at("write", &path)?;
    failpoint::pass("snapshot.filled");
    Ok(())
}

/// Bytes and inodes below a directory; what vanishes meanwhile does not count.
pub(crate) fn usage_of(top: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let mut usage = (0, 0);
    let mut todo = vec![top.to_path_buf()];
    let mut linked = BTreeSet::new();
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.path().symlink_metadata() else { continue };
            if meta.nlink() > 1 && !meta.is_dir() && !linked.insert(meta.ino()) {
                continue;
            }
            usage.0 += meta.blocks() * 512;
            usage.1 += 1;
            if meta.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    usage
}

/// The driver of a record of the first versions, which had two, told apart by what they leave.
fn first_driver(dir: &Path) -> &'static str {
    if dir.join("fs").exists() && !dir.join("work").exists() { "copy" } else { "overlay" }
}

fn same_image(there: SnapshotRecord, wanted: &SnapshotRecord) -> Result<SnapshotRecord, SnapshotError> {
    if there.image_id == wanted.image_id && there.read_only == wanted.read_only {
        return Ok(there);
    }
    Err(SnapshotError::OtherImage { key: there.key, image: there.image_id.short().to_owned() })
}

fn same_source(there: SnapshotRecord, wanted: &SnapshotRecord) -> Result<SnapshotRecord, SnapshotError> {
    if there.forked_from == wanted.forked_from {
        return Ok(there);
    }
    Err(SnapshotError::OtherSource { key: there.key, source_key: wanted.forked_from.clone() })
}

/// One call for however many files.
fn sync_all_of(dir: &Path) -> Result<(), SnapshotError> {
    let open = std::fs::File::open(dir).at("open", dir)?;
    Ok(rustix::fs::syncfs(open).map_err(std::io::Error::from).at("sync the file system of", dir)?)
}

/// A key becomes a file name.
pub fn check_key(key: &str) -> Result<(), SnapshotError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if (1..=128).contains(&key.len()) && key.bytes().all(allowed) && !key.starts_with('.') {
        Ok(())
    } else {
        Err(SnapshotError::BadKey(key.chars().take(140).collect()))
    }
}
