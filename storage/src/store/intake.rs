//! From a stream of stored bytes to a ready layer: one pass that keeps the blob, decompresses, verifies and unpacks.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::compression::{BUFFER, Plain};
use crate::content::{ContentError, Ingest, StagedBlob};
use crate::digest::{Digest, Hashing};
use crate::error::Error;
use crate::failpoint;
use crate::layer::LayerHandle;
use crate::metadata::LayerRecord;
use crate::progress::{Event, Metered, Phase, SharedSink};
use crate::store::Store;
use crate::tarball::TarReader;
use crate::unpack::{Limits, Options, Stats, UnpackError, unpack};

/// Starts the stream of a layer's stored bytes; called on a thread that may block.
pub type Opener = Box<dyn FnOnce() -> Result<Box<dyn Read + Send>, Error> + Send>;

/// A layer to be brought in.
pub struct LayerSource {
    /// What it must unpack to; unknown for an import.
    pub diff_id: Option<Digest>,
    /// Digest and size of its stored bytes, when a manifest names them.
    pub blob: Option<(Digest, u64)>,
    /// Its bytes.
    pub open: Opener,
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
        let tree = self.layers.stage()?;
        let root = davit_sys::beneath::open_root(tree.path()).map_err(|e| unpack_io(&label, e.source))?;
        let options = Options {
            namespace: self.namespace,
            rootless: self.rootless,
            whiteouts: source.whiteouts,
            limits: Limits::default(),
        };
        let expected = Expected { label: &label, blob: source.blob.as_ref() };
        let keep = Keep { source: stored, into: self.content.ingest()?, failed: None };
        let (stats, diff_id, blob) = expected.run(keep, root.as_fd(), &options)?;
        if let Some(wanted) = source.diff_id.filter(|w| *w != diff_id) {
            return Err(Error::WrongDiffId { layer: label, expected: wanted, found: diff_id });
        }
        failpoint::pass("layer.unpacked");
        if stats.skipped > 0 {
            tracing::warn!(skipped = stats.skipped, layer = %label, "entries were left out: device nodes or unknown types");
        }
        tracing::debug!(
            ms = started.elapsed().as_millis(),
            bytes = blob.size,
            entries = stats.entries,
            "unpacked"
        );
        let record = LayerRecord {
            diff_id,
            blob: blob.digest.clone(),
            size: stats.size,
            entries: stats.entries,
            opaque_root: stats.opaque_root,
        };
        sink.send(Event::Layer { id: label, phase: Phase::Done, current: total, total });
        failpoint::pass("layer.ready");
        Ok(self.layers.ready(record, blob, tree))
    }
}

fn unpack_io(label: &str, source: io::Error) -> Error {
    Error::Unpack {
        layer: label.to_owned(),
        source: UnpackError::Io { operation: "open", path: "/".into(), source },
    }
}

struct Expected<'a> {
    label: &'a str,
    blob: Option<&'a (Digest, u64)>,
}

impl Expected<'_> {
    /// Unpacks and verifies. A wrong blob digest outweighs whatever nonsense the wrong bytes led to.
    fn run<R: Read>(
        &self,
        keep: Keep<R>,
        root: std::os::fd::BorrowedFd<'_>,
        options: &Options,
    ) -> Result<(Stats, Digest, StagedBlob), Error> {
        let plain = Plain::new(keep)?;
        let mut tar = TarReader::new(Hashing::new(plain));
        let unpacked = unpack(&mut tar, root, options);
        let mut hashing = tar.into_inner();
        // The diff id covers what follows the archive's end mark, too.
        let drained = match &unpacked {
            Ok(_) => io::copy(&mut hashing, &mut io::sink()).map(drop),
            Err(_) => Ok(()),
        };
        let (plain, diff_id, _) = hashing.finish();
        let mut stored = plain.into_stored();
        let rest = self.rest(&mut stored, unpacked.is_ok());
        let keep = stored.into_inner();
        if let Some(e) = keep.failed {
            let path = keep.into.path().to_path_buf();
            return Err(crate::failure::PathError { operation: "write", path, source: e }.into());
        }
        let blob = keep.into.finish();
        let verified = self.verify(&blob);
        let stats = match unpacked {
            Ok(stats) => stats,
            Err(source) => {
                // Only bytes that have all arrived can be called wrong.
                if rest.is_ok() && matches!(source, UnpackError::Tar(_)) {
                    verified?;
                }
                return Err(Error::Unpack { layer: self.label.to_owned(), source });
            }
        };
        let source_error = |source| ContentError::Source { what: format!("layer {}", self.label), source };
        rest.map_err(source_error)?;
        verified?;
        drained.map_err(source_error)?;
        Ok((stats, diff_id, blob))
    }

    /// Takes the bytes that the decompressor left, so that the blob is whole. After a failure only when there is a
    /// digest to compare with, and never more than it names.
    fn rest(&self, stored: &mut impl Read, unpacked: bool) -> io::Result<()> {
        let bound = match (unpacked, self.blob) {
            (true, _) => u64::MAX,
            (false, Some((_, size))) => *size + 1,
            (false, None) => 0,
        };
        io::copy(&mut stored.take(bound), &mut io::sink()).map(drop)
    }

    fn verify(&self, blob: &StagedBlob) -> Result<(), ContentError> {
        let Some((digest, size)) = self.blob else { return Ok(()) };
        let what = || format!("layer {}", self.label);
        if blob.size != *size {
            return Err(ContentError::WrongSize { what: what(), expected: *size, found: blob.size });
        }
        if blob.digest != *digest {
            let (expected, found) = (digest.clone(), blob.digest.clone());
            return Err(ContentError::WrongDigest { what: what(), expected, found });
        }
        Ok(())
    }
}

/// Writes down what is read through it.
struct Keep<R> {
    source: R,
    into: Ingest,
    /// A full disk is not the source's fault: it is told apart here.
    failed: Option<io::Error>,
}

impl<R: Read> Read for Keep<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = buf.len().min(BUFFER);
        let n = self.source.read(&mut buf[..want])?;
        failpoint::pass("layer.kept");
        if let Err(e) = self.into.write_all(&buf[..n]) {
            let again =
                e.raw_os_error().map_or_else(|| io::Error::from(e.kind()), io::Error::from_raw_os_error);
            self.failed = Some(e);
            return Err(again);
        }
        Ok(n)
    }
}
