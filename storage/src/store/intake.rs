//! From a stream of stored bytes to a ready layer: one pass that keeps the blob, decompresses, verifies and unpacks.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use super::verified::{Archive, Keeping, Pass};
use crate::compression::{self, BUFFER, Compression};
use crate::content::{ContentError, StagedBlob};
use crate::digest::Digest;
use crate::error::Error;
use crate::failpoint;
use crate::failure::{At, PathError};
use crate::layer::{LayerHandle, StagedTree};
use crate::metadata::LayerRecord;
use crate::progress::{Event, Metered, Phase, SharedSink};
use crate::store::Store;
use crate::unpack::{Limits, Options, UnpackError};
use crate::{ledger, recipe};

/// Starts the stream of a layer's stored bytes; called on a thread that may block.
pub type Opener = Box<dyn FnOnce() -> Result<Box<dyn Read + Send>, Error> + Send>;

/// Starts the same stream once more.
pub type Again = Box<dyn Fn() -> Result<Box<dyn Read + Send>, Error> + Send>;

/// A layer to be brought in.
pub struct LayerSource {
    /// What it must unpack to; unknown for an import.
    pub diff_id: Option<Digest>,
    /// Digest and size of its stored bytes, when a manifest names them.
    pub blob: Option<(Digest, u64)>,
    /// Its bytes.
    pub open: Opener,
    /// How to read the same bytes once more, where that is cheap. A plain tar is then not kept: the tree and a recipe give it.
    pub again: Option<Again>,
    /// What reports call the work.
    pub phase: Phase,
    /// What reports call the layer.
    pub label: String,
    /// Whether `.wh.` names are whiteouts.
    pub whiteouts: bool,
}

impl Store {
    /// The layer of a source, unpacked now unless it is there already. At most a few at a time.
    pub async fn bring_in(
        self: &Arc<Self>,
        source: LayerSource,
        sink: SharedSink,
    ) -> Result<LayerHandle, Error> {
        let report = |phase| {
            let id = source.label.clone();
            sink.send(Event::Layer { id, phase, current: 0, total: 0 });
        };
        let _gate = match &source.diff_id {
            Some(diff_id) => {
                let gate = self.layers.gate(diff_id).lock_owned().await;
                if let Some(there) = self.layers.present(&self.metadata, diff_id)? {
                    report(Phase::Exists);
                    return Ok(there);
                }
                Some(gate)
            }
            None => None,
        };
        report(Phase::Waiting);
        let _turn = self.unpacking.acquire().await.map_err(|_| Error::Cancelled)?;
        let store = Arc::clone(self);
        let span = tracing::info_span!("layer", id = %source.label);
        tokio::task::spawn_blocking(move || span.in_scope(|| store.unpack_source(source, &sink))).await?
    }

    fn unpack_source(self: &Arc<Self>, source: LayerSource, sink: &SharedSink) -> Result<LayerHandle, Error> {
        let started = std::time::Instant::now();
        let total = source.blob.as_ref().map_or(0, |b| b.1);
        let label = source.label.clone();
        let stored = Metered::new((source.open)()?, Arc::clone(sink), label.clone(), source.phase, total);
        let mut stored = BufReader::with_capacity(BUFFER, stored);
        let tree = self.layers.stage()?;
        let again = source.again.filter(|_| !self.settings.keep_layer_archives);
        let keeping = match &again {
            Some(_) if compression::of(&mut stored)? == Compression::Plain => {
                Keeping::Recipe(create(&tree.recipe(), recipe::Writer::new)?)
            }
            _ => Keeping::Blob(self.content.ingest()?),
        };
        let mut ledger = create(&tree.ledger(), ledger::Writer::new)?;
        let root = davit_sys::beneath::open_root(&tree.tree()).map_err(|e| unpack_io(&label, e.source))?;
        let options = Options {
            namespace: self.namespace,
            rootless: self.rootless,
            whiteouts: source.whiteouts,
            limits: Limits::default(),
        };
        let pass = Pass {
            label: &label,
            blob: source.blob.as_ref(),
            root: root.as_fd(),
            options: &options,
            writeback: &self.writeback,
        };
        let unpacked = pass.run(stored, keeping, &mut ledger)?;
        if let Some(wanted) = source.diff_id.filter(|w| *w != unpacked.diff_id) {
            return Err(Error::WrongDiffId { layer: label, expected: wanted, found: unpacked.diff_id });
        }
        failpoint::pass("layer.unpacked");
        ledger.finish().at("write", &tree.ledger())?;
        let blob = self.archived(unpacked.archive, again, &tree, &unpacked.diff_id)?;
        let stats = unpacked.stats;
        if stats.skipped > 0 {
            tracing::warn!(skipped = stats.skipped, layer = %label, "entries were left out: device nodes or unknown types");
        }
        tracing::debug!(
            ms = started.elapsed().as_millis(),
            bytes = unpacked.size,
            entries = stats.entries,
            "unpacked"
        );
        let record = LayerRecord {
            blob: blob.as_ref().map_or(&unpacked.diff_id, |b| &b.digest).clone(),
            recipe: blob.is_none(),
            archive_size: unpacked.size,
            diff_id: unpacked.diff_id,
            size: stats.size,
            entries: stats.entries,
            opaque_root: stats.opaque_root,
        };
        sink.send(Event::Layer { id: label, phase: Phase::Done, current: total, total });
        failpoint::pass("layer.ready");
        Ok(self.layers.ready(record, blob, tree))
    }

    /// The layer's blob, unless a recipe makes it superfluous.
    fn archived(
        &self,
        archive: Archive,
        again: Option<Again>,
        tree: &StagedTree,
        diff_id: &Digest,
    ) -> Result<Option<StagedBlob>, Error> {
        match archive {
            Archive::Blob(blob) => Ok(Some(blob)),
            Archive::Recipe(recipe) => {
                recipe.finish().at("write", &tree.recipe())?;
                Ok(None)
            }
            Archive::Neither => {
                let _ = std::fs::remove_file(tree.recipe());
                let again = again.ok_or(Error::Cancelled)?;
                let mut ingest = self.content.ingest()?;
                let path = ingest.path().to_path_buf();
                io::copy(&mut again()?, &mut ingest).at("write", &path)?;
                let blob = ingest.finish();
                if blob.digest == *diff_id {
                    return Ok(Some(blob));
                }
                let (expected, found) = (diff_id.clone(), blob.digest.clone());
                Err(ContentError::WrongDigest {
                    what: "the archive, which has changed".into(),
                    expected,
                    found,
                }
                .into())
            }
        }
    }
}

/// Makes a file of a staged layer.
fn create<T>(path: &Path, start: impl FnOnce(File) -> io::Result<T>) -> Result<T, PathError> {
    File::options().write(true).create_new(true).open(path).and_then(start).at("create", path)
}

fn unpack_io(label: &str, source: io::Error) -> Error {
    Error::Unpack {
        layer: label.to_owned(),
        source: UnpackError::Io { operation: "open", path: "/".into(), source },
    }
}
