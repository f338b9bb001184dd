//! Kernel settings that networks need.
//!
//! What a network needs of the host, which is forwarding, is turned on and stays on: somebody else may have come to need it
//! meanwhile, and nothing tells. Settings of our own bridges vanish with them.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

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

/// A /proc that settings inside sandboxes are written through, and how often it was.
static INSIDE: Mutex<Option<(Arc<OwnedFd>, usize)>> = Mutex::new(None);
/// How many settings are written through one.
const WRITES: usize = 64;

/// Sets one of the namespace that the calling thread visits.
///
/// In the kernel's cache of names `/proc/sys/net/ipv6` of a thousand namespaces are a thousand entries of one hash chain,
/// which each lookup by way of the common /proc walks: that is most of a millisecond. So they go through one of our own,
/// which is replaced before its chain is long; where it cannot be had, the common one serves.
pub fn set_inside(name: &str, value: &str) -> Result<(), SysctlError> {
    let Some(own) = own_proc() else { return set(name, value) };
    let failed = |source| SysctlError { operation: "set", name: name.to_owned(), source };
    let path = Path::new("sys").join(name);
    // What is refused here may be allowed there, to who is confined by paths.
    let Ok(opened) = openat(&*own, &path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()) else {
        return set(name, value);
    };
    File::from(opened).write_all(value.as_bytes()).map_err(failed)
}

fn own_proc() -> Option<Arc<OwnedFd>> {
    let mut inside = INSIDE.lock().unwrap_or_else(PoisonError::into_inner);
    if inside.as_ref().is_none_or(|(_, writes)| *writes >= WRITES) {
        *inside = davit_sys::mount::detached_proc().ok().map(|own| (Arc::new(own), 0));
    }
    let (own, writes) = inside.as_mut()?;
    *writes += 1;
    Some(own.clone())
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
