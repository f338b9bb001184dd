//! What is known about images, tags, layers and blobs: one redb database, owned by the store.
//!
//! A record names only data that is already durable: the writer syncs the file system first (see `store::commit`).
//! Values are JSON, so that a later version may add fields.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use redb::{ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::failure::PathError;
use crate::oci::{HistoryEntry, Platform, RunConfig};

mod database;
mod known;
mod summary;

use database::Reopening;
pub use known::KnownBlob;
pub use summary::SummaryRow;
use summary::{SUMMARIES, TAGGED};

const IMAGES: TableDefinition<&str, &[u8]> = TableDefinition::new("images");
const TAGS: TableDefinition<&str, &str> = TableDefinition::new("tags");
const LAYERS: TableDefinition<&str, &[u8]> = TableDefinition::new("layers");
const BLOBS: TableDefinition<&str, u64> = TableDefinition::new("blobs");

/// An image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The config's digest.
    pub id: Digest,
    /// The manifest's, when it came with one.
    #[serde(default)]
    pub manifest: Option<Digest>,
    /// Bottom first.
    pub diff_ids: Vec<Digest>,
    /// "docker.io/library/alpine@sha256:...": under which repositories the manifest is known.
    #[serde(default)]
    pub repo_digests: Vec<String>,
    /// When it was made.
    pub created_unix_ns: i64,
    /// For what.
    pub platform: Platform,
    /// How it runs.
    pub config: RunConfig,
    /// How it came to be, oldest first.
    #[serde(default)]
    pub history: Vec<HistoryEntry>,
}

/// An unpacked layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Of the uncompressed tar.
    pub diff_id: Digest,
    /// The tar as it came. With a recipe it is the plain one, whose digest is the diff id, and no blob has it.
    pub blob: Digest,
    /// The tar is made again from the tree instead of being kept.
    #[serde(default)]
    pub recipe: bool,
    /// Bytes of the tar as it came; 0 when an earlier version did not write it down.
    #[serde(default)]
    pub archive_size: u64,
    /// Bytes of its files.
    pub size: u64,
    /// Entries of its tar.
    pub entries: u64,
    /// Hides everything below.
    #[serde(default)]
    pub opaque_root: bool,
}

/// The database failed.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// It was there, since there are layers or blobs, and is not any more.
    #[error("{} is missing, but there are layers or blobs beside it; nothing was changed", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It is not readable as a database.
    #[error("the image database {} is damaged; nothing was changed", path.display())]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// Its checksums do not match.
    #[error("the image database {} is damaged: its checksums do not match; nothing was changed", path.display())]
    Checksum {
        /// Where it is.
        path: PathBuf,
    },
    /// Its file cannot be read or written.
    #[error("cannot {operation} the image database")]
    Io {
        /// "open", "read", "write".
        operation: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A system call failed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// redb.
    #[error("cannot {operation} the image database")]
    Database {
        /// "open", "read", "write".
        operation: &'static str,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// A record is not what this version writes.
    #[error("the record of {key} is damaged")]
    Record {
        /// Which.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

fn failed<E: Into<redb::Error>>(operation: &'static str) -> impl Fn(E) -> MetadataError {
    // A full or read-only disk is looked for in the chain of causes, in which redb's error would hide it.
    move |e| match e.into() {
        redb::Error::Io(source) => MetadataError::Io { operation, source },
        error => MetadataError::Database { operation, source: Box::new(error) },
    }
}

/// Everything that one commit adds.
#[derive(Debug, Default)]
pub struct Addition {
    /// The images.
    pub images: Vec<ImageRecord>,
    /// Their layers that are new.
    pub layers: Vec<LayerRecord>,
    /// Their blobs and sizes.
    pub blobs: Vec<(Digest, u64)>,
    /// Canonical reference to image.
    pub tags: Vec<(String, Digest)>,
}

/// All records at one moment.
#[derive(Debug, Default, Clone)]
pub struct Contents {
    /// By id.
    pub images: BTreeMap<Digest, ImageRecord>,
    /// By canonical reference.
    pub tags: BTreeMap<String, Digest>,
    /// By diff id.
    pub layers: BTreeMap<Digest, LayerRecord>,
    /// Sizes by digest.
    pub blobs: BTreeMap<Digest, u64>,
}

impl MetadataError {
    /// What a person can do; may be empty.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::Damaged { .. } | Self::Checksum { .. } | Self::Record { .. } => {
                "restore metadata.redb from a backup, or move the whole directory away to begin anew"
            }
            Self::Database { .. } | Self::Io { .. } | Self::Path(_) => "",
        }
    }
}

