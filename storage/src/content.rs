//! Blobs by digest: layer tars as they came, manifests, configs.
//!
//! Layout below the state directory: `blobs/<64 hex>` and `ingest/<random>`. A blob is written to `ingest/`, verified,
//! and renamed by the commit that names it; `ingest/` is swept at start, and a file that is dropped before is deleted.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::digest::{Digest, Hashing};
use crate::failure::{At, PathError};
use crate::trash::Trash;

/// Why a blob cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// A system call failed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The bytes are not those that the digest names.
    #[error("{what} is corrupt: its digest is {found}, not {expected}")]
    WrongDigest {
        /// "layer 0123456789ab", "the manifest".
        what: String,
        /// Named by the image.
        expected: Digest,
        /// Of the bytes.
        found: Digest,
    },
    /// Too few or too many bytes.
    #[error("{what} is corrupt: it has {found} bytes, not {expected}")]
    WrongSize {
        /// What.
        what: String,
        /// Named by the image.
        expected: u64,
        /// Seen.
        found: u64,
    },
    /// A small document that is not small.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What.
        what: String,
        /// The bound.
        limit: u64,
    },
    /// The source of the bytes failed.
    #[error("cannot read {what}")]
    Source {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The blob directory.
#[derive(Clone)]
pub struct ContentStore {
    blobs: PathBuf,
    ingest: PathBuf,
    trash: Trash,
}

impl ContentStore {
    /// Opens it and throws away unfinished ingests.
    pub fn open(state: &Path, trash: Trash) -> Result<Self, PathError> {
        let me = Self { blobs: state.join("blobs"), ingest: state.join("ingest"), trash };
        me.trash.discard(&me.ingest)?;
        for dir in [&me.blobs, &me.ingest] {
            std::fs::create_dir_all(dir).at("create", dir)?;
        }
        Ok(me)
    }

    /// Throws away blobs that no record names.
    pub fn sweep(&self, known: impl Fn(&Digest) -> bool) -> Result<u64, PathError> {
        let mut swept = 0;
        for entry in std::fs::read_dir(&self.blobs).at("read", &self.blobs)?.flatten() {
            let digest = entry.file_name().to_str().and_then(|n| Digest::from_hex(n).ok());
            if !digest.is_some_and(|d| known(&d)) {
                self.trash.discard(&entry.path())?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Starts a blob.
    pub fn ingest(&self) -> Result<Ingest, PathError> {
        let path = self.ingest.join(format!("{:016x}", rand::random::<u64>()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).at("create", &path)?;
        Ok(Ingest { out: Hashing::new(file), path: TemporaryPath(path) })
    }

    /// Stores bytes at hand, still unpublished.
    pub fn stage_bytes(&self, bytes: &[u8]) -> Result<StagedBlob, ContentError> {
        let mut ingest = self.ingest()?;
        let path = ingest.path.0.clone();
        ingest.write_all(bytes).at("write", &path)?;
        Ok(ingest.finish())
    }

    /// Where the blob of a digest is.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// Gives a staged blob its name. The caller makes it durable.
    pub fn publish(&self, blob: &StagedBlob) -> Result<(), PathError> {
        let to = self.path(&blob.digest);
        if to.exists() {
            return Ok(());
        }
        match std::fs::rename(&blob.path.0, &to) {
            // Another call published the same staged blob.
            Err(_) if to.exists() => Ok(()),
            other => other.at("rename", &blob.path.0),
        }
    }

    /// Takes a name back that no record names. Whoever still holds the staged blob may publish it again.
    pub fn unpublish(&self, blob: &StagedBlob) -> Result<(), PathError> {
        let from = self.path(&blob.digest);
        match std::fs::rename(&from, &blob.path.0) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at("rename", &from),
            _ => Ok(()),
        }
    }

    /// Deletes a blob.
    pub fn delete(&self, digest: &Digest) -> Result<(), PathError> {
        self.trash.discard(&self.path(digest))
    }

    /// Reads a small blob whole.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, ContentError> {
        let path = self.path(digest);
        let file = File::open(&path).at("open", &path)?;
        read_bounded(file, limit, &format!("blob {}", digest.short()))
    }
}

/// Reads at most `limit` bytes; more is an error.
pub fn read_bounded(from: impl Read, limit: u64, what: &str) -> Result<Vec<u8>, ContentError> {
    let mut bytes = Vec::new();
    let n = from
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| ContentError::Source { what: what.to_owned(), source })?;
    if n as u64 > limit {
        return Err(ContentError::TooLarge { what: what.to_owned(), limit });
    }
    Ok(bytes)
}

/// Checks bytes at hand against a digest.
pub fn verify(bytes: &[u8], expected: &Digest, what: &str) -> Result<(), ContentError> {
    let found = Digest::of(bytes);
    if found == *expected {
        return Ok(());
    }
    Err(ContentError::WrongDigest { what: what.to_owned(), expected: expected.clone(), found })
}

/// A file that is deleted when it is dropped.
#[derive(Debug)]
pub struct TemporaryPath(pub PathBuf);

impl Drop for TemporaryPath {
    fn drop(&mut self) {
        // After publishing it is not there any more.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A blob being written.
pub struct Ingest {
    out: Hashing<File>,
    path: TemporaryPath,
}

impl Ingest {
    /// All bytes have been written.
    pub fn finish(self) -> StagedBlob {
        let (_, digest, size) = self.out.finish();
        StagedBlob { digest, size, path: self.path }
    }

    /// The file itself, to be read or used as scratch space; it is deleted with the second value.
    pub fn into_file(self) -> (File, TemporaryPath) {
        (self.out.finish().0, self.path)
    }

    /// The same, with the digest and size of what was written.
    pub fn into_scratch(self) -> (File, TemporaryPath, Digest, u64) {
        let (file, digest, size) = self.out.finish();
        (file, self.path, digest, size)
    }

    /// Where it is written.
    pub fn path(&self) -> &Path {
        &self.path.0
    }
}

impl Write for Ingest {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.out.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A finished blob without a name: deleted when dropped unpublished.
#[derive(Debug)]
pub struct StagedBlob {
    /// Of its bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    path: TemporaryPath,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_only_there_after_publishing_and_a_dropped_one_leaves_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        let trash = Trash::open(tmp.path().join("trash")).unwrap();
        let store = ContentStore::open(tmp.path(), trash.clone()).unwrap();
        drop(store.stage_bytes(b"gone").unwrap());
        let staged = store.stage_bytes(b"kept").unwrap();
        assert!(!store.path(&staged.digest).exists());
        store.publish(&staged).unwrap();
        store.publish(&staged).unwrap();
        let digest = staged.digest.clone();
        drop(staged);
        assert_eq!(store.read(&digest, 10).unwrap(), b"kept");
        assert!(matches!(store.read(&digest, 3), Err(ContentError::TooLarge { .. })));
        assert_eq!(std::fs::read_dir(tmp.path().join("ingest")).unwrap().count(), 0);
        assert_eq!(store.sweep(|_| true).unwrap(), 0);
        assert_eq!(store.sweep(|_| false).unwrap(), 1);
        verify(b"kept", &digest, "x").unwrap();
        assert!(verify(b"kepT", &digest, "x").is_err());
    }
}
