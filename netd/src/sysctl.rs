//! Kernel settings that networks need, and how they were before.
//!
//! A setting of the host is noted in run/network/sysctls.json before it is changed, and put back when the last endpoint
//! is gone. Settings of our own bridges vanish with them and need no note.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::failpoint::pass;

/// Why a setting could not be read, changed or noted.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// A file below /proc/sys.
    #[error("cannot {operation} the kernel setting {name}")]
    Setting {
        /// "read" or "set".
        operation: &'static str,
        /// Slashed, such as `net/ipv4/ip_forward`.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The note.
    #[error("cannot note former kernel settings in {path}")]
    Note {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Settings of the host that we changed.
#[derive(Debug)]
pub struct Sysctls {
    note: PathBuf,
    /// Setting to its former value.
    former: BTreeMap<String, String>,
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

/// Reads one of the calling thread's namespace.
pub fn get(name: &str) -> Result<String, SysctlError> {
    let failed = |source| SysctlError::Setting { operation: "read", name: name.to_owned(), source };
    fs::read_to_string(path(name)).map(|s| s.trim_end().to_owned()).map_err(failed)
}

/// Sets one of the calling thread's namespace, without a note.
pub fn set(name: &str, value: &str) -> Result<(), SysctlError> {
    let failed = |source| SysctlError::Setting { operation: "set", name: name.to_owned(), source };
    fs::write(path(name), value).map_err(failed)
}

impl Sysctls {
    /// Reads the note of an earlier netd.
    pub fn open(note: PathBuf) -> Self {
        let former = fs::read(&note).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
        Self { note, former }
    }

    /// Makes sure that a setting of the host has this value.
    pub fn ensure(&mut self, name: &str, value: &str) -> Result<(), SysctlError> {
        let now = get(name)?;
        if now == value {
            return Ok(());
        }
        self.former.entry(name.to_owned()).or_insert(now);
        self.write_note()?;
        pass("sysctl.noted");
        set(name, value)?;
        pass("sysctl.set");
        Ok(())
    }

    /// Puts everything back.
    pub fn restore(&mut self) -> Result<(), SysctlError> {
        if self.former.is_empty() {
            return Ok(());
        }
        for (name, value) in &self.former {
            set(name, value)?;
            pass("sysctl.set");
        }
        self.former.clear();
        self.write_note()
    }

    fn write_note(&self) -> Result<(), SysctlError> {
        let failed = |source| SysctlError::Note { path: self.note.clone(), source };
        let draft = self.note.with_extension("draft");
        fs::write(&draft, serde_json::to_vec(&self.former).expect("keys are strings")).map_err(failed)?;
        fs::rename(&draft, &self.note).map_err(failed)
    }
}