/// The database.
pub struct Metadata {
    db: Reopening,
}

impl Metadata {
    /// Opens it. `fresh`: it may be made, because nothing is stored that it should know.
    pub fn open(path: &Path, fresh: bool) -> Result<Self, MetadataError> {
        let empty = path.metadata().map_or(true, |m| m.len() == 0);
        if empty && !fresh {
            return Err(MetadataError::Missing { path: path.to_path_buf() });
        }
        if empty {
            database::make(path, |txn| {
                txn.open_table(IMAGES)?;
                txn.open_table(TAGS)?;
                txn.open_table(LAYERS)?;
                txn.open_table(BLOBS)?;
                txn.open_table(SUMMARIES)?;
                txn.open_table(TAGGED)?;
                Ok(())
            })?;
        }
        let me = Self { db: Reopening::open(path)? };
        me.db.reserve()?;
        me.complete_summaries()?;
        Ok(me)
    }

    fn write<T>(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, MetadataError> {
        let written = self.db.begin_write().map_err(failed("write")).and_then(|txn| {
            let out = change(&txn).map_err(failed("write"))?;
            txn.commit().map_err(failed("write"))?;
            Ok(out)
        });
        match &written {
            // So that the next change has its space even on a disk that is full by then.
            Ok(_) => drop(self.db.reserve()),
            Err(_) => self.db.reopen(),
        }
        written
    }

    /// Adds images with all that they need. Durable when it returns.
    pub fn add(&self, addition: &Addition) -> Result<(), MetadataError> {
        let encode = |key: &Digest, value: Result<Vec<u8>, serde_json::Error>| {
            value.map_err(|source| MetadataError::Record { key: key.to_string(), source })
        };
        // A full disk is met here, where it does no harm. Removals do without: they must work on a full disk.
        self.db.reserve()?;
        let mut images = Vec::new();
        let mut sizes = addition.layers.iter().map(|l| (l.diff_id.clone(), l.size)).collect();
        for image in &addition.images {
            let merged = self.merged(image)?;
            let json = encode(&image.id, serde_json::to_vec(&merged))?;
            let size = self.size_of(&merged, &mut sizes)?;
            images.push((merged, json, size));
        }
        let mut layers = Vec::new();
        for layer in &addition.layers {
            layers.push((layer.diff_id.as_str(), encode(&layer.diff_id, serde_json::to_vec(layer))?));
        }
        self.write(|txn| {
            let mut table = txn.open_table(BLOBS)?;
            for (digest, size) in &addition.blobs {
                table.insert(digest.as_str(), size)?;
            }
            let mut table = txn.open_table(LAYERS)?;
            for (key, value) in &layers {
                table.insert(*key, value.as_slice())?;
            }
            let mut table = txn.open_table(IMAGES)?;
            let mut summaries = txn.open_table(SUMMARIES)?;
            for (image, json, size) in &images {
                table.insert(image.id.as_str(), json.as_slice())?;
                summary::put(&mut summaries, image, *size)?;
            }
            let mut table = txn.open_table(TAGS)?;
            let mut tagged = txn.open_table(TAGGED)?;
            for (tag, id) in &addition.tags {
                table.insert(tag.as_str(), id.as_str())?;
                tagged.insert(id.as_str(), crate::volume::now_ns())?;
            }
            Ok(())
        })
    }

    /// An image that is there already keeps the manifest and the repositories it is known by.
    fn merged(&self, image: &ImageRecord) -> Result<ImageRecord, MetadataError> {
        let mut merged = image.clone();
        if let Some(old) = self.image(&image.id)? {
            merged.manifest = merged.manifest.or(old.manifest);
            for digest in old.repo_digests {
                if !merged.repo_digests.contains(&digest) {
                    merged.repo_digests.push(digest);
                }
            }
        }
        Ok(merged)
    }

    /// Removes tags, images, layers and blobs in one durable step.
    pub fn remove(
        &self,
        tags: &[String],
        images: &[Digest],
        layers: &[Digest],
        blobs: &[Digest],
    ) -> Result<(), MetadataError> {
        self.db.writable()?;
        self.write(|txn| {
            let mut table = txn.open_table(TAGS)?;
            for tag in tags {
                table.remove(tag.as_str())?;
            }
            let mut table = txn.open_table(IMAGES)?;
            let mut summaries = txn.open_table(SUMMARIES)?;
            let mut tagged = txn.open_table(TAGGED)?;
            for id in images {
                table.remove(id.as_str())?;
                summaries.remove(id.as_str())?;
                tagged.remove(id.as_str())?;
            }
            let mut table = txn.open_table(LAYERS)?;
            for id in layers {
                table.remove(id.as_str())?;
            }
            let mut table = txn.open_table(BLOBS)?;
            for id in blobs {
                table.remove(id.as_str())?;
            }
            Ok(())
        })
    }

    /// The image of this id.
    pub fn image(&self, id: &Digest) -> Result<Option<ImageRecord>, MetadataError> {
        self.record(IMAGES, id)
    }

    /// The layer of this diff id.
    pub fn layer(&self, id: &Digest) -> Result<Option<LayerRecord>, MetadataError> {
        self.record(LAYERS, id)
    }

    fn record<T: for<'de> Deserialize<'de>>(
        &self,
        table: TableDefinition<&str, &[u8]>,
        id: &Digest,
    ) -> Result<Option<T>, MetadataError> {
        let read = failed::<redb::Error>("read");
        let txn = self.db.begin_read().map_err(failed("read"))?;
        let table = txn.open_table(table).map_err(failed("read"))?;
        match table.get(id.as_str()).map_err(|e| read(e.into()))? {
            None => Ok(None),
            Some(value) => decode(id.as_str(), value.value()).map(Some),
        }
    }

    /// The image that a canonical reference names.
    pub fn tag(&self, canonical: &str) -> Result<Option<Digest>, MetadataError> {
        let txn = self.db.begin_read().map_err(failed("read"))?;
        let table = txn.open_table(TAGS).map_err(failed("read"))?;
        let found = table.get(canonical).map_err(failed("read"))?;
        Ok(found.and_then(|v| Digest::parse(v.value()).ok()))
    }

    /// Whether a blob of this digest is stored.
    pub fn blob(&self, digest: &Digest) -> Result<Option<u64>, MetadataError> {
        let txn = self.db.begin_read().map_err(failed("read"))?;
        let table = txn.open_table(BLOBS).map_err(failed("read"))?;
        Ok(table.get(digest.as_str()).map_err(failed("read"))?.map(|v| v.value()))
    }

    /// Everything, from one consistent moment.
    pub fn contents(&self) -> Result<Contents, MetadataError> {
        let txn = self.db.begin_read().map_err(failed("read"))?;
        let mut out = Contents::default();
        let table = txn.open_table(IMAGES).map_err(failed("read"))?;
        for row in table.iter().map_err(failed("read"))? {
            let (key, value) = row.map_err(failed("read"))?;
            let image: ImageRecord = decode(key.value(), value.value())?;
            out.images.insert(image.id.clone(), image);
        }
        let table = txn.open_table(LAYERS).map_err(failed("read"))?;
        for row in table.iter().map_err(failed("read"))? {
            let (key, value) = row.map_err(failed("read"))?;
            let layer: LayerRecord = decode(key.value(), value.value())?;
            out.layers.insert(layer.diff_id.clone(), layer);
        }
        let table = txn.open_table(TAGS).map_err(failed("read"))?;
        for row in table.iter().map_err(failed("read"))? {
            let (key, value) = row.map_err(failed("read"))?;
            if let Ok(id) = Digest::parse(value.value()) {
                out.tags.insert(key.value().to_owned(), id);
            }
        }
        let table = txn.open_table(BLOBS).map_err(failed("read"))?;
        for row in table.iter().map_err(failed("read"))? {
            let (key, value) = row.map_err(failed("read"))?;
            if let Ok(digest) = Digest::parse(key.value()) {
                out.blobs.insert(digest, value.value());
            }
        }
        Ok(out)
    }
}

fn decode<T: for<'de> Deserialize<'de>>(key: &str, value: &[u8]) -> Result<T, MetadataError> {
    serde_json::from_slice(value).map_err(|source| MetadataError::Record { key: key.to_owned(), source })
}
