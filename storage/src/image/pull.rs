//! Fetching images from registries: the manifest for the platform, its config, and the layers that are not there.

use std::sync::Arc;

use super::intake::{blocking, record_of};
use crate::content::ContentError;
use crate::digest::Digest;
use crate::error::Error;
use crate::failpoint;
use crate::metadata::KnownBlob;
use crate::oci::{self, Document, DocumentError, ImageFile, Manifest, Platform};
use crate::progress::{Done, Event, Phase, SharedSink};
use crate::reference::Reference;
use crate::registry::{Access, BlobReader, Origin, Session};
use crate::store::{LayerSource, NewImage, Store};

/// Indexes that name indexes; more is a circle.
const DEPTH: usize = 4;

/// What a registry was found to have.
struct Found {
    /// Of what the reference names, be it an index.
    top: Digest,
    /// As it came.
    bytes: Vec<u8>,
    manifest: Manifest,
    config: Vec<u8>,
    file: ImageFile,
}

impl Store {
    /// Fetches an image from its registry.
    #[tracing::instrument(skip_all, fields(image = %reference))]
    pub async fn pull(
        self: &Arc<Self>,
        reference: &Reference,
        platform: &Platform,
        access: Access,
        sink: &SharedSink,
    ) -> Result<Done, Error> {
        let session = Session::to_pull(reference, access, self.origin())?;
        self.pull_through(&session, reference, platform, sink).await
    }

    /// Fetches all tags of a repository.
    #[tracing::instrument(skip_all, fields(repository = %reference.familiar_repository()))]
    pub async fn pull_all(
        self: &Arc<Self>,
        reference: &Reference,
        platform: &Platform,
        access: Access,
        sink: &SharedSink,
    ) -> Result<Vec<Done>, Error> {
        let session = Session::to_pull(reference, access, self.origin())?;
        let mut done = Vec::new();
        for tag in session.tags(reference).await? {
            let tagged = Reference::parse(&format!("{}:{tag}", reference.repository()))?;
            done.push(self.pull_through(&session, &tagged, platform, sink).await?);
        }
        if done.is_empty() {
            let reference = reference.familiar_repository();
            return Err(crate::registry::RegistryError::NotFound {
                reference,
                says: "it has no tags".into(),
            }
            .into());
        }
        Ok(done)
    }

