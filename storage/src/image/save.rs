//! `save`: images as one archive that others read.
//!
//! Both formats are an OCI layout (image-spec, image-layout.md) with the stored blobs and, where an image came with one, its own
//! manifest. A docker-archive has docker's `manifest.json` and `repositories` besides, so that docker of any age, podman and skopeo
//! find what they look for; layers compressed with zstd, which many of them do not know, are written plain in it. A blob that
//! several images share is written once. Every blob is compared with its digest while it goes out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::Arc;

use serde::Serialize;

use crate::compression::{Compression, Plain};
use crate::content::ContentError;
use crate::digest::{Digest, Hashing};
use crate::error::Error;
use crate::layer::LayerHandle;
use crate::metadata::ImageRecord;
use crate::oci::{self, Descriptor, Document, Manifest};
use crate::reference::Reference;
use crate::store::{LayerArchive, Store};
use crate::tarball::{Entry, Kind, Time};
use crate::tree::{Chunks, TarWriter, TreeError};

const MEDIA_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The shape of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `docker save`'s.
    DockerArchive,
    /// An OCI layout.
    Oci,
}

/// An image on its way out, with what keeps it here meanwhile.
struct Outgoing {
    record: ImageRecord,
    tags: Vec<Reference>,
    config: Vec<u8>,
    manifest: Vec<u8>,
    media_type: String,
    layers: Vec<Blob>,
    _leases: Vec<LayerHandle>,
}

/// A layer as it is written.
struct Blob {
    archive: LayerArchive,
    /// Decompressed on the way, to this many bytes.
    plain: Option<u64>,
    digest: Digest,
}

