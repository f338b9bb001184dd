//! How images come: pulled (see [`super::pull`]), loaded, imported, or made of the host's programs. Each way plans its layers, lets them be
//! unpacked in parallel, and ends in one commit, after which the images are there.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::archive::{self, ArchiveError, Planned, Source};
use crate::change;
use crate::digest::Digest;
use crate::error::Error;
use crate::failpoint;
use crate::fromhost;
use crate::layer::LayerHandle;
use crate::metadata::ImageRecord;
use crate::oci::{self, HistoryEntry, ImageFile, Platform, RootFs, RunConfig};
use crate::progress::{Done, Event, Phase, SharedSink, Stoppable};
use crate::reference::Reference;
use crate::store::{Again, LayerSource, NewImage, Opener, Store};

/// How long a failed image waits for its other layers to stop. A download that stalls stops later, on its own.
const GIVE_UP: Duration = Duration::from_secs(2);

/// Where the bytes of an archive or a root file system come from.
pub enum Input {
    /// A path of this host.
    Path(PathBuf),
    /// A stream.
    Stream(Box<dyn Read + Send>),
}

/// A root file system to import.
#[derive(Debug, Default)]
pub struct ImportOptions {
    /// A name, or none.
    pub reference: String,
    /// Dockerfile words.
    pub changes: Vec<String>,
    /// For the history.
    pub message: String,
}

impl Store {
    /// Reads all images of an archive. All of them come, or none.
    #[tracing::instrument(skip_all)]
    pub async fn load(
        self: &Arc<Self>,
        input: Input,
        name: &str,
        platform: &Platform,
        sink: &SharedSink,
    ) -> Result<Vec<Done>, Error> {
        let store = Arc::clone(self);
        let name = if name.is_empty() { None } else { Some(Reference::parse(name)?) };
        let platform = platform.clone();
        let (source, planned) = blocking(move || {
            let source = match input {
                Input::Path(path) => Source::open(&path, &store.content)?,
                Input::Stream(stream) => Source::of_stream("the archive".into(), stream, &store.content)?,
            };
            let planned = archive::plan(&source, &platform)?;
            Ok((Arc::new(source), planned))
        })
        .await?;
        if name.is_some() && planned.len() > 1 {
            return Err(ArchiveError::SeveralImages(planned.len()).into());
        }
        failpoint::pass("load.planned");
        let mut images = Vec::new();
        for image in planned {
            images.push(self.load_one(&source, image, name.as_ref(), sink).await?);
        }
        self.finish(images, sink).await
    }

    async fn load_one(
        self: &Arc<Self>,
        source: &Arc<Source>,
        planned: Planned,
        name: Option<&Reference>,
        sink: &SharedSink,
    ) -> Result<NewImage, Error> {
        let sources =
            planned.layers.iter().zip(&planned.file.rootfs.diff_ids).map(|((file, blob), diff_id)| {
                let (source, file) = (Arc::clone(source), file.clone());
                let (source_again, file_again) = (Arc::clone(&source), file.clone());
                LayerSource {
                    diff_id: Some(diff_id.clone()),
                    blob: blob.clone(),
                    again: Some(Box::new(move || {
                        Ok(source_again
                            .open_file(&file_again)?
                            .ok_or_else(|| ArchiveError::Missing(file_again.clone()))?)
                    })),
                    phase: Phase::Unpacking,
                    label: diff_id.short().to_owned(),
                    whiteouts: true,
                    open: Box::new(move || {
                        Ok(source.open_file(&file)?.ok_or(ArchiveError::Missing(file))?)
                    }),
                }
            });
        let layers = self.bring_in_all(sources.collect(), sink).await?;
        let mut record = record_of(&planned.config, &planned.file);
        let mut blobs = vec![self.content.stage_bytes(&planned.config)?];
        if let Some(manifest) = &planned.manifest {
            record.manifest = Some(Digest::of(manifest));
            blobs.push(self.content.stage_bytes(manifest)?);
        }
        let tags = match name {
            Some(name) => vec![name.canonical()],
            None => planned.names.iter().filter_map(|n| usable_name(n, sink)).collect(),
        };
        Ok(NewImage { record, layers, blobs, tags })
    }

