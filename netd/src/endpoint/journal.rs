//! The records of sandboxes: one file each in run/network/sandboxes, replaced by rename.
//!
//! They need to survive a killed daemon, not a power cut that ends the sandboxes too, so nothing is synced: a write
//! costs microseconds. A record is written before the kernel objects that it names are made, and removed after they
//! are gone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Sandbox;
use crate::failpoint::pass;

/// Why records could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("cannot {operation} {path}")]
    File {
        /// "write", "read", "remove".
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What the folder holds.
#[derive(Debug, Default)]
pub struct Survey {
    /// Records that can be read.
    pub records: Vec<Sandbox>,
    /// Files that cannot, and those that were set aside.
    pub damaged: Vec<PathBuf>,
}

/// The folder of records.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
}

fn failed<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> JournalError + 'a {
    move |source| JournalError::File { operation, path: path.to_path_buf(), source }
}

impl Journal {
    /// Opens or makes the folder.
    pub fn open(folder: PathBuf) -> Result<Self, JournalError> {
        fs::create_dir_all(&folder).map_err(failed("make", &folder))?;
        Ok(Self { folder })
    }

    /// Ids come from outside: they are names of files only when they cannot be anything else.
    pub fn acceptable(id: &str) -> bool {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        (1..=128).contains(&id.len()) && id.bytes().all(legal) && !id.starts_with('.')
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    /// Writes a record in place of an earlier one.
    pub fn write(&self, sandbox: &Sandbox) -> Result<(), JournalError> {
        let path = self.path(&sandbox.id);
        let draft = self.folder.join(format!(".{}", sandbox.id));
        let bytes = serde_json::to_vec(sandbox).expect("a sandbox has only string keys");
        fs::write(&draft, bytes).map_err(failed("write", &draft))?;
        pass("journal.drafted");
        fs::rename(&draft, &path).map_err(failed("write", &path))?;
        pass("journal.written");
        Ok(())
    }

    /// Removes a record; fine when there is none.
    pub fn remove(&self, id: &str) -> Result<(), JournalError> {
        let path = self.path(id);
        pass("journal.removing");
        let removed = match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(e)),
            _ => Ok(()),
        };
        pass("journal.removed");
        removed
    }

    /// All records, in the order of attachment. Drafts are removed; a damaged record is set aside as `.damaged`.
    pub fn all(&self) -> Result<Vec<Sandbox>, JournalError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed("read", &self.folder))? {
            let path = entry.map_err(failed("read", &self.folder))?.path();
            if path.extension().is_none_or(|e| e != "json") {
                if path.extension().is_none_or(|e| e != "damaged") {
                    let _ = fs::remove_file(&path);
                }
                continue;
            }
            let bytes = fs::read(&path).map_err(failed("read", &path))?;
            match serde_json::from_slice::<Sandbox>(&bytes) {
                Ok(sandbox) => found.push(sandbox),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a sandbox's record is damaged; set aside");
                    let _ = fs::rename(&path, path.with_extension("damaged"));
                }
            }
        }
        found.sort_by_key(|s| s.sequence);
        Ok(found)
    }

    /// Looks without changing anything.
    pub fn survey(&self) -> Result<Survey, JournalError> {
        let mut survey = Survey::default();
        for entry in fs::read_dir(&self.folder).map_err(failed("read", &self.folder))? {
            let path = entry.map_err(failed("read", &self.folder))?.path();
            let record = path.extension().is_some_and(|e| e == "json");
            let read = || serde_json::from_slice(&fs::read(&path).ok()?).ok();
            match read().filter(|_| record) {
                Some(sandbox) => survey.records.push(sandbox),
                None => survey.damaged.push(path),
            }
        }
        survey.damaged.sort();
        Ok(survey)
    }

    /// Removes a file of the folder.
    pub fn discard(&self, path: &Path) -> Result<(), JournalError> {
        fs::remove_file(path).map_err(failed("remove", path))
    }
}