impl Blob {
    fn size(&self) -> u64 {
        self.plain.unwrap_or(self.archive.size)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Store {
    /// Writes images as an archive.
    pub fn save(self: &Arc<Self>, names: &[String], format: Format, out: Chunks) -> Result<(), Error> {
        let images = self.outgoing(names, format)?;
        let mut archive = Archive { tar: TarWriter::new(out), blobs: BTreeSet::new() };
        for dir in ["blobs/", "blobs/sha256/"] {
            archive.tar.append(&member(dir, Kind::Directory, 0)).map_err(TreeError::Write)?;
        }
        for image in &images {
            archive.document(&image.record.id, &image.config)?;
            for layer in &image.layers {
                archive.layer(layer)?;
            }
            archive.document(&Digest::of(&image.manifest), &image.manifest)?;
        }
        archive.json("index.json", &index(&images))?;
        if format == Format::DockerArchive {
            archive.json("manifest.json", &images.iter().map(docker_image).collect::<Vec<_>>())?;
        }
        archive.json("oci-layout", &BTreeMap::from([("imageLayoutVersion", "1.0.0")]))?;
        if format == Format::DockerArchive {
            archive.json("repositories", &repositories(&images))?;
        }
        archive.tar.finish().map(drop).map_err(|e| TreeError::Write(e).into())
    }

    fn outgoing(self: &Arc<Self>, names: &[String], format: Format) -> Result<Vec<Outgoing>, Error> {
        let mut images: Vec<Outgoing> = Vec::new();
        for name in names {
            for (record, tag) in self.named(name)? {
                let there = images.iter().position(|i| i.record.id == record.id);
                let at = if let Some(at) = there {
                    at
                } else {
                    images.push(self.outgoing_image(record, format)?);
                    images.len() - 1
                };
                if let Some(tag) = tag.filter(|t| !images[at].tags.contains(t)) {
                    images[at].tags.push(tag);
                }
            }
        }
        Ok(images)
    }

    /// An image by reference or id; a repository without a tag is all its tags, as for docker.
    fn named(&self, name: &str) -> Result<Vec<(ImageRecord, Option<Reference>)>, Error> {
        let last = name.rsplit('/').next().unwrap_or_default();
        let reference = Reference::parse(name).ok().filter(|r| r.digest().is_none());
        if let Some(repository) =
            reference.as_ref().filter(|_| !last.contains(':')).map(Reference::repository)
        {
            let tags: Vec<Reference> = self
                .metadata
                .contents()?
                .tags
                .keys()
                .filter_map(|t| Reference::parse(t).ok())
                .filter(|t| t.digest().is_none() && t.repository() == repository)
                .collect();
            if !tags.is_empty() {
                let image = |t: Reference| Ok((self.find_image(&t.canonical())?, Some(t)));
                return tags.into_iter().map(image).collect();
            }
        }
        let record = self.find_image(name)?;
        let tagged =
            |r: &Reference| self.metadata.tag(&r.canonical()).is_ok_and(|t| t.as_ref() == Some(&record.id));
        let tag = reference.filter(tagged);
        Ok(vec![(record, tag)])
    }

    fn outgoing_image(self: &Arc<Self>, record: ImageRecord, format: Format) -> Result<Outgoing, Error> {
        let leases = self.lease(&record)?;
        let mut layers = Vec::new();
        for handle in &leases {
            let layer = handle.record();
            let archive = self.layer_archive(layer)?;
            let plain = if format == Format::DockerArchive && archive.compression == Compression::Zstd {
                Some(
                    io::copy(&mut Plain::new(archive.reader()?)?, &mut io::sink())
                        .map_err(|e| unreadable(layer, e))?,
                )
            } else {
                None
            };
            let digest = if plain.is_some() { layer.diff_id.clone() } else { archive.digest.clone() };
            layers.push(Blob { archive, plain, digest });
        }
        let config = self.content.read(&record.id, oci::MAX_CONFIG)?;
        let kept = match &record.manifest {
            Some(digest) => original(self.content.read(digest, oci::MAX_MANIFEST)?, &layers),
            None => None,
        };
        let (manifest, media_type) = match kept {
            Some(kept) => kept,
            None => (manifest_of(&record, &config, &layers), oci::MEDIA_MANIFEST.to_owned()),
        };
        Ok(Outgoing { record, tags: Vec::new(), config, manifest, media_type, layers, _leases: leases })
    }
}

/// The image's own manifest, while it names the layers as they are written.
fn original(bytes: Vec<u8>, layers: &[Blob]) -> Option<(Vec<u8>, String)> {
    let Ok(Document::Manifest(manifest)) = Document::parse(&bytes) else { return None };
    let same = manifest.layers.len() == layers.len()
        && manifest.layers.iter().zip(layers).all(|(named, layer)| named.digest == layer.digest);
    let media_type =
        if manifest.media_type.is_empty() { oci::MEDIA_MANIFEST.to_owned() } else { manifest.media_type };
    same.then_some((bytes, media_type))
}

fn manifest_of(record: &ImageRecord, config: &[u8], layers: &[Blob]) -> Vec<u8> {
    let descriptor = |media_type: String, digest: &Digest, size| Descriptor {
        media_type,
        digest: digest.clone(),
        size,
        platform: None,
        annotations: BTreeMap::new(),
    };
    let layer = |blob: &Blob| {
        let suffix = match blob.archive.compression {
            _ if blob.plain.is_some() => "",
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
            Compression::Plain => "",
        };
        descriptor(format!("{}{suffix}", oci::MEDIA_LAYER), &blob.digest, blob.size())
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: oci::MEDIA_MANIFEST.into(),
        config: descriptor(oci::MEDIA_CONFIG.into(), &record.id, config.len() as u64),
        layers: layers.iter().map(layer).collect(),
    };
    serde_json::to_vec(&manifest).expect("a manifest of strings is JSON")
}

/// An entry a name; an image without one has one as well.
fn index(images: &[Outgoing]) -> Index {
    let mut manifests = Vec::new();
    for image in images {
        let entry = |annotations| Descriptor {
            media_type: image.media_type.clone(),
            digest: Digest::of(&image.manifest),
            size: image.manifest.len() as u64,
            platform: None,
            annotations,
        };
        manifests.extend(image.tags.iter().map(|tag| {
            entry(BTreeMap::from([
                ("io.containerd.image.name".to_owned(), tag.canonical()),
                ("org.opencontainers.image.ref.name".to_owned(), tag.identifier().to_owned()),
            ]))
        }));
        if image.tags.is_empty() {
            manifests.push(entry(BTreeMap::new()));
        }
    }
    Index { schema_version: 2, media_type: MEDIA_INDEX, manifests }
}

fn docker_image(image: &Outgoing) -> DockerImage {
    let tags: Vec<String> = image.tags.iter().map(Reference::familiar).collect();
    DockerImage {
        config: blob_name(&image.record.id),
        repo_tags: (!tags.is_empty()).then_some(tags),
        layers: image.layers.iter().map(|l| blob_name(&l.digest)).collect(),
    }
}

/// What docker read before version 1.10, and others still look at: repositories, their tags, the topmost layer.
fn repositories(images: &[Outgoing]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut all: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for image in images {
        let top = image.layers.last().map(|l| l.digest.hex().to_owned()).unwrap_or_default();
        for tag in &image.tags {
            let of = all.entry(tag.familiar_repository()).or_default();
            of.insert(tag.identifier().to_owned(), top.clone());
        }
    }
    all
}

struct Archive {
    tar: TarWriter<Chunks>,
    blobs: BTreeSet<Digest>,
}

impl Archive {
    fn document(&mut self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        if self.blobs.insert(digest.clone()) {
            self.file(&blob_name(digest), bytes.len() as u64, bytes)?;
        }
        Ok(())
    }

    fn layer(&mut self, blob: &Blob) -> Result<(), Error> {
        if !self.blobs.insert(blob.digest.clone()) {
            return Ok(());
        }
        let stored = blob.archive.reader()?;
        let bytes: Box<dyn Read> =
            if blob.plain.is_some() { Box::new(Plain::new(stored)?) } else { Box::new(stored) };
        let mut hashing = Hashing::new(bytes);
        self.file(&blob_name(&blob.digest), blob.size(), &mut hashing)?;
        let (_, found, _) = hashing.finish();
        if found == blob.digest {
            return Ok(());
        }
        let what = format!("layer {}", blob.digest.short());
        Err(ContentError::WrongDigest { what, expected: blob.digest.clone(), found }.into())
    }

    fn json(&mut self, name: &str, value: &impl Serialize) -> Result<(), Error> {
        let bytes = serde_json::to_vec(value).expect("names and digests are JSON");
        self.file(name, bytes.len() as u64, bytes.as_slice())
    }

    fn file(&mut self, name: &str, size: u64, bytes: impl Read) -> Result<(), Error> {
        Ok(self.tar.append_data(&member(name, Kind::File, size), bytes).map_err(TreeError::Write)?)
    }
}

fn member(name: &str, kind: Kind, size: u64) -> Entry {
    Entry {
        path: name.as_bytes().to_vec(),
        link: Vec::new(),
        kind,
        mode: if kind == Kind::Directory { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        size,
        device: (0, 0),
        xattrs: Vec::new(),
        sparse: None,
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn unreadable(layer: &crate::metadata::LayerRecord, source: io::Error) -> ContentError {
    ContentError::Source { what: format!("layer {}", layer.diff_id.short()), source }
}