    /// Makes an image of a root file system's tar.
    #[tracing::instrument(skip_all)]
    pub async fn import(
        self: &Arc<Self>,
        input: Input,
        options: ImportOptions,
        sink: &SharedSink,
    ) -> Result<Done, Error> {
        let mut config = RunConfig::default();
        change::apply_all(&mut config, &options.changes)?;
        let tags = tags_of(&options.reference)?;
        let (open, again, from): (Opener, Option<Again>, String) = match input {
            Input::Path(path) => {
                let from = path.display().to_string();
                let open = move || {
                    let failed = |source| ArchiveError::Open { path: path.clone(), source };
                    let file = std::fs::File::open(&path).map_err(failed)?;
                    Ok(Box::new(file) as Box<dyn Read + Send>)
                };
                (Box::new(open.clone()), Some(Box::new(open)), from)
            }
            Input::Stream(stream) => (Box::new(move || Ok(stream)), None, "-".into()),
        };
        let message =
            if options.message.is_empty() { format!("Imported from {from}") } else { options.message };
        self.one_layer(open, again, "rootfs", config, tags, String::new(), message, sink).await
    }

    /// Makes an image of programs of this host.
    #[tracing::instrument(skip_all)]
    pub async fn from_host(
        self: &Arc<Self>,
        reference: &str,
        programs: &[String],
        paths: &[String],
        changes: &[String],
        sink: &SharedSink,
    ) -> Result<Done, Error> {
        let tags = tags_of(reference)?;
        // A mistake in a change shows before the work.
        change::apply_all(&mut RunConfig::default(), changes)?;
        let (wanted, taken, store) = (programs.to_vec(), paths.to_vec(), Arc::clone(self));
        sink.send(Event::Status(format!("Collecting {}", programs.join(" "))));
        let (tar, command, digest, size) = blocking(move || {
            let collection = fromhost::collect(&wanted, &taken)?;
            let mut ingest = store.content.ingest()?;
            let path = ingest.path().to_path_buf();
            let written = {
                let mut buffered = std::io::BufWriter::with_capacity(crate::compression::BUFFER, &mut ingest);
                collection.write_tar(&mut buffered).and_then(|()| buffered.flush())
            };
            written.map_err(|source| crate::failure::PathError { operation: "write", path, source })?;
            let (file, scratch, digest, size) = ingest.into_scratch();
            Ok(((file, scratch), collection.command(), digest, size))
        })
        .await?;
        let mut config =
            RunConfig { env: vec![format!("PATH={}", fromhost::PATH)], cmd: command, ..RunConfig::default() };
        change::apply_all(&mut config, changes)?;
        let (file, scratch) = tar;
        let (file, scratch) = (Arc::new(file), Arc::new(scratch));
        let open = move || {
            let scratch = Scratch { file: Arc::clone(&file), at: 0, _deleted: Arc::clone(&scratch) };
            Ok(Box::new(scratch) as Box<dyn Read + Send>)
        };
        let again: Option<Again> = Some(Box::new(open.clone()));
        tracing::debug!(size, diff_id = %digest, "collected");
        let by = format!("davit image from-host {}", programs.join(" "));
        self.one_layer(Box::new(open), again, "host", config, tags, by, String::new(), sink).await
    }

    #[allow(clippy::too_many_arguments)] // the parts of an image
    async fn one_layer(
        self: &Arc<Self>,
        open: Opener,
        again: Option<Again>,
        label: &str,
        config: RunConfig,
        tags: Vec<String>,
        created_by: String,
        comment: String,
        sink: &SharedSink,
    ) -> Result<Done, Error> {
        let source = LayerSource {
            diff_id: None,
            blob: None,
            again,
            phase: Phase::Unpacking,
            label: label.to_owned(),
            whiteouts: false,
            open,
        };
        let layer = self.bring_in(source, Arc::clone(sink)).await?;
        // The same layer may be there already: then this one is thrown away.
        let diff_id = layer.record().diff_id.clone();
        let created = oci::now_rfc3339();
        let file = ImageFile {
            created: created.clone(),
            platform: Platform::host(),
            config,
            rootfs: RootFs { kind: "layers".into(), diff_ids: vec![diff_id] },
            history: vec![HistoryEntry { created, created_by, comment, empty_layer: false }],
            ..ImageFile::default()
        };
        let bytes = serde_json::to_vec(&file).expect("a config of strings is JSON");
        let record = record_of(&bytes, &file);
        let blobs = vec![self.content.stage_bytes(&bytes)?];
        let mut done = self.finish(vec![NewImage { record, layers: vec![layer], blobs, tags }], sink).await?;
        done.pop().ok_or(Error::Cancelled)
    }