    /// What registries need to know of our configuration.
    pub(crate) fn origin(&self) -> Origin<'_> {
        Origin { settings: &self.settings, config_dir: &self.config_dir }
    }

    async fn pull_through(
        self: &Arc<Self>,
        session: &Session,
        reference: &Reference,
        platform: &Platform,
        sink: &SharedSink,
    ) -> Result<Done, Error> {
        sink.send(Event::Status(format!(
            "{}: Pulling from {}",
            reference.identifier(),
            short_repository(reference)
        )));
        match self.pull_one(session, reference, platform, sink).await {
            // A mirror's bytes may be wrong; the registry's own decide.
            Err(e) if session.has_mirrors() && blames_the_bytes(&e) => {
                tracing::warn!(error = %e, "a mirror's bytes are wrong; the registry itself is asked");
                self.pull_one(&session.without_mirrors(), reference, platform, sink).await
            }
            other => other,
        }
    }

    async fn pull_one(
        self: &Arc<Self>,
        session: &Session,
        reference: &Reference,
        platform: &Platform,
        sink: &SharedSink,
    ) -> Result<Done, Error> {
        let found = self.find(session, reference, platform).await?;
        let before = self.metadata.tag(&reference.canonical())?;
        let runtime = tokio::runtime::Handle::current();
        let diff_ids = &found.file.rootfs.diff_ids;
        let sources = found.manifest.layers.iter().zip(diff_ids).map(|(layer, diff_id)| {
            let (session, digest, size, runtime) =
                (session.clone(), layer.digest.clone(), layer.size, runtime.clone());
            LayerSource {
                diff_id: Some(diff_id.clone()),
                blob: Some((layer.digest.clone(), layer.size)),
                again: None,
                phase: Phase::Downloading,
                label: layer.digest.short().to_owned(),
                whiteouts: true,
                open: Box::new(move || Ok(Box::new(BlobReader::start(session, digest, size, &runtime)))),
            }
        });
        let layers = self.bring_in_all(sources.collect(), sink).await?;
        let mut record = record_of(&found.config, &found.file);
        record.manifest = Some(Digest::of(&found.bytes));
        // What the tag names, be it an index, is what `docker pull repo@digest` wants to be told.
        record.repo_digests = vec![format!("{}@{}", reference.repository(), found.top)];
        let blobs = vec![self.content.stage_bytes(&found.config)?, self.content.stage_bytes(&found.bytes)?];
        sink.send(Event::Status(format!("Digest: {}", found.top)));
        let news = if before.as_ref() == Some(&record.id) {
            "Image is up to date"
        } else {
            "Downloaded newer image"
        };
        let image = NewImage { record, layers, blobs, tags: vec![reference.canonical()] };
        let mut done = self.finish(vec![image], sink).await?;
        sink.send(Event::Status(format!("Status: {news} for {}", reference.familiar())));
        self.remember(reference, &found).await;
        done.pop().ok_or(Error::Cancelled)
    }

    /// The image that a reference names for a platform. Documents that are here are not fetched.
    async fn find(
        &self,
        session: &Session,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Found, Error> {
        let usable = |source| Error::Document { what: reference.familiar(), source };
        let mut bytes = self.document(session, reference, reference.identifier()).await?;
        let top = Digest::of(&bytes);
        failpoint::pass("pull.manifest");
        let mut depth = 0;
        let manifest = loop {
            match Document::parse(&bytes).map_err(usable)? {
                Document::Manifest(manifest) => break manifest,
                Document::Index(_) if depth == DEPTH => {
                    return Err(usable(DocumentError::NotAnImage("a chain of indexes".into())));
                }
                Document::Index(index) => {
                    depth += 1;
                    let chosen = index.choose(platform).map_err(usable)?;
                    bytes = self.document(session, reference, chosen.digest.as_str()).await?;
                }
            }
        };
        let config = match self.stored(&manifest.config.digest, oci::MAX_CONFIG)? {
            Some(config) => config,
            None => session.config(&manifest.config.digest).await?,
        };
        failpoint::pass("pull.config");
        let file = ImageFile::parse(&config).map_err(usable)?;
        file.check_platform(platform).map_err(usable)?;
        let (named, known) = (manifest.layers.len(), file.rootfs.diff_ids.len());
        if named != known {
            return Err(usable(DocumentError::LayerCount { manifest: named, config: known }));
        }
        Ok(Found { top, bytes, manifest, config, file })
    }

    async fn document(
        &self,
        session: &Session,
        reference: &Reference,
        identifier: &str,
    ) -> Result<Vec<u8>, Error> {
        if let Ok(digest) = Digest::parse(identifier)
            && let Some(bytes) = self.stored(&digest, oci::MAX_MANIFEST)?
        {
            return Ok(bytes);
        }
        session.manifest(reference, identifier).await
    }

    /// A small blob that is here and whole.
    fn stored(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        if self.metadata.blob(digest)?.is_none() {
            return Ok(None);
        }
        // One that was removed or damaged meanwhile is fetched like any other.
        let bytes = self.content.read(digest, limit).ok();
        Ok(bytes.filter(|b| Digest::of(b) == *digest))
    }

    /// Notes where layers are. It only saves work: a failure is no failure of what was done.
    pub(super) async fn learn(self: &Arc<Self>, seen: Vec<(Digest, KnownBlob)>) {
        let store = Arc::clone(self);
        if let Err(e) = blocking(move || Ok(store.metadata.learn(&seen)?)).await {
            tracing::warn!(error = %e, "where the layers are is not remembered");
        }
    }

    /// Notes where the layers are, for later pushes.
    async fn remember(self: &Arc<Self>, reference: &Reference, found: &Found) {
        let layers = found.manifest.layers.iter().zip(&found.file.rootfs.diff_ids);
        let seen: Vec<(Digest, KnownBlob)> = layers
            .map(|(layer, diff_id)| {
                let repository = reference.repository();
                (diff_id.clone(), KnownBlob { digest: layer.digest.clone(), size: layer.size, repository })
            })
            .collect();
        self.learn(seen).await;
    }
}

/// "library/busybox", "team/app": how docker names what it pulls from.
fn short_repository(reference: &Reference) -> String {
    if reference.domain() == crate::reference::DEFAULT_DOMAIN {
        reference.path().to_owned()
    } else {
        reference.familiar_repository()
    }
}

/// Whether what came was wrong, rather than how it came.
fn blames_the_bytes(e: &Error) -> bool {
    matches!(
        e,
        Error::Content(
            ContentError::WrongDigest { .. } | ContentError::WrongSize { .. } | ContentError::TooLarge { .. }
        ) | Error::Document { .. }
            | Error::Compression(_)
            | Error::WrongDiffId { .. }
            | Error::Unpack { .. }
    )
}
