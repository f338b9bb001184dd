//! Why a volume cannot be made or used, and what kind of failure that is.

use std::path::PathBuf;

use davit_contracts::{Kind, id};

use crate::failure::PathError;

/// Why a volume cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A system call failed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Not a name.
    #[error(transparent)]
    BadName(#[from] id::InvalidId),
    /// Nothing has this name.
    #[error("no volume '{0}'")]
    Unknown(String),
    /// Containers use it.
    #[error("volume '{name}' is in use by {}", users.iter().map(|u| short(u)).collect::<Vec<_>>().join(", "))]
    InUse {
        /// Which.
        name: String,
        /// By which containers.
        users: Vec<String>,
    },
    /// The name is taken by a volume with other options.
    #[error("volume '{0}' exists already with other options")]
    Differs(String),
    /// An option that the local driver does not have.
    #[error("the local volume driver has no option '{0}': type, device and o are known")]
    UnknownOption(String),
    /// An option without which the others mean nothing.
    #[error("the volume's option '{0}' is missing")]
    MissingOption(&'static str),
    /// A file system that nobody here mounts.
    #[error(
        "the local volume driver cannot mount '{0}': tmpfs, and binds of directories (type=none, o=bind), are supported"
    )]
    UnsupportedType(String),
    /// A bind's directory.
    #[error("the volume's device {0} is not the absolute path of something that exists")]
    Device(PathBuf),
    /// Another driver.
    #[error("no volume driver '{0}': only local is there")]
    UnknownDriver(String),
    /// A part of a volume that is not there, or not in it.
    #[error("volume '{name}' has no '{subpath}', or it is or leads through a symbolic link")]
    Subpath {
        /// Which.
        name: String,
        /// As asked for.
        subpath: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its record is torn.
    #[error("the record of volume '{name}' is damaged")]
    Record {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The image's content could not be copied in.
    #[error("cannot copy the image's content into volume '{name}'")]
    Copy {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl VolumeError {
    /// For the contract.
    pub fn kind(&self) -> Kind {
        match self {
            Self::BadName(_) | Self::UnknownOption(_) | Self::MissingOption(_) | Self::Device(_) => {
                Kind::InvalidArgument
            }
            Self::UnsupportedType(_) => Kind::Unsupported,
            Self::Unknown(_) | Self::UnknownDriver(_) | Self::Subpath { .. } => Kind::NotFound,
            Self::InUse { .. } => Kind::InUse,
            Self::Differs(_) => Kind::AlreadyExists,
            Self::Record { .. } => Kind::Corrupt,
            Self::Path(_) | Self::Copy { .. } => Kind::Internal,
        }
    }

    /// What the person can do next; may be empty.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "remove the containers first",
            Self::UnsupportedType(_) => {
                "mount it on the host, and make a volume of it with type=none, o=bind and device=PATH"
            }
            _ => "",
        }
    }
}

/// A container's id as `ps` shows it.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
