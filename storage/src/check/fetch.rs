//! Bytes of a blob from the registries that its images are known in.

use std::io::{Cursor, Read};

use super::Check;
use super::layer::AGAIN;
use crate::digest::Digest;
use crate::reference::Reference;
use crate::registry::{BlobReader, Session};

impl Check<'_> {
    /// Gives `take` the bytes from one registry after another until it is content; the last failure is told.
    pub(super) fn fetched<T>(
        &self,
        images: &[Digest],
        digest: &Digest,
        size: u64,
        manifest: bool,
        mut take: impl FnMut(Box<dyn Read + Send>) -> Result<T, String>,
    ) -> Result<T, String> {
        let mut why = "no registry is known that has it".to_owned();
        let records = images.iter().filter_map(|i| self.contents.images.get(i));
        for name in records.flat_map(|i| &i.repo_digests) {
            let Ok(reference) = Reference::parse(name) else { continue };
            match self.open(&reference, digest, size, manifest).and_then(&mut take) {
                Ok(done) => return Ok(done),
                Err(e) => why = format!("{}: {e}", reference.familiar_repository()),
            }
        }
        Err(format!("{why}; {AGAIN}"))
    }

    pub(super) fn open(
        &self,
        reference: &Reference,
        digest: &Digest,
        size: u64,
        manifest: bool,
    ) -> Result<Box<dyn Read + Send>, String> {
        let access = self.options.access.get(reference.domain()).cloned().unwrap_or_default();
        let session = Session::to_pull(reference, access, self.store.origin()).map_err(|e| e.to_string())?;
        if manifest {
            let answer = self.runtime.block_on(session.manifest(reference, digest.as_str()));
            return Ok(Box::new(Cursor::new(answer.map_err(|e| e.to_string())?)));
        }
        Ok(Box::new(BlobReader::start(session, digest.clone(), size, self.runtime)))
    }
}