    /// All layers, in order; at the first failure the rest is given up.
    pub(super) async fn bring_in_all(
        self: &Arc<Self>,
        sources: Vec<LayerSource>,
        sink: &SharedSink,
    ) -> Result<Vec<LayerHandle>, Error> {
        let stoppable = Stoppable::new(Arc::clone(sink));
        let mut tasks = JoinSet::new();
        let count = sources.len();
        for (index, source) in sources.into_iter().enumerate() {
            let (store, sink) = (Arc::clone(self), Arc::clone(&stoppable));
            tasks.spawn(async move { store.bring_in(source, sink).await.map(|layer| (index, layer)) });
        }
        let mut layers: Vec<Option<LayerHandle>> = vec![None; count];
        while let Some(finished) = tasks.join_next().await {
            match finished.map_err(Error::from).and_then(|r| r) {
                Ok((index, layer)) => layers[index] = Some(layer),
                Err(e) => {
                    // The others are awaited, so that nothing of them is left when the failure is answered.
                    stoppable.stop();
                    let rest = async { while tasks.join_next().await.is_some() {} };
                    let _ = tokio::time::timeout(GIVE_UP, rest).await;
                    return Err(e);
                }
            }
        }
        layers.into_iter().map(|l| l.ok_or(Error::Cancelled)).collect()
    }

    pub(super) async fn finish(
        self: &Arc<Self>,
        images: Vec<NewImage>,
        sink: &SharedSink,
    ) -> Result<Vec<Done>, Error> {
        failpoint::pass("image.whole");
        if sink.closed() {
            return Err(Error::Cancelled);
        }
        let store = Arc::clone(self);
        let images = blocking(move || store.commit(&images).map(|()| images)).await?;
        let mut all = Vec::new();
        for image in &images {
            let done = Done {
                id: image.record.id.clone(),
                references: image.tags.iter().map(|t| crate::image::familiar(t)).collect(),
                manifest: image.record.manifest.clone(),
            };
            tracing::info!(image.id = image.record.id.short(), references = ?done.references, "stored");
            sink.send(Event::Done(done.clone()));
            all.push(done);
        }
        Ok(all)
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work)).await?
}

/// A file of ours that is deleted when the last reader is done.
struct Scratch {
    file: Arc<std::fs::File>,
    at: u64,
    _deleted: Arc<crate::content::TemporaryPath>,
}

impl Read for Scratch {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = std::os::unix::fs::FileExt::read_at(&*self.file, buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

pub(super) fn tags_of(reference: &str) -> Result<Vec<String>, Error> {
    if reference.is_empty() { Ok(Vec::new()) } else { Ok(vec![Reference::parse(reference)?.canonical()]) }
}

/// A name that an archive gives; one that is no reference is told and left out.
fn usable_name(name: &str, sink: &SharedSink) -> Option<String> {
    match Reference::parse(name) {
        Ok(reference) => Some(reference.canonical()),
        Err(e) => {
            sink.send(Event::Status(format!("the archive's name is left out: {e}")));
            None
        }
    }
}

pub(super) fn record_of(config: &[u8], file: &ImageFile) -> ImageRecord {
    ImageRecord {
        id: Digest::of(config),
        manifest: None,
        diff_ids: file.rootfs.diff_ids.clone(),
        repo_digests: Vec::new(),
        created_unix_ns: oci::unix_ns(&file.created),
        platform: file.platform.clone(),
        config: file.config.clone(),
        history: file.history.clone(),
    }
}
