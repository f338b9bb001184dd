//! Why a call of containerd's failed, and what kind of failure each is.

use super::InvalidFilter;
use crate::failure::{Condition, PathError, condition};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotterError {
    /// Nothing has this name.
    #[error("snapshot '{0}' does not exist")]
    Unknown(String),
    /// The name is taken.
    #[error("snapshot '{0}' exists already")]
    Exists(String),
    /// No name.
    #[error("a snapshot needs a name of 1 to 4096 bytes")]
    BadName,
    /// Its parent may still change.
    #[error("the parent '{0}' is not committed")]
    ParentNotCommitted(String),
    /// It is not of the kind that the call is for.
    #[error("snapshot '{name}' is not {wanted}")]
    WrongKind {
        /// Which.
        name: String,
        /// "active", ...
        wanted: &'static str,
    },
    /// Others are based on it.
    #[error("snapshot '{0}' has children")]
    HasChildren(String),
    /// Another call is at work on it.
    #[error("snapshot '{0}' is being worked on")]
    Busy(String),
    /// A parent that was named at commit cannot be taken.
    #[error("snapshot '{0}' has been made on another parent")]
    OtherParent(String),
    /// Something that never changes.
    #[error("the field '{0}' cannot be updated")]
    Immutable(String),
    /// A filter.
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
    /// A tree could not be copied.
    #[error("cannot copy the parent's files")]
    Copy(#[source] std::io::Error),
    /// A system call failed.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl SnapshotterError {
    /// For the contract.
    pub fn kind(&self) -> davit_contracts::Kind {
        use davit_contracts::Kind as K;
        match self {
            Self::Unknown(_) => K::NotFound,
            Self::Exists(_) => K::AlreadyExists,
            Self::BadName | Self::ParentNotCommitted(_) | Self::Immutable(_) | Self::Filter(_) => {
                K::InvalidArgument
            }
            Self::WrongKind { .. } | Self::HasChildren(_) | Self::Busy(_) | Self::OtherParent(_) => {
                K::WrongState
            }
            Self::Copy(_) | Self::Path(_) => match condition(self) {
                Some(Condition::NoSpace) => K::NoSpace,
                _ => K::Internal,
            },
        }
    }
}
