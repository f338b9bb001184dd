//! The file of the database: made whole or not at all, never left unusable by a full disk.
//!
//! redb refuses everything after a failed write until it is opened again. So space is reserved before a change needs it
//! (the common failure, a full disk, is then an error of the reservation, which changes nothing), and what fails all the same
//! is followed by opening it again. Readers hold no lock while a writer waits for the disk.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{RwLock, RwLockReadGuard};
use std::time::Duration;

use redb::{Database, ReadTransaction, ReadableDatabase, TransactionError, WriteTransaction};
use rustix::fs::FallocateFlags;

use super::MetadataError;
use crate::failpoint;
use crate::failure::{At, PathError};

/// Small: an idle daemon's memory counts more than a read that the page cache serves.
const CACHE: usize = 1 << 20;
/// What a change may need: redb doubles its file, up to this.
const MOST_RESERVED: u64 = 64 << 20;
/// And at least this.
const LEAST_RESERVED: u64 = 1 << 20;
/// How often a reopening waits for readers to go, 10 ms each time.
const PATIENCE: u32 = 100;

/// A database that is opened again after a failure.
pub(super) struct Reopening {
    path: PathBuf,
    file: File,
    db: RwLock<Option<Database>>,
}

/// Makes a database under another name, and gives it its own when it is whole and durable.
pub(super) fn make(
    path: &Path,
    tables: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
) -> Result<(), MetadataError> {
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).at("remove", &new)?,
        _ => {}
    }
    let made = || -> Result<(), redb::Error> {
        let db = Database::builder().set_cache_size(CACHE).create(&new)?;
        let txn = db.begin_write()?;
        tables(&txn)?;
        Ok(txn.commit()?)
    };
    let failed = |source| MetadataError::Database { operation: "make", source: Box::new(source) };
    if let Err(e) = made() {
        let _ = std::fs::remove_file(&new);
        return Err(failed(e));
    }
    failpoint::pass("open.database");
    File::open(&new).and_then(|f| f.sync_all()).at("sync", &new)?;
    std::fs::rename(&new, path).at("rename", &new)?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|d| d.sync_all()).at("sync", parent)?;
    Ok(())
}

impl Reopening {
    /// Opens and verifies what is there.
    pub(super) fn open(path: &Path) -> Result<Self, MetadataError> {
        // Before redb does: a file that cannot be written is not a damaged one.
        let file = File::options().read(true).write(true).open(path).at("open", path)?;
        let db = verified(path)?;
        Ok(Self { path: path.to_path_buf(), file, db: RwLock::new(Some(db)) })
    }

    fn lock(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.db.read().expect("no one panics while the database is opened again")
    }

    /// As redb's.
    pub(super) fn begin_read(&self) -> Result<ReadTransaction, TransactionError> {
        if self.lock().is_none() {
            self.reopen();
        }
        self.lock().as_ref().map_or_else(|| Err(closed()), ReadableDatabase::begin_read)
    }

    /// As redb's. Waits for another writer.
    pub(super) fn begin_write(&self) -> Result<WriteTransaction, TransactionError> {
        if self.lock().is_none() {
            self.reopen();
        }
        self.lock().as_ref().map_or_else(|| Err(closed()), Database::begin_write)
    }

    /// Takes the disk space that the next change may need; fails on a full or read-only file system.
    pub(super) fn reserve(&self) -> Result<(), PathError> {
        self.writable()?;
        let len = self.file.metadata().at("look at", &self.path)?.len();
        let wanted = len + len.clamp(LEAST_RESERVED, MOST_RESERVED);
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, wanted) {
            // A file system that cannot reserve: a failed write is met when it comes.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            Err(e) => Err(e).at("reserve space for", &self.path),
        }
    }

    /// Fails on a file system that became read-only: before redb has failed, after which nothing could be read.
    pub(super) fn writable(&self) -> Result<(), PathError> {
        File::options().write(true).open(&self.path).map(drop).at("write", &self.path)
    }

    /// Opens it again after a failed write. What was committed is there; what was not is gone.
    pub(super) fn reopen(&self) {
        let mut db = self.db.write().expect("no one panics while the database is opened again");
        *db = None;
        for _ in 0..PATIENCE {
            match Database::builder().set_cache_size(CACHE).open(&self.path) {
                Ok(opened) => {
                    *db = Some(opened);
                    return;
                }
                // A reader that began before still has it.
                Err(redb::DatabaseError::DatabaseAlreadyOpen) => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(e) => {
                    tracing::error!(error = %e, "the image database cannot be opened again yet");
                    return;
                }
            }
        }
    }
}

fn closed() -> TransactionError {
    TransactionError::Storage(redb::StorageError::PreviousIo)
}

/// Opens a database whose pages all match their checksums. redb does this by itself after a crash only.
fn verified(path: &Path) -> Result<Database, MetadataError> {
    let damaged = |e: redb::Error| match e {
        redb::Error::Io(source) if source.kind() != std::io::ErrorKind::InvalidData => {
            PathError { operation: "read", path: path.to_path_buf(), source }.into()
        }
        e => MetadataError::Damaged { path: path.to_path_buf(), source: Box::new(e) },
    };
    let mut db = Database::builder().set_cache_size(CACHE).open(path).map_err(|e| damaged(e.into()))?;
    match db.check_integrity() {
        Ok(_) => Ok(db),
        Err(redb::DatabaseError::Storage(redb::StorageError::Corrupted(_))) => {
            Err(MetadataError::Checksum { path: path.to_path_buf() })
        }
        Err(e) => Err(damaged(e.into())),
    }
}
