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

/// The ending of a record that was set aside.
const DAMAGED: &str = "damaged";

/// What the folder holds.
#[derive(Debug, Default)]
pub struct Survey {
    /// Records that can be read.
    pub records: Vec<Sandbox>,
    /// Records that cannot, or that have the name of another.
    pub damaged: Vec<PathBuf>,
    /// Those that could not when netd started.
    pub set_aside: Vec<PathBuf>,
    /// What else is there.
    pub strays: Vec<PathBuf>,
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
        if let Err(e) = fs::write(&draft, &bytes) {
            // Somebody may have removed the folder.
            fs::create_dir_all(&self.folder).map_err(failed("make", &self.folder))?;
            fs::write(&draft, &bytes).map_err(|_| failed("write", &draft)(e))?;
        }
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

    /// All records, in the order of attachment. Drafts are removed; a damaged record is set aside as `.damaged`, as is one under
    /// another's name, which nothing would ever remove. Folders stay.
    pub fn all(&self) -> Result<Vec<Sandbox>, JournalError> {
        let mut found = Vec::new();
        for path in self.files()? {
            match ending(&path) {
                _ if path.is_dir() => {
                    tracing::warn!(path = %path.display(), "a folder is where records are");
                }
                Some("json") => match read(&path) {
                    Ok(sandbox) => found.push(sandbox),
                    Err(error) => {
                        tracing::warn!(path = %path.display(), error, "a sandbox's record is damaged; set aside");
                        let _ = fs::rename(&path, path.with_extension(DAMAGED));
                    }
                },
                Some(DAMAGED) => {}
                _ => drop(fs::remove_file(&path)),
            }
        }
        found.sort_by_key(|s| s.sequence);
        Ok(found)
    }

    /// Looks without changing anything.
    pub fn survey(&self) -> Result<Survey, JournalError> {
        let mut survey = Survey::default();
        for path in self.files()? {
            match ending(&path).filter(|_| !path.is_dir()) {
                Some("json") => match read(&path) {
                    Ok(sandbox) => survey.records.push(sandbox),
                    Err(_) => survey.damaged.push(path),
                },
                Some(DAMAGED) => survey.set_aside.push(path),
                _ => survey.strays.push(path),
            }
        }
        for paths in [&mut survey.damaged, &mut survey.set_aside, &mut survey.strays] {
            paths.sort();
        }
        Ok(survey)
    }

    /// What is in the folder; nothing when somebody removed it.
    fn files(&self) -> Result<Vec<PathBuf>, JournalError> {
        let failed = || failed("read", &self.folder);
        match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries.map_err(failed())?.map(|e| Ok(e.map_err(failed())?.path())).collect(),
        }
    }

    /// Removes a file of the folder, or a folder with nothing in it.
    pub fn discard(&self, path: &Path) -> Result<(), JournalError> {
        let removed = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
        removed.map_err(failed("remove", path))
    }
}

fn ending(path: &Path) -> Option<&str> {
    path.extension().and_then(|e| e.to_str())
}

/// Reads a record, which has the name of its sandbox.
fn read(path: &Path) -> Result<Sandbox, String> {
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    let sandbox: Sandbox = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
    if path.file_name().is_none_or(|name| name != format!("{}.json", sandbox.id).as_str()) {
        return Err(format!("it is one of {}, under another name", sandbox.id));
    }
    Ok(sandbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_gone_has_no_records() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path().join("sandboxes")).unwrap();
        fs::remove_dir(dir.path().join("sandboxes")).unwrap();
        assert!(journal.all().unwrap().is_empty());
        assert!(journal.survey().unwrap().records.is_empty());
    }

    #[test]
    fn what_is_no_record_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path().to_owned()).unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("dir")).unwrap();
        fs::create_dir(at("dir.json")).unwrap();
        for name in ["odd.json", "old.damaged", ".draft"] {
            fs::write(at(name), "{").unwrap();
        }
        let survey = journal.survey().unwrap();
        assert_eq!(survey.damaged, [at("odd.json")]);
        assert_eq!(survey.set_aside, [at("old.damaged")]);
        assert_eq!(survey.strays, [at(".draft"), at("dir"), at("dir.json")]);
        assert!(journal.all().unwrap().is_empty());
        let survey = journal.survey().unwrap();
        assert_eq!(survey.damaged, Vec::<PathBuf>::new());
        assert_eq!(survey.set_aside, [at("odd.damaged"), at("old.damaged")]);
        assert_eq!(survey.strays, [at("dir"), at("dir.json")]);
        journal.discard(&at("dir")).unwrap();
        assert!(!at("dir").exists());
    }
}
