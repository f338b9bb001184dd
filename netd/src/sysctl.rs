//! Kernel settings that networks need.
//!
//! What a network needs of the host, which is forwarding, is turned on and stays on: somebody else may have come to need it
//! meanwhile, and nothing tells. Settings of our own bridges vanish with them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::failpoint::pass;

/// Why a setting could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} the kernel setting {name}")]
pub struct SysctlError {
    /// "read" or "set".
    operation: &'static str,
    /// Slashed, such as `net/ipv4/ip_forward`.
    name: String,
    /// Why.
    #[source]
    source: io::Error,
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

/// Reads one of the calling thread's namespace.
pub fn get(name: &str) -> Result<String, SysctlError> {
    let failed = |source| SysctlError { operation: "read", name: name.to_owned(), source };
    fs::read_to_string(path(name)).map(|s| s.trim_end().to_owned()).map_err(failed)
}

/// Sets one of the calling thread's namespace.
pub fn set(name: &str, value: &str) -> Result<(), SysctlError> {
    let failed = |source| SysctlError { operation: "set", name: name.to_owned(), source };
    fs::write(path(name), value).map_err(failed)
}

/// Makes sure that a setting of the host has this value, for good.
pub fn ensure(name: &str, value: &str) -> Result<(), SysctlError> {
    if get(name)? == value {
        return Ok(());
    }
    set(name, value)?;
    tracing::info!(setting = name, value, "changed a setting of the host, for good");
    pass("sysctl.set");
    Ok(())
}
