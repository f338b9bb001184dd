//! The failures of operations, gathered from the modules that they pass through, and what kind each is.

use davit_contracts::Kind;

use crate::archive::ArchiveError;
use crate::change::ChangeError;
use crate::compression::CompressionError;
use crate::content::ContentError;
use crate::digest::Digest;
use crate::failure::{Condition, PathError, condition};
use crate::fromhost::FromHostError;
use crate::image::push::PushError;
use crate::metadata::MetadataError;
use crate::oci::DocumentError;
use crate::reference::InvalidReference;
use crate::registry::RegistryError;
use crate::snapshot::SnapshotError;
use crate::tarball::TarError;
use crate::tree::TreeError;
use crate::unpack::UnpackError;
use crate::volume::VolumeError;

/// Why an operation of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The database.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A blob.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// A manifest, index or config.
    #[error("{what} is not usable")]
    Document {
        /// An archive's or a reference's name.
        what: String,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// A layer.
    #[error("layer {layer} cannot be unpacked")]
    Unpack {
        /// Its short digest.
        layer: String,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// A compressed stream.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// A layer does not unpack to what the config names.
    #[error("layer {layer} is corrupt: it unpacks to {found}, not {expected}")]
    WrongDiffId {
        /// Its short digest.
        layer: String,
        /// Named by the config.
        expected: Digest,
        /// Of the tar.
        found: Digest,
    },
    /// A reference.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// A registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A push.
    #[error(transparent)]
    Push(#[from] PushError),
    /// A `--change`.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// An image archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Programs of the host.
    #[error(transparent)]
    FromHost(#[from] FromHostError),
    /// A snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A volume.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A container's tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Nothing has this name or id.
    #[error("no image '{asked}'")]
    UnknownImage {
        /// What was asked for.
        asked: String,
        /// References that look like it.
        nearest: Vec<String>,
    },
    /// Its files have gone without this daemon.
    #[error("image {image} is damaged: the files of its layer {layer} are missing")]
    MissingLayer {
        /// Which image.
        image: String,
        /// Which layer.
        layer: String,
    },
    /// A prefix of several ids.
    #[error("'{0}' is the beginning of more than one image id")]
    AmbiguousId(String),
    /// Snapshots are based on it.
    #[error("conflict: {}", in_use(image, reference.as_deref(), keys))]
    ImageInUse {
        /// Its short id.
        image: String,
        /// The reference that was asked for, when it was one.
        reference: Option<String>,
        /// By which snapshots.
        keys: Vec<String>,
    },
    /// Removal by id of what has several names.
    #[error(
        "conflict: unable to delete {image} (must be forced) - image is referenced in multiple repositories"
    )]
    SeveralReferences {
        /// Which.
        image: String,
        /// Its names.
        references: Vec<String>,
    },
    /// A filter that does not exist.
    #[error("invalid filter '{0}'")]
    UnknownFilter(String),
    /// A filter's value is of no use.
    #[error("invalid filter '{key}={value}'")]
    BadFilter {
        /// Which.
        key: String,
        /// What was given.
        value: String,
    },
    /// The caller has gone.
    #[error("cancelled: the caller has gone away")]
    Cancelled,
    /// A thread of ours panicked.
    #[error("a task of this daemon failed")]
    Task(#[from] tokio::task::JoinError),
}

/// docker's words.
fn in_use(image: &str, reference: Option<&str>, keys: &[String]) -> String {
    let several = keys.len() > 1;
    let containers = format!("container{} {}", if several { "s" } else { "" }, keys.join(", "));
    match reference {
        Some(reference) => format!(
            "unable to remove repository reference \"{reference}\" (must force) - {containers} {} using its referenced image \
             {image}",
            if several { "are" } else { "is" }
        ),
        None => format!("unable to delete {image} (must be forced) - image is being used by {containers}"),
    }
}

impl Error {
    /// The registry's part in it.
    fn registry(&self) -> Option<&RegistryError> {
        match self {
            // Transparent: it is not among its own sources.
            Self::Registry(e) => Some(e),
            other => RegistryError::within(other),
        }
    }

    /// What kind of failure it is, for the contract.
    pub fn kind(&self) -> Kind {
        if let Some(registry) = self.registry() {
            return registry.kind();
        }
        match condition(self) {
            Some(Condition::NoSpace) => return Kind::NoSpace,
            Some(Condition::Disconnected) => return Kind::Unavailable,
            Some(Condition::Denied) => return Kind::PermissionDenied,
            Some(Condition::ReadOnly) | None => {}
        }
        match self {
            Self::Path(e) if e.source.kind() == std::io::ErrorKind::NotFound => Kind::NotFound,
            Self::Path(_)
            | Self::Metadata(_)
            | Self::Task(_)
            | Self::Content(ContentError::Path(_))
            | Self::Unpack { source: UnpackError::Io { .. }, .. } => Kind::Internal,
            Self::Document { source: DocumentError::NoPlatform { .. }, .. } | Self::UnknownImage { .. } => {
                Kind::NotFound
            }
            Self::Document { source: DocumentError::NotAnImage(_) | DocumentError::Schema1, .. }
            | Self::Compression(CompressionError::Unsupported(_)) => Kind::Unsupported,
            Self::Content(_)
            | Self::Document { .. }
            | Self::Unpack { .. }
            | Self::WrongDiffId { .. }
            | Self::MissingLayer { .. }
            | Self::Compression(_) => Kind::Corrupt,
            Self::Reference(_)
            | Self::Change(_)
            | Self::UnknownFilter(_)
            | Self::BadFilter { .. }
            | Self::AmbiguousId(_) => Kind::InvalidArgument,
            Self::Registry(e) => e.kind(),
            Self::Push(e) => e.kind(),
            Self::Archive(e) => e.kind(),
            Self::FromHost(e) => e.kind(),
            Self::Snapshot(e) => e.kind(),
            Self::Volume(e) => e.kind(),
            Self::Tree(e) => e.kind(),
            Self::ImageInUse { .. } | Self::SeveralReferences { .. } => Kind::InUse,
            Self::Cancelled => Kind::Cancelled,
        }
    }

    /// What the person can do next; may be empty.
    pub fn hint(&self) -> String {
        if condition(self) == Some(Condition::NoSpace) {
            return "free some space; nothing of the image was kept".into();
        }
        if condition(self) == Some(Condition::ReadOnly) {
            return "the state directory is on a read-only file system: make it writable; reading goes on"
                .into();
        }
        if let Some(registry) = self.registry() {
            return registry.hint();
        }
        match self {
            Self::UnknownImage { nearest, .. } if !nearest.is_empty() => {
                format!("did you mean {}?", nearest.join(" or "))
            }
            Self::Document { source: DocumentError::NoPlatform { .. }, .. } => {
                "name one that is offered with --platform".into()
            }
            Self::ImageInUse { .. } => "remove the containers first; force only removes the reference".into(),
            Self::SeveralReferences { references, .. } => {
                format!("remove {} one by one, or use force", references.join(", "))
            }
            Self::MissingLayer { .. } => {
                "run `davit storage check --repair`, or pull or load the image again".into()
            }
            Self::Metadata(e) => e.hint().into(),
            Self::Volume(e) => e.hint().into(),
            Self::Snapshot(SnapshotError::Proxy(e)) => e.hint().to_owned(),
            Self::Archive(ArchiveError::NotAnArchive { .. }) => {
                "a tar of a root file system is taken by `davit image import`".into()
            }
            Self::Compression(CompressionError::Unsupported(_)) => "decompress it first".into(),
            Self::Unpack { source: UnpackError::Tar(TarError::NotTar), .. } => {
                "a tar is expected, plain or compressed with gzip or zstd".into()
            }
            _ => String::new(),
        }
    }

    /// What it is about; may be empty.
    pub fn subject(&self) -> String {
        match self {
            Self::UnknownImage { asked, .. } | Self::AmbiguousId(asked) => asked.clone(),
            Self::ImageInUse { image, .. } | Self::SeveralReferences { image, .. } => image.clone(),
            Self::Document { what, .. } => what.clone(),
            Self::Unpack { layer, .. } | Self::WrongDiffId { layer, .. } => layer.clone(),
            Self::Path(e) => e.path.display().to_string(),
            _ => String::new(),
        }
    }
}
