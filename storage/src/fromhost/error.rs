//! Why an image cannot be made of the host's programs.

use std::io;
use std::path::PathBuf;

use davit_contracts::Kind;

/// Why programs cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum FromHostError {
    /// No programs were named.
    #[error("no program was named")]
    Nothing,
    /// Not there.
    #[error("program '{0}' is not found on this host")]
    NoProgram(String),
    /// A path to take along is not there.
    #[error("'{0}' does not exist on this host")]
    NoPath(String),
    /// Neither ELF nor script.
    #[error("'{path}' is not a program: {why}")]
    NotAProgram {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A library is nowhere.
    #[error("'{program}' needs the library {library}, which is not found on this host")]
    NoLibrary {
        /// Which program or library.
        program: PathBuf,
        /// By soname.
        library: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Links that lead in a circle.
    #[error("too many symbolic links on the way to {}", .0.display())]
    Links(PathBuf),
    /// A relative path.
    #[error("'{0}' is not an absolute path")]
    Relative(String),
}

impl FromHostError {
    /// For the contract.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoProgram(_) | Self::NoPath(_) => Kind::NotFound,
            Self::Read { .. } => Kind::Internal,
            _ => Kind::InvalidArgument,
        }
    }
}
