//! Image archives: docker-archive (`docker save`) and OCI layouts, as a tar or as a directory.
//!
//! A [`Source`] answers names with bytes; [`plan`] reads its documents and says which layers make which image. Nothing
//! is trusted: names never leave the archive, documents are bounded, digests are verified where a manifest names them.

use std::path::PathBuf;

use davit_contracts::Kind;

use crate::content::{ContentError, verify};
use crate::digest::Digest;
use crate::error::Error;
use crate::oci::{self, Document, DocumentError, ImageFile, Index, Manifest, Platform};

mod docker;
mod index;
mod source;

pub use source::Source;

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Neither format.
    #[error("{path} is no image archive: it has neither manifest.json nor index.json")]
    NotAnArchive {
        /// Where it came from.
        path: String,
    },
    /// The tar around the images is broken.
    #[error("{path} cannot be read")]
    Tar {
        /// Where it came from.
        path: String,
        /// Why.
        #[source]
        source: crate::tarball::TarError,
    },
    /// A document names a file that is not there.
    #[error("the archive is incomplete: it lacks {0}")]
    Missing(String),
    /// A file of the archive cannot be read.
    #[error("cannot read {name} of the archive")]
    Read {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The path cannot be opened at all.
    #[error("cannot open {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// More names than an archive of images has.
    #[error("the archive has more than {0} files")]
    TooManyFiles(usize),
    /// A name was given for an archive of several images.
    #[error("the archive holds {0} images, so that one name cannot be given to it")]
    SeveralImages(usize),
}

impl ArchiveError {
    /// For the contract.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Open { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Kind::NotFound,
            Self::Open { .. } => Kind::Internal,
            Self::SeveralImages(_) => Kind::InvalidArgument,
            _ => Kind::Corrupt,
        }
    }
}

/// An image as an archive describes it.
#[derive(Debug)]
pub struct Planned {
    /// The config's bytes.
    pub config: Vec<u8>,
    /// The config, read.
    pub file: ImageFile,
    /// The manifest's bytes, of an OCI layout.
    pub manifest: Option<Vec<u8>>,
    /// Names of the layers' files in the archive, bottom first, with their digests where a manifest names them.
    pub layers: Vec<(String, Option<(Digest, u64)>)>,
    /// References that the archive gives it, unchecked.
    pub names: Vec<String>,
}

/// What images the archive holds for a platform.
pub fn plan(source: &Source, platform: &Platform) -> Result<Vec<Planned>, Error> {
    if let Some(bytes) = source.document("manifest.json", oci::MAX_MANIFEST)? {
        return docker(source, &bytes);
    }
    if let Some(bytes) = source.document("index.json", oci::MAX_MANIFEST)? {
        return layout(source, &bytes, platform);
    }
    Err(ArchiveError::NotAnArchive { path: source.origin().to_owned() }.into())
}

fn document<T>(source: &Source, result: Result<T, DocumentError>) -> Result<T, Error> {
    result.map_err(|e| Error::Document { what: source.origin().to_owned(), source: e })
}

fn required(source: &Source, name: &str, limit: u64) -> Result<Vec<u8>, Error> {
    source.document(name, limit)?.ok_or_else(|| ArchiveError::Missing(name.to_owned()).into())
}

fn docker(source: &Source, bytes: &[u8]) -> Result<Vec<Planned>, Error> {
    let images = document(source, docker::parse(bytes))?;
    let mut planned = Vec::new();
    for image in images {
        let config = required(source, &image.config, oci::MAX_CONFIG)?;
        // docker names a config's file by its digest: a changed one shows.
        let stem = image.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        if let Ok(expected) = Digest::from_hex(stem) {
            verify(&config, &expected, "the config")?;
        }
        let file = document(source, ImageFile::parse(&config))?;
        let layers: Vec<_> = image.layers.unwrap_or_default().into_iter().map(|name| (name, None)).collect();
        planned.push(checked(
            source,
            Planned { config, file, manifest: None, layers, names: image.repo_tags.unwrap_or_default() },
        )?);
    }
    Ok(planned)
}

fn layout(source: &Source, bytes: &[u8], platform: &Platform) -> Result<Vec<Planned>, Error> {
    let json = |source| DocumentError::Json { what: "index", source };
    let index: Index = document(source, serde_json::from_slice(bytes).map_err(json))?;
    // Entries of one name, or of no name, that differ in their platform are one image.
    let mut groups: Vec<(Option<String>, Index)> = Vec::new();
    for entry in index.manifests {
        let name = name_of(&entry.annotations);
        let same = |g: &&mut (Option<String>, Index)| g.0 == name && entry.platform.is_some();
        match groups.iter_mut().find(same) {
            Some(group) => group.1.manifests.push(entry),
            None => groups.push((name, Index { manifests: vec![entry] })),
        }
    }
    let mut planned = Vec::new();
    for (name, group) in groups {
        let chosen = match group.manifests.as_slice() {
            // A single image is taken whatever it is for: the person asked for this file.
            [only] => only.clone(),
            _ => document(source, group.choose(platform))?.clone(),
        };
        let (manifest_bytes, manifest) = resolve(source, &chosen, platform)?;
        let config = blob(source, &manifest.config.digest, oci::MAX_CONFIG, "the config")?;
        let file = document(source, ImageFile::parse(&config))?;
        let layers = manifest
            .layers
            .iter()
            .map(|l| (blob_name(&l.digest), Some((l.digest.clone(), l.size))))
            .collect();
        let names = name.into_iter().collect();
        planned
            .push(checked(source, Planned { config, file, manifest: Some(manifest_bytes), layers, names })?);
    }
    Ok(planned)
}

/// containerd's full name, else the specification's, which may be a whole reference or only a tag.
fn name_of(annotations: &std::collections::BTreeMap<String, String>) -> Option<String> {
    let full = annotations.get("io.containerd.image.name").cloned();
    full.or_else(|| annotations.get("org.opencontainers.image.ref.name").cloned()).filter(|n| !n.is_empty())
}

/// Follows indexes within the layout; a cycle cannot be deeper than this.
fn resolve(
    source: &Source,
    descriptor: &oci::Descriptor,
    platform: &Platform,
) -> Result<(Vec<u8>, Manifest), Error> {
    let mut digest = descriptor.digest.clone();
    for _ in 0..4 {
        let bytes = blob(source, &digest, oci::MAX_MANIFEST, "the manifest")?;
        match document(source, Document::parse(&bytes))? {
            Document::Manifest(manifest) => return Ok((bytes, manifest)),
            Document::Index(index) => digest = document(source, index.choose(platform))?.digest.clone(),
        }
    }
    Err(ArchiveError::Missing("a manifest behind its indexes".into()).into())
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn blob(source: &Source, digest: &Digest, limit: u64, what: &str) -> Result<Vec<u8>, Error> {
    let bytes = required(source, &blob_name(digest), limit)?;
    verify(&bytes, digest, what).map_err(|e: ContentError| Error::from(e))?;
    Ok(bytes)
}

fn checked(source: &Source, planned: Planned) -> Result<Planned, Error> {
    let (manifest, config) = (planned.layers.len(), planned.file.rootfs.diff_ids.len());
    if manifest != config {
        return document(source, Err(DocumentError::LayerCount { manifest, config }));
    }
    for (name, _) in &planned.layers {
        if !source.has(name) {
            return Err(ArchiveError::Missing(name.clone()).into());
        }
    }
    Ok(planned)
}
