//! Sending images to registries.
//!
//! An image that came with a manifest goes out with the very same one, as long as its blobs are here as they came or the
//! registry has them; its digest stays. Otherwise a manifest is made: docker's schema 2, or OCI's when a layer is compressed
//! with zstd, which docker's does not know. Plain layers are compressed with gzip on the way.
//!
//! Order: layers (in parallel), config, manifest. A manifest therefore never names what the registry lacks. The image's
//! layers are leased meanwhile, its config and manifest held in memory, so that a removal takes nothing away.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

use davit_contracts::Kind;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::intake::blocking;
use crate::compression::Compression;
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::LayerHandle;
use crate::metadata::{Addition, ImageRecord, KnownBlob};
use crate::oci::{self, Descriptor, Document, Manifest};
use crate::progress::{Done, Event, Metered, Phase, SharedSink, Stoppable};
use crate::reference::Reference;
use crate::registry::{Access, Session, Upload, Uploaded};
use crate::store::{LayerArchive, Store};

mod manifest;

use manifest::{Outgoing, layer_descriptor, made, media_type_of};

/// Layers on their way at the same time, as many as docker's.
const PARALLEL: usize = 5;
/// Repositories that layers are mounted from: each is a scope of the token.
const SOURCES: usize = 4;
/// Digests that are asked for before a plain layer is compressed once more.
const CANDIDATES: usize = 3;

/// Why an image is not sent.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// A digest cannot be chosen.
    #[error("cannot push {0}: a digest cannot be given to an image")]
    Pinned(String),
    /// No tag of the repository is here.
    #[error("an image does not exist locally with the tag: {0}")]
    NoTags(String),
}

impl PushError {
    /// For the contract.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Pinned(_) => Kind::InvalidArgument,
            Self::NoTags(_) => Kind::NotFound,
        }
    }
}

/// All that an image needs, held.
struct Plan {
    image: ImageRecord,
    layers: Vec<Arc<PlannedLayer>>,
    config: Vec<u8>,
    manifest: Option<(Vec<u8>, Manifest)>,
    _lease: Vec<LayerHandle>,
}

struct PlannedLayer {
    diff_id: Digest,
    archive: LayerArchive,
    known: Vec<KnownBlob>,
}

/// What all layers of a push share.
struct Shipment {
    session: Session,
    /// "host:port/" of the registry.
    registry: String,
    repository: String,
    sources: BTreeSet<String>,
    sink: SharedSink,
}

impl Store {
    /// Sends an image, or with `all_tags` all of its repository.
    #[tracing::instrument(skip_all, fields(image = %reference))]
    pub async fn push(
        self: &Arc<Self>,
        reference: &Reference,
        all_tags: bool,
        access: Access,
        sink: &SharedSink,
    ) -> Result<Vec<Done>, Error> {
        if reference.digest().is_some() {
            return Err(PushError::Pinned(reference.familiar()).into());
        }
        let (store, wanted) = (Arc::clone(self), reference.clone());
        let plans = blocking(move || store.plan_all(&wanted, all_tags)).await?;
        let repository = reference.repository();
        let registry = format!("{}/", reference.domain());
        // Where layers can be mounted from; a token is asked for with all of them.
        let known = plans.iter().flat_map(|(_, p)| &p.layers).flat_map(|l| &l.known);
        let sources: BTreeSet<String> = known
            .filter(|k| k.repository != repository)
            .filter_map(|k| k.repository.strip_prefix(&registry).map(str::to_owned))
            .collect();
        let sources: BTreeSet<String> = sources.into_iter().take(SOURCES).collect();
        let from: Vec<String> = sources.iter().cloned().collect();
        let session = Session::to_push(reference, &from, access, self.origin())?;
        sink.send(Event::Status(format!("The push refers to repository [{repository}]")));
        let shipment = Arc::new(Shipment {
            session,
            registry,
            repository,
            sources,
            sink: Stoppable::new(Arc::clone(sink)),
        });
        let mut all = Vec::new();
        for (tagged, plan) in plans {
            let outgoing = self.ship(&shipment, &plan).await?;
            let tag = tagged.identifier().to_owned();
            let (digest, size) = (Digest::of(&outgoing.bytes), outgoing.bytes.len());
            shipment.session.put_manifest(&tag, &outgoing.media_type, outgoing.bytes).await?;
            let store = Arc::clone(self);
            let (id, name) = (plan.image.id.clone(), format!("{}@{digest}", tagged.repository()));
            blocking(move || store.name_pushed(&id, name)).await?;
            sink.send(Event::Status(format!("{tag}: digest: {digest} size: {size}")));
            let done =
                Done { id: plan.image.id, references: vec![tagged.familiar()], manifest: Some(digest) };
            sink.send(Event::Done(done.clone()));
            all.push(done);
        }
        Ok(all)
    }

