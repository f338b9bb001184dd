//! One pass over a layer's stored bytes: keep them or a recipe, decompress, verify, unpack.

use std::io::{self, BufReader, Read, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::writeback::{Paced, Writeback};
use crate::compression::{BUFFER, Plain};
use crate::content::{ContentError, Ingest, StagedBlob};
use crate::digest::{Digest, Hashing};
use crate::error::Error;
use crate::failure::PathError;
use crate::ledger::Recorder;
use crate::recipe::{self, Tape};
use crate::tarball::TarReader;
use crate::unpack::{Options, Stats, UnpackError, unpack};

/// What a layer turned out to be.
pub(super) struct Unpacked {
    pub(super) stats: Stats,
    pub(super) diff_id: Digest,
    pub(super) archive: Archive,
    /// Bytes of the archive as it came.
    pub(super) size: u64,
}

/// What can give the layer's archive again.
pub(super) enum Archive {
    Blob(StagedBlob),
    Recipe(recipe::Writer),
    /// The tar has no faithful recipe: its bytes must be read once more to be kept.
    Neither,
}

/// How the bytes are to be kept.
pub(super) enum Keeping {
    /// As they are.
    Blob(Ingest),
    /// As a recipe: they are a plain tar.
    Recipe(recipe::Writer),
}

/// Unpacks one layer.
pub(super) struct Pass<'a> {
    /// What errors call it.
    pub(super) label: &'a str,
    /// Digest and size that a manifest names.
    pub(super) blob: Option<&'a (Digest, u64)>,
    pub(super) root: BorrowedFd<'a>,
    pub(super) options: &'a Options,
    pub(super) writeback: &'a Arc<Writeback>,
}

type Stored<R> = Hashing<BufReader<R>>;

impl Pass<'_> {
    /// A wrong blob digest outweighs whatever nonsense the wrong bytes led to.
    pub(super) fn run<R: Read>(
        &self,
        stored: BufReader<R>,
        keeping: Keeping,
        recorder: &mut dyn Recorder,
    ) -> Result<Unpacked, Error> {
        match keeping {
            Keeping::Blob(into) => {
                let plain = Plain::new(Keep { source: stored, into, failed: None })?;
                let (unpacked, diff_id, plain, _) = self.unpack(plain, None, recorder);
                let mut rest = plain.into_stored();
                let drained = self.rest(&mut rest, unpacked.is_ok());
                let keep = rest.into_inner();
                if let Some(source) = keep.failed {
                    let path = keep.into.path().to_path_buf();
                    return Err(PathError { operation: "write", path, source }.into());
                }
                let blob = keep.into.finish();
                let stats = self.judge(unpacked, drained, &blob.digest, blob.size)?;
                let size = blob.size;
                Ok(Unpacked { stats, diff_id, archive: Archive::Blob(blob), size })
            }
            Keeping::Recipe(writer) => {
                let counted: Stored<R> = Hashing::new(stored);
                self.plain(counted, writer, recorder)
            }
        }
    }

    /// A plain tar: its own digest is the diff id, so that it is hashed once.
    fn plain<R: Read>(
        &self,
        stored: Stored<R>,
        writer: recipe::Writer,
        recorder: &mut dyn Recorder,
    ) -> Result<Unpacked, Error> {
        let mut tar = TarReader::new(Tape::new(Paced::new(stored, self.writeback), Some(writer)));
        let unpacked = unpack(&mut tar, self.root, self.options, recorder);
        let mut tape = tar.into_inner();
        let drained = self.rest(&mut tape, unpacked.is_ok());
        let (paced, recipe) = tape.finish();
        let (_, diff_id, size) = paced.into_inner().finish();
        let stats = self.judge(unpacked, drained, &diff_id, size)?;
        let recipe =
            recipe.map_err(|source| PathError { operation: "write", path: "recipe".into(), source })?;
        let archive = recipe.map_or(Archive::Neither, Archive::Recipe);
        Ok(Unpacked { stats, diff_id, archive, size })
    }

    #[allow(clippy::type_complexity)] // private, and each part is used once
    fn unpack<R: Read>(
        &self,
        plain: R,
        writer: Option<recipe::Writer>,
        recorder: &mut dyn Recorder,
    ) -> (Result<Stats, UnpackError>, Digest, R, io::Result<Option<recipe::Writer>>) {
        let hashed = Hashing::new(plain);
        let mut tar = TarReader::new(Tape::new(Paced::new(hashed, self.writeback), writer));
        let mut unpacked = unpack(&mut tar, self.root, self.options, recorder);
        let mut tape = tar.into_inner();
        // The diff id covers what follows the archive's end mark, too.
        if unpacked.is_ok()
            && let Err(e) = io::copy(&mut tape, &mut io::sink())
        {
            unpacked = Err(crate::tarball::TarError::Read(e).into());
        }
        let (paced, recipe) = tape.finish();
        let (plain, diff_id, _) = paced.into_inner().finish();
        (unpacked, diff_id, plain, recipe)
    }

    fn judge(
        &self,
        unpacked: Result<Stats, UnpackError>,
        drained: io::Result<()>,
        digest: &Digest,
        size: u64,
    ) -> Result<Stats, Error> {
        let verified = self.verify(digest, size);
        let source_error = |source| ContentError::Source { what: format!("layer {}", self.label), source };
        match unpacked {
            Ok(stats) => {
                drained.map_err(source_error)?;
                verified?;
                Ok(stats)
            }
            Err(source) => {
                // Only bytes that have all arrived can be called wrong.
                if drained.is_ok() && matches!(source, UnpackError::Tar(_)) {
                    verified?;
                }
                Err(Error::Unpack { layer: self.label.to_owned(), source })
            }
        }
    }

    /// Takes the bytes that nobody has taken, so that the blob is whole. After a failure only when there is a digest to compare
    /// with, and never more than it names.
    fn rest(&self, stored: &mut impl Read, unpacked: bool) -> io::Result<()> {
        let bound = match (unpacked, self.blob) {
            (true, _) => u64::MAX,
            (false, Some((_, size))) => *size + 1,
            (false, None) => 0,
        };
        io::copy(&mut stored.take(bound), &mut io::sink()).map(drop)
    }

    fn verify(&self, found: &Digest, size: u64) -> Result<(), ContentError> {
        let Some((digest, expected)) = self.blob else { return Ok(()) };
        let what = || format!("layer {}", self.label);
        if size != *expected {
            return Err(ContentError::WrongSize { what: what(), expected: *expected, found: size });
        }
        if found != digest {
            let (expected, found) = (digest.clone(), found.clone());
            return Err(ContentError::WrongDigest { what: what(), expected, found });
        }
        Ok(())
    }
}

/// Writes down what is read through it.
pub(super) struct Keep<R> {
    source: R,
    into: Ingest,
    /// A full disk is not the source's fault: it is told apart here.
    failed: Option<io::Error>,
}

impl<R: Read> Read for Keep<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = buf.len().min(BUFFER);
        let n = self.source.read(&mut buf[..want])?;
        if let Err(e) = self.into.write_all(&buf[..n]) {
            let again =
                e.raw_os_error().map_or_else(|| io::Error::from(e.kind()), io::Error::from_raw_os_error);
            self.failed = Some(e);
            return Err(again);
        }
        Ok(n)
    }
}
