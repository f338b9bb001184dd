//! The networks on disk: one redb table, id to JSON. A commit is durable before the network is acknowledged.

use std::path::{Path, PathBuf};

use davit_contracts::id::NetworkId;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::Network;
use crate::failpoint::pass;

const NETWORKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("networks");
/// redb's page cache; a thousand networks are a few hundred kilobytes.
const CACHE: usize = 256 << 10;

/// Why networks could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// redb failed.
    #[error("cannot {operation} the network database {path}")]
    Database {
        /// "open", "read", "write".
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// A record makes no sense.
    #[error("network {id} in the database {path} is damaged")]
    Record {
        /// Its id.
        id: String,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// The database of networks.
#[derive(Debug)]
pub struct Store {
    database: Database,
    path: PathBuf,
}

impl Store {
    /// Opens or makes it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::builder()
            .set_cache_size(CACHE)
            .create(path)
            .map_err(|e| failed("open", path, e.into()))?;
        Ok(Self { database, path: path.to_path_buf() })
    }

    /// All networks.
    pub fn all(&self) -> Result<Vec<Network>, StoreError> {
        let mut networks = Vec::new();
        for (id, bytes) in self.rows().map_err(|e| failed("read", &self.path, e))? {
            let network = serde_json::from_slice(&bytes).map_err(|source| StoreError::Record {
                id,
                path: self.path.clone(),
                source,
            })?;
            networks.push(network);
        }
        Ok(networks)
    }

    fn rows(&self) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
        let read = self.database.begin_read()?;
        let table = match read.open_table(NETWORKS) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            other => other?,
        };
        let mut rows = Vec::new();
        for row in table.iter()? {
            let (key, value) = row?;
            rows.push((key.value().to_owned(), value.value().to_vec()));
        }
        Ok(rows)
    }

    /// Writes networks, all in one durable commit.
    pub fn put(&self, networks: &[&Network]) -> Result<(), StoreError> {
        self.write(|table| {
            for network in networks {
                let bytes = serde_json::to_vec(network).expect("a network has only string keys");
                table.insert(network.id.as_str(), bytes.as_slice())?;
            }
            Ok(())
        })
    }

    /// Removes a network; fine when there is none.
    pub fn remove(&self, id: &NetworkId) -> Result<(), StoreError> {
        self.write(|table| table.remove(id.as_str()).map(drop))
    }

    fn write(
        &self,
        change: impl FnOnce(&mut redb::Table<'_, &str, &[u8]>) -> Result<(), redb::StorageError>,
    ) -> Result<(), StoreError> {
        let attempt = || -> Result<(), redb::Error> {
            let write = self.database.begin_write()?;
            change(&mut write.open_table(NETWORKS)?)?;
            pass("store.committing");
            write.commit()?;
            pass("store.committed");
            Ok(())
        };
        attempt().map_err(|e| failed("write", &self.path, e))
    }
}

fn failed(operation: &'static str, path: &Path, source: redb::Error) -> StoreError {
    StoreError::Database { operation, path: path.to_path_buf(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::example;

    #[test]
    fn networks_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("networks.redb");
        let (a, b) = (example("a", "10.0.0.0/24"), example("b", "10.0.1.0/24"));
        {
            let store = Store::open(&path).unwrap();
            assert_eq!(store.all().unwrap(), []);
            store.put(&[&a, &b]).unwrap();
            store.remove(&b.id).unwrap();
        }
        assert_eq!(Store::open(&path).unwrap().all().unwrap(), [a]);
    }
}
