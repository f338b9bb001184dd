//! Why a command line is refused.

/// A command line that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// No word of that name is known.
    #[error("unknown option {0:?}; `davit-cowfs --help` lists them")]
    Unknown(String),
    /// A word that stands before another came last.
    #[error("{0} needs a value")]
    Missing(&'static str),
    /// A key without what it needs.
    #[error("option {0} needs a value")]
    NoValue(String),
    /// A value that the key does not take.
    #[error("option {key}={value:?}: {why}")]
    Value {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What would be right.
        why: &'static str,
    },
    /// Something that fuse-overlayfs or overlayfs can do and this file system cannot.
    #[error("option {key} asks for {what}, which davit-cowfs does not do")]
    Unsupported {
        /// The key.
        key: String,
        /// What it is for.
        what: &'static str,
    },
    /// No mount point.
    #[error("no mount point was given")]
    NoMountpoint,
    /// Names beyond a source and a mount point.
    #[error("{0:?} is one name too many: a mount point is wanted, or a source and a mount point")]
    TooManyNames(String),
    /// No lower layer.
    #[error("no lowerdir= was given")]
    NoLower,
    /// `upperdir` without `workdir`.
    #[error("upperdir= needs a workdir= on the same file system")]
    NoWork,
}

impl OptionError {
    pub(super) fn unknown(option: &[u8]) -> Self {
        Self::Unknown(String::from_utf8_lossy(option).into_owned())
    }

    pub(super) fn value(key: &str, value: &[u8], why: &'static str) -> Self {
        Self::Value { key: key.to_owned(), value: String::from_utf8_lossy(value).into_owned(), why }
    }
}