    fn plan_all(
        self: &Arc<Self>,
        reference: &Reference,
        all_tags: bool,
    ) -> Result<Vec<(Reference, Plan)>, Error> {
        if !all_tags {
            let image = self.find_image(&reference.familiar())?;
            return Ok(vec![(reference.clone(), self.plan_push(image)?)]);
        }
        let mut plans = Vec::new();
        for (tag, id) in self.metadata.contents()?.tags {
            let tagged = Reference::parse(&tag)?;
            if tagged.digest().is_none()
                && tagged.repository() == reference.repository()
                && let Some(image) = self.metadata.image(&id)?
            {
                plans.push((tagged, self.plan_push(image)?));
            }
        }
        if plans.is_empty() {
            return Err(PushError::NoTags(reference.familiar_repository()).into());
        }
        Ok(plans)
    }

    fn plan_push(self: &Arc<Self>, image: ImageRecord) -> Result<Plan, Error> {
        let lease = self.lease(&image)?;
        let mut layers = Vec::new();
        for handle in &lease {
            let record = handle.record();
            layers.push(Arc::new(PlannedLayer {
                diff_id: record.diff_id.clone(),
                archive: self.layer_archive(record)?,
                known: self.metadata.known(&record.diff_id)?,
            }));
        }
        let config = self.content.read(&image.id, oci::MAX_CONFIG)?;
        crate::content::verify(&config, &image.id, "the config in this store")?;
        let manifest = match &image.manifest {
            None => None,
            Some(digest) => {
                let bytes = self.content.read(digest, oci::MAX_MANIFEST)?;
                crate::content::verify(&bytes, digest, "the manifest in this store")?;
                match Document::parse(&bytes) {
                    Ok(Document::Manifest(m)) if m.layers.len() == layers.len() => Some((bytes, m)),
                    _ => None,
                }
            }
        };
        Ok(Plan { image, layers, config, manifest, _lease: lease })
    }

    /// All of an image but its manifest, which is answered.
    async fn ship(self: &Arc<Self>, shipment: &Arc<Shipment>, plan: &Plan) -> Result<Outgoing, Error> {
        let original = match &plan.manifest {
            Some((bytes, manifest)) if shipment.can_keep(manifest, &plan.layers).await? => {
                Some((bytes, manifest))
            }
            _ => None,
        };
        let mut tasks = JoinSet::new();
        let turns = Arc::new(Semaphore::new(PARALLEL));
        let mut begun = BTreeSet::new();
        for (index, layer) in plan.layers.iter().enumerate() {
            let as_it_is = original.map(|(_, m)| m.layers[index].clone());
            // The same layer twice is sent once.
            if begun.insert(layer.diff_id.clone()) {
                let (shipment, layer, turns) = (Arc::clone(shipment), Arc::clone(layer), Arc::clone(&turns));
                tasks.spawn(async move {
                    let _turn = turns.acquire_owned().await.map_err(|_| Error::Cancelled)?;
                    let sent = shipment.layer(&layer, as_it_is.as_ref()).await?;
                    Ok::<_, Error>((layer.diff_id.clone(), sent))
                });
            }
        }
        let mut sent: BTreeMap<Digest, Descriptor> = BTreeMap::new();
        while let Some(finished) = tasks.join_next().await {
            let (diff_id, descriptor) = finished??;
            sent.insert(diff_id, descriptor);
        }
        let repository = &shipment.repository;
        let seen: Vec<(Digest, KnownBlob)> = sent
            .iter()
            .map(|(diff_id, d)| {
                (
                    diff_id.clone(),
                    KnownBlob { digest: d.digest.clone(), size: d.size, repository: repository.clone() },
                )
            })
            .collect();
        self.learn(seen).await;
        shipment.session.upload_bytes(plan.config.clone(), "config").await?;
        if let Some((bytes, manifest)) = original {
            return Ok(Outgoing { bytes: bytes.clone(), media_type: media_type_of(manifest) });
        }
        let layers = plan.layers.iter().map(|l| sent[&l.diff_id].clone()).collect();
        Ok(made(&plan.image.id, plan.config.len() as u64, layers))
    }

