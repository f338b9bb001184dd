//! Where layers are known to be: which blobs of which repositories unpack to a layer. It saves uploads and is never relied
//! on: a registry is asked before, and losing it costs time only. It is therefore not written to the disk at once.

use std::collections::BTreeMap;

use redb::{Durability, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use super::{LAYERS, Metadata, MetadataError, failed};
use crate::digest::Digest;

const KNOWN: TableDefinition<&str, &[u8]> = TableDefinition::new("known_blobs");
/// Of one layer, the newest.
const MAX: usize = 24;

/// A blob that a repository has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownBlob {
    /// As the registry has it.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// "host:port/repository".
    pub repository: String,
}

impl Metadata {
    /// Remembers for layers, by diff id, where they have been seen. Layers that have gone are forgotten on the way.
    pub fn learn(&self, seen: &[(Digest, KnownBlob)]) -> Result<(), MetadataError> {
        let mut all: BTreeMap<&Digest, Vec<KnownBlob>> = BTreeMap::new();
        for (layer, blob) in seen {
            if !all.contains_key(layer) {
                all.insert(layer, self.known(layer)?);
            }
            let list = all.entry(layer).or_default();
            list.retain(|k| k != blob);
            list.insert(0, blob.clone());
            list.truncate(MAX);
        }
        let mut txn = self.db.begin_write().map_err(failed("write"))?;
        txn.set_durability(Durability::None).map_err(failed("write"))?;
        {
            let layers = txn.open_table(LAYERS).map_err(failed("write"))?;
            let mut table = txn.open_table(KNOWN).map_err(failed("write"))?;
            for (layer, list) in all {
                let value = serde_json::to_vec(&list).expect("a list of strings and numbers is JSON");
                table.insert(layer.as_str(), value.as_slice()).map_err(failed("write"))?;
            }
            let mut gone = Vec::new();
            for row in table.iter().map_err(failed("write"))? {
                let key = row.map_err(failed("write"))?.0.value().to_owned();
                if layers.get(key.as_str()).map_err(failed("write"))?.is_none() {
                    gone.push(key);
                }
            }
            for key in gone {
                table.remove(key.as_str()).map_err(failed("write"))?;
            }
        }
        txn.commit().map_err(failed("write"))
    }

    /// Where a layer has been seen, newest first.
    pub fn known(&self, layer: &Digest) -> Result<Vec<KnownBlob>, MetadataError> {
        let txn = self.db.begin_read().map_err(failed("read"))?;
        let table = match txn.open_table(KNOWN) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(e) => return Err(failed("read")(e)),
        };
        let found = table.get(layer.as_str()).map_err(failed("read"))?;
        // What another version wrote is worth nothing.
        Ok(found.and_then(|v| serde_json::from_slice(v.value()).ok()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Addition, LayerRecord};

    #[test]
    fn what_was_seen_is_known_until_the_layer_goes() {
        let tmp = tempfile::tempdir().unwrap();
        let metadata = Metadata::open(&tmp.path().join("m.redb"), true).unwrap();
        let layer = Digest::of(b"layer");
        let json =
            serde_json::json!({"diff_id": layer, "blob": Digest::of(b"blob"), "size": 1, "entries": 1});
        let record: LayerRecord = serde_json::from_value(json).unwrap();
        metadata.add(&Addition { layers: vec![record], ..Addition::default() }).unwrap();
        assert_eq!(metadata.known(&layer).unwrap(), []);
        let at = |repository: String| KnownBlob { digest: Digest::of(b"blob"), size: 4, repository };
        for i in 0..40 {
            metadata.learn(&[(layer.clone(), at(format!("r/{i}")))]).unwrap();
        }
        metadata.learn(&[(layer.clone(), at("r/38".into()))]).unwrap();
        let known = metadata.known(&layer).unwrap();
        assert_eq!(
            (known.len(), known[0].repository.as_str(), known[1].repository.as_str()),
            (MAX, "r/38", "r/39")
        );
        metadata.remove(&[], &[], std::slice::from_ref(&layer), &[]).unwrap();
        metadata.learn(&[]).unwrap();
        assert_eq!(metadata.known(&layer).unwrap(), []);
    }
}
