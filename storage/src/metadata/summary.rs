//! What lists show of images, as typed rows beside the records: ten thousand of them are read in milliseconds, where the records,
//! which are JSON with whole configs, take tenths of seconds.
//!
//! A row is written in the transaction that writes its record. A database of an earlier version has none: they are made when
//! it is opened.

use std::collections::BTreeMap;

use redb::{ReadableTable, ReadableTableMetadata, TableDefinition};

use super::{IMAGES, ImageRecord, LAYERS, LayerRecord, Metadata, MetadataError, TAGS, decode, failed};
use crate::digest::Digest;
use crate::oci::Platform;

/// Created, size, (os, architecture, variant), repository digests, labels.
type Row = (
    i64,
    u64,
    (&'static str, &'static str, &'static str),
    Vec<&'static str>,
    Vec<(&'static str, &'static str)>,
);

pub(super) const SUMMARIES: TableDefinition<&str, Row> = TableDefinition::new("image summaries");
/// When an image was last given a name.
pub(super) const TAGGED: TableDefinition<&str, i64> = TableDefinition::new("tagged");

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SummaryRow {
    /// The config's digest.
    pub id: Digest,
    /// When it was made.
    pub created_unix_ns: i64,
    /// Bytes of all layers.
    pub size: u64,
    /// For what.
    pub platform: Platform,
    /// Canonical, with a digest.
    pub repo_digests: Vec<String>,
    /// Of its config.
    pub labels: BTreeMap<String, String>,
}

/// Writes the row of a record.
pub(super) fn put(
    table: &mut redb::Table<'_, &'static str, Row>,
    image: &ImageRecord,
    size: u64,
) -> Result<(), redb::Error> {
    let p = &image.platform;
    let digests = image.repo_digests.iter().map(String::as_str).collect::<Vec<_>>();
    let labels = image.config.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>();
    let platform = (p.os.as_str(), p.architecture.as_str(), p.variant.as_str());
    table.insert(image.id.as_str(), (image.created_unix_ns, size, platform, digests, labels))?;
    Ok(())
}

impl Metadata {
    /// Makes the rows that are missing, and removes those without a record.
    pub(super) fn complete_summaries(&self) -> Result<(), MetadataError> {
        self.make_tables()?;
        let txn = self.db.begin_read().map_err(failed("read"))?;
        let records = txn.open_table(IMAGES).map_err(failed("read"))?.len().map_err(failed("read"))?;
        let rows = txn.open_table(SUMMARIES).map_err(failed("read"))?.len().map_err(failed("read"))?;
        drop(txn);
        if records == rows {
            return Ok(());
        }
        let contents = self.contents()?;
        tracing::info!(images = contents.images.len(), "making the table that lists are read from");
        let size = |image: &ImageRecord| -> u64 {
            image.diff_ids.iter().filter_map(|d| contents.layers.get(d)).map(|l| l.size).sum()
        };
        self.write(|txn| {
            txn.delete_table(SUMMARIES)?;
            let mut table = txn.open_table(SUMMARIES)?;
            contents.images.values().try_for_each(|image| put(&mut table, image, size(image)))
        })
    }

    /// A database of an earlier version lacks the tables. One that has them is not written to.
    fn make_tables(&self) -> Result<(), MetadataError> {
        let txn = self.db.begin_read().map_err(failed("read"))?;
        if txn.open_table(SUMMARIES).is_ok() && txn.open_table(TAGGED).is_ok() {
            return Ok(());
        }
        drop(txn);
        self.write(|txn| {
            txn.open_table(SUMMARIES)?;
            txn.open_table(TAGGED)?;
            Ok(())
        })
    }

    /// Every image in short, by id; `bare`: without platform and labels.
    pub fn summaries(&self, bare: bool) -> Result<Vec<SummaryRow>, MetadataError> {
        let txn = self.db.begin_read().map_err(failed("read"))?;
        let table = txn.open_table(SUMMARIES).map_err(failed("read"))?;
        let mut out = Vec::with_capacity(usize::try_from(table.len().map_err(failed("read"))?).unwrap_or(0));
        for row in table.iter().map_err(failed("read"))? {
            let (id, row) = row.map_err(failed("read"))?;
            let Ok(id) = Digest::parse(id.value()) else { continue };
            let (created_unix_ns, size, (os, architecture, variant), digests, labels) = row.value();
            if bare {
                let (platform, labels) = (Platform::default(), BTreeMap::new());
                let repo_digests = digests.into_iter().map(str::to_owned).collect();
                out.push(SummaryRow { id, created_unix_ns, size, platform, repo_digests, labels });
                continue;
            }
            out.push(SummaryRow {
                id,
                created_unix_ns,
                size,
                platform: Platform {
                    os: os.to_owned(),
                    architecture: architecture.to_owned(),
                    variant: variant.to_owned(),
                },
                repo_digests: digests.into_iter().map(str::to_owned).collect(),
                labels: labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            });
        }
        Ok(out)
    }

    /// How many images there are.
    pub fn image_count(&self) -> Result<u64, MetadataError> {
        let txn = self.db.begin_read().map_err(failed("read"))?;
        txn.open_table(SUMMARIES).map_err(failed("read"))?.len().map_err(failed("read"))
    }

    /// Canonical references and what they name, in order.
    pub fn tags(&self) -> Result<Vec<(String, Digest)>, MetadataError> {
        let txn = self.db.begin_read().map_err(failed("read"))?;
        let table = txn.open_table(TAGS).map_err(failed("read"))?;
        let mut out = Vec::new();
        for row in table.iter().map_err(failed("read"))? {
            let (tag, id) = row.map_err(failed("read"))?;
            if let Ok(id) = Digest::parse(id.value()) {
                out.push((tag.value().to_owned(), id));
            }
        }
        Ok(out)
    }

    /// The canonical references of one image.
    pub fn tags_of(&self, image: &Digest) -> Result<Vec<String>, MetadataError> {
        let txn = self.db.begin_read().map_err(failed("read"))?;
        let table = txn.open_table(TAGS).map_err(failed("read"))?;
        let mut out = Vec::new();
        for row in table.iter().map_err(failed("read"))? {
            let (tag, id) = row.map_err(failed("read"))?;
            if id.value() == image.as_str() {
                out.push(tag.value().to_owned());
            }
        }
        Ok(out)
    }

    /// When an image was last given a name; 0 when that is not known.
    pub fn tagged_unix_ns(&self, image: &Digest) -> Result<i64, MetadataError> {
        let txn = self.db.begin_read().map_err(failed("read"))?;
        let table = txn.open_table(TAGGED).map_err(failed("read"))?;
        Ok(table.get(image.as_str()).map_err(failed("read"))?.map_or(0, |v| v.value()))
    }

    /// The first ids that begin with `prefix` (hexadecimal digits), at most two: enough to tell whether it is ambiguous.
    pub fn ids_from(&self, prefix: &str) -> Result<Vec<Digest>, MetadataError> {
        let txn = self.db.begin_read().map_err(failed("read"))?;
        let table = txn.open_table(SUMMARIES).map_err(failed("read"))?;
        let start = format!("sha256:{prefix}");
        let mut out = Vec::new();
        for row in table.range(start.as_str()..).map_err(failed("read"))?.take(2) {
            let (id, _) = row.map_err(failed("read"))?;
            if id.value().starts_with(&start) {
                out.extend(Digest::parse(id.value()));
            }
        }
        Ok(out)
    }

    /// The image that is known by this canonical repository digest.
    pub fn by_repo_digest(&self, canonical: &str) -> Result<Option<Digest>, MetadataError> {
        let txn = self.db.begin_read().map_err(failed("read"))?;
        let table = txn.open_table(SUMMARIES).map_err(failed("read"))?;
        for row in table.iter().map_err(failed("read"))? {
            let (id, row) = row.map_err(failed("read"))?;
            if row.value().3.contains(&canonical) {
                return Ok(Digest::parse(id.value()).ok());
            }
        }
        Ok(None)
    }

    /// Every layer, decoded once: what sharing is computed from.
    pub fn layer_sizes(&self) -> Result<BTreeMap<Digest, u64>, MetadataError> {
        let txn = self.db.begin_read().map_err(failed("read"))?;
        let table = txn.open_table(LAYERS).map_err(failed("read"))?;
        let mut out = BTreeMap::new();
        for row in table.iter().map_err(failed("read"))? {
            let (key, value) = row.map_err(failed("read"))?;
            let layer: LayerRecord = decode(key.value(), value.value())?;
            out.insert(layer.diff_id, layer.size);
        }
        Ok(out)
    }

    /// Takes names from an image that stays; `image` is its record as it is to be.
    pub fn untag(&self, tags: &[String], image: &ImageRecord) -> Result<(), MetadataError> {
        self.db.writable()?;
        let size = self.size_of(image, &mut BTreeMap::new())?;
        let json = serde_json::to_vec(image)
            .map_err(|source| MetadataError::Record { key: image.id.to_string(), source })?;
        self.write(|txn| {
            let mut table = txn.open_table(TAGS)?;
            for tag in tags {
                table.remove(tag.as_str())?;
            }
            txn.open_table(IMAGES)?.insert(image.id.as_str(), json.as_slice())?;
            put(&mut txn.open_table(SUMMARIES)?, image, size)
        })
    }

    /// Bytes of an image's layers; those in `known` are not looked up.
    pub(super) fn size_of(
        &self,
        image: &ImageRecord,
        known: &mut BTreeMap<Digest, u64>,
    ) -> Result<u64, MetadataError> {
        let mut total = 0;
        for diff_id in &image.diff_ids {
            total += if let Some(size) = known.get(diff_id) {
                *size
            } else {
                let size = self.layer(diff_id)?.map_or(0, |l| l.size);
                known.insert(diff_id.clone(), size);
                size
            };
        }
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Addition;

    fn image(n: u8, layers: &[&Digest]) -> ImageRecord {
        let config = serde_json::from_str(r#"{"Labels": {"a": "b"}}"#).unwrap();
        ImageRecord {
            id: Digest::of(&[n]),
            manifest: None,
            diff_ids: layers.iter().map(|d| (*d).clone()).collect(),
            repo_digests: vec![format!("docker.io/library/i@{}", Digest::of(b"m"))],
            created_unix_ns: i64::from(n),
            platform: Platform::host(),
            config,
            history: Vec::new(),
        }
    }

    fn layer(name: &[u8], size: u64) -> LayerRecord {
        let json =
            format!(r#"{{"diff_id": "{0}", "blob": "{0}", "size": {size}, "entries": 1}}"#, Digest::of(name));
        serde_json::from_str(&json).unwrap()
    }

    fn filled(dir: &std::path::Path) -> Metadata {
        let db = Metadata::open(&dir.join("db"), true).unwrap();
        let (one, two) = (layer(b"1", 10), layer(b"2", 5));
        let addition = Addition {
            images: vec![image(1, &[&one.diff_id]), image(2, &[&one.diff_id, &two.diff_id])],
            tags: vec![("docker.io/library/i:1".into(), Digest::of(&[1]))],
            layers: vec![one, two],
            ..Addition::default()
        };
        db.add(&addition).unwrap();
        db
    }

    #[test]
    fn rows_follow_their_records() {
        let tmp = tempfile::tempdir().unwrap();
        let db = filled(tmp.path());
        let mut sizes: Vec<u64> = db.summaries(false).unwrap().iter().map(|r| r.size).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [10, 15]);
        let row = db.summaries(false).unwrap().into_iter().find(|r| r.id == Digest::of(&[1])).unwrap();
        assert_eq!((row.labels["a"].as_str(), row.created_unix_ns), ("b", 1));
        assert!(
            db.tagged_unix_ns(&row.id).unwrap() > 0 && db.tagged_unix_ns(&Digest::of(&[2])).unwrap() == 0
        );
        let record = ImageRecord { repo_digests: Vec::new(), ..image(1, &[&Digest::of(b"1")]) };
        db.untag(&["docker.io/library/i:1".into()], &record).unwrap();
        assert!(db.tags().unwrap().is_empty());
        assert_eq!(db.by_repo_digest(&row.repo_digests[0]).unwrap(), Some(Digest::of(&[2])));
        db.remove(&[], &[Digest::of(&[1])], &[], &[]).unwrap();
        assert_eq!((db.summaries(false).unwrap().len(), db.image_count().unwrap()), (1, 1));
    }

    #[test]
    fn an_older_database_gets_its_rows() {
        let tmp = tempfile::tempdir().unwrap();
        let db = filled(tmp.path());
        let whole = db.summaries(false).unwrap();
        db.write(|txn| Ok(txn.delete_table(SUMMARIES)?)).unwrap();
        drop(db);
        let db = Metadata::open(&tmp.path().join("db"), true).unwrap();
        assert_eq!(db.summaries(false).unwrap(), whole);
    }

    #[test]
    fn a_prefix_is_found_without_reading_all() {
        let tmp = tempfile::tempdir().unwrap();
        let db = filled(tmp.path());
        let id = Digest::of(&[1]);
        assert_eq!(db.ids_from(&id.hex()[..12]).unwrap(), [id]);
        assert_eq!(db.ids_from("").unwrap().len(), 2);
        assert!(db.ids_from("zz").unwrap().is_empty());
    }
}