    /// Notes under which digest a repository knows an image now. One that was removed meanwhile stays removed.
    fn name_pushed(&self, id: &Digest, name: String) -> Result<(), Error> {
        let _exclusive = self.exclusive();
        let Some(mut image) = self.metadata.image(id)? else { return Ok(()) };
        if image.repo_digests.contains(&name) {
            return Ok(());
        }
        image.repo_digests.push(name);
        Ok(self.metadata.add(&Addition { images: vec![image], ..Addition::default() })?)
    }
}

impl Shipment {
    /// Whether every blob that a manifest names is here, byte for byte, or in the repository.
    async fn can_keep(&self, manifest: &Manifest, layers: &[Arc<PlannedLayer>]) -> Result<bool, Error> {
        for (named, layer) in manifest.layers.iter().zip(layers) {
            if named.digest != layer.archive.digest && self.session.blob_size(&named.digest).await?.is_none()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Lets the repository have a layer: as the manifest `as_it_is` names it, or as it suits.
    async fn layer(&self, layer: &PlannedLayer, as_it_is: Option<&Descriptor>) -> Result<Descriptor, Error> {
        let label = layer.diff_id.short().to_owned();
        let report = |phase| {
            self.sink.send(Event::Layer { id: label.clone(), phase, current: 0, total: 0 });
        };
        report(Phase::Waiting);
        let stored = (layer.archive.digest.clone(), layer.archive.size);
        let compresses = as_it_is.is_none() && layer.archive.compression == Compression::Plain;
        let candidates: Vec<(Digest, u64)> = match as_it_is {
            Some(named) => vec![(named.digest.clone(), named.size)],
            None if !compresses => vec![stored.clone()],
            // What it became when it was compressed before.
            None => layer.earlier(),
        };
        let describe = |(digest, size): (Digest, u64)| match as_it_is {
            Some(named) => named.clone(),
            None => layer_descriptor(digest, size, layer.archive.compression),
        };
        for candidate in candidates {
            if self.session.blob_size(&candidate.0).await?.is_some() {
                report(Phase::Exists);
                self.tell(&label, "Layer already exists");
                return Ok(describe(candidate));
            }
            if let Some(from) = self.mounted(layer, &candidate.0).await? {
                report(Phase::Done);
                self.tell(&label, &format!("Mounted from {from}"));
                return Ok(describe(candidate));
            }
        }
        let upload = self.upload_of(layer, &label, (!compresses).then_some(stored));
        let Uploaded { digest, size } = self.session.upload(&upload).await?;
        report(Phase::Done);
        self.tell(&label, "Pushed");
        Ok(describe((digest, size)))
    }

    fn tell(&self, label: &str, what: &str) {
        self.sink.send(Event::Status(format!("{label}: {what}")));
    }

    /// The repository that a layer could be mounted from.
    async fn mounted(&self, layer: &PlannedLayer, digest: &Digest) -> Result<Option<String>, Error> {
        for known in layer.known.iter().filter(|k| k.digest == *digest) {
            let from = known.repository.strip_prefix(&self.registry).filter(|f| self.sources.contains(*f));
            if let Some(from) = from
                && known.repository != self.repository
                && self.session.mount(digest, from).await?
            {
                return Ok(Some(from.to_owned()));
            }
        }
        Ok(None)
    }

    /// A layer's bytes as they go out; compressed when it is not said what they are.
    fn upload_of(&self, layer: &PlannedLayer, label: &str, expected: Option<(Digest, u64)>) -> Upload {
        let (archive, sink, id) = (layer.archive.clone(), Arc::clone(&self.sink), label.to_owned());
        let compress = expected.is_none();
        let open = move || -> Result<Box<dyn Read + Send>, Error> {
            let metered =
                Metered::new(archive.reader()?, Arc::clone(&sink), id.clone(), Phase::Pushing, archive.size);
            if !compress {
                return Ok(Box::new(metered));
            }
            Ok(Box::new(flate2::read::GzEncoder::new(metered, flate2::Compression::default())))
        };
        Upload { label: label.to_owned(), expected, open: Arc::new(open) }
    }
}

impl PlannedLayer {
    /// Compressed forms that some repository has had.
    fn earlier(&self) -> Vec<(Digest, u64)> {
        let mut all: Vec<(Digest, u64)> = Vec::new();
        for known in self.known.iter().filter(|k| k.digest != self.archive.digest) {
            if all.len() < CANDIDATES && !all.iter().any(|(d, _)| *d == known.digest) {
                all.push((known.digest.clone(), known.size));
            }
        }
        all
    }
}
