//! A daemon's state directory: one daemon at a time, and a format version that is never guessed.
//!
//! ```text
//! <dir>/lock     flock(2)ed by the daemon that owns the directory, which writes its pid
//! <dir>/format   decimal version of everything else in it
//! ```

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another daemon owns it.
    #[error(
        "another daemon{} is running on {path}: stop it first (davit down), or choose another state directory",
        holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Locked {
        /// Which directory.
        path: PathBuf,
        /// Its pid, as it sees itself.
        holder: Option<u32>,
    },
    /// It was written by a newer davit.
    #[error(
        "{path} has format {found}, but this version of davit knows only {known}: run the davit that wrote it, or a newer one"
    )]
    Newer {
        /// Which directory.
        path: PathBuf,
        /// From the file `format`.
        found: u32,
        /// The newest that this build knows.
        known: u32,
    },
    /// The file `format` holds no number.
    #[error("{path} holds no format version: the directory is damaged or not davit's")]
    NoFormat {
        /// Which file.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// An open, locked state directory; unlocked when dropped or when the process ends, however it ends.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    found: u32,
    _lock: fs::File,
}

impl StateDir {
    /// Makes the directory (0700) if missing, locks it and checks its format.
    ///
    /// A new directory gets `format`. An older one is accepted: [`StateDir::found_format`] tells, and the daemon calls
    /// [`StateDir::migrated`] when it has brought the content forward.
    pub fn open(path: &Path, format: u32) -> Result<Self, StateError> {
        let io = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { operation, path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("create", path))?;
        let lock_path = path.join("lock");
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(io("open", &lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = fs::read_to_string(&lock_path).ok().and_then(|pid| pid.trim().parse().ok());
                return Err(StateError::Locked { path: path.to_owned(), holder });
            }
            Err(e) => return Err(io("lock", &lock_path)(e.into())),
        }
        // For the message only: a full disk does not matter.
        let _ = lock.set_len(0).and_then(|()| write!(&lock, "{}", std::process::id()));
        let mut me = Self { path: path.to_owned(), found: format, _lock: lock };
        let format_path = path.join("format");
        match fs::read_to_string(&format_path) {
            Ok(text) => {
                me.found =
                    text.trim().parse().map_err(|_| StateError::NoFormat { path: format_path.clone() })?;
                if me.found > format {
                    return Err(StateError::Newer { path: path.to_owned(), found: me.found, known: format });
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                me.write_format(format).map_err(io("write", &format_path))?;
            }
            Err(e) => return Err(io("read", &format_path)(e)),
        }
        Ok(me)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format that was found (the current one for a new directory).
    pub fn found_format(&self) -> u32 {
        self.found
    }

    /// Records that the content has been brought forward to `format`.
    pub fn migrated(&mut self, format: u32) -> Result<(), StateError> {
        self.write_format(format).map_err(|source| StateError::Io {
            operation: "write",
            path: self.path.join("format"),
            source,
        })?;
        self.found = format;
        Ok(())
    }

    fn write_format(&self, format: u32) -> io::Result<()> {
        let temporary = self.path.join("format.new");
        let mut file = fs::File::create(&temporary)?;
        writeln!(file, "{format}")?;
        file.sync_all()?;
        fs::rename(&temporary, self.path.join("format"))?;
        fs::File::open(&self.path)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused_until_the_first_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open(dir.path(), 1).unwrap();
        let refused = StateDir::open(dir.path(), 1).unwrap_err();
        assert!(refused.to_string().contains(&format!("(pid {})", std::process::id())), "{refused}");
        drop(first);
        StateDir::open(dir.path(), 1).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused_and_an_older_one_migrated() {
        let dir = tempfile::tempdir().unwrap();
        drop(StateDir::open(dir.path(), 2).unwrap());
        assert!(matches!(StateDir::open(dir.path(), 1), Err(StateError::Newer { found: 2, known: 1, .. })));
        let mut state = StateDir::open(dir.path(), 3).unwrap();
        assert_eq!(state.found_format(), 2);
        state.migrated(3).unwrap();
        drop(state);
        assert_eq!(StateDir::open(dir.path(), 3).unwrap().found_format(), 3);
    }

    #[test]
    fn a_damaged_format_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("format"), "x").unwrap();
        assert!(matches!(StateDir::open(dir.path(), 1), Err(StateError::NoFormat { .. })));
    }
}
