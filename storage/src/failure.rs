//! Failures of the operating system, with what was being done to which path.

use std::io;
use std::path::{Path, PathBuf};

/// A system call on a path failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub struct PathError {
    /// "create", "rename", ...
    pub operation: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Adds operation and path to an [`io::Error`].
pub trait At<T> {
    /// Says what was being done to which path.
    fn at(self, operation: &'static str, path: &Path) -> Result<T, PathError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, PathError> {
        self.map_err(|e| PathError { operation, path: path.to_path_buf(), source: e.into() })
    }
}

/// The operating system's errors that decide what kind of failure it is, wherever they are in a chain of causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// ENOSPC, EDQUOT.
    NoSpace,
    /// EROFS.
    ReadOnly,
    /// EACCES, EPERM.
    Denied,
    /// A peer went away.
    Disconnected,
}

/// Looks for a deciding condition along the chain.
pub fn condition(error: &(dyn std::error::Error + 'static)) -> Option<Condition> {
    let mut next = Some(error);
    while let Some(e) = next {
        if let Some(found) = e.downcast_ref::<io::Error>().and_then(of_io) {
            return Some(found);
        }
        next = e.source();
    }
    None
}

fn of_io(e: &io::Error) -> Option<Condition> {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Condition::NoSpace),
        io::ErrorKind::ReadOnlyFilesystem => Some(Condition::ReadOnly),
        io::ErrorKind::PermissionDenied => Some(Condition::Denied),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::TimedOut => {
            Some(Condition::Disconnected)
        }
        // An error wrapped into an io::Error is not reached by `source`.
        _ => e.get_ref().and_then(|inner| condition(inner)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_found_at_any_depth() {
        let e = PathError {
            operation: "write",
            path: "/x".into(),
            source: io::Error::other(PathError {
                operation: "write",
                path: "/y".into(),
                source: io::Error::from_raw_os_error(28),
            }),
        };
        assert_eq!(condition(&e), Some(Condition::NoSpace));
        assert_eq!(condition(&io::Error::from_raw_os_error(2)), None);
    }
}
