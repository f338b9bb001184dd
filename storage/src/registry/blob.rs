//! A blob's body as a blocking reader: the download runs as a task and is resumed by range when the connection is cut.

use std::io::{self, Read};

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{RegistryError, Session};
use crate::digest::Digest;

/// Chunks between the download and the unpacking; each is at most some ten kilobytes.
const CHUNKS: usize = 16;
/// Cuts that are survived without a single byte in between.
const ATTEMPTS: u32 = 4;

type Chunk = Result<bytes::Bytes, RegistryError>;

/// Reads a blob while it arrives.
pub struct BlobReader {
    chunks: mpsc::Receiver<Chunk>,
    current: bytes::Bytes,
}

impl BlobReader {
    /// Starts the download as a task of `runtime`; it ends when the reader is dropped.
    pub fn start(session: Session, digest: Digest, size: u64, runtime: &Handle) -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS);
        runtime.spawn(async move {
            if let Err(e) = download(session, &digest, size, &sender).await {
                let _ = sender.send(Err(e)).await;
            }
        });
        Self { chunks, current: bytes::Bytes::new() }
    }
}

async fn download(
    mut session: Session,
    digest: &Digest,
    size: u64,
    sender: &mpsc::Sender<Chunk>,
) -> Result<(), RegistryError> {
    let mut offset = 0u64;
    let mut failures = 0;
    loop {
        let mut response = match session.blob_response(digest, offset).await {
            Ok(response) => response,
            Err(e @ RegistryError::Unreachable { .. }) if offset > 0 && failures < ATTEMPTS => {
                failures += 1;
                tracing::debug!(error = %e, failures, "trying again");
                tokio::time::sleep(std::time::Duration::from_millis(200 << failures)).await;
                continue;
            }
            Err(e) => return Err(e),
        };
        let cut = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    offset += chunk.len() as u64;
                    failures = 0;
                    if sender.send(Ok(chunk)).await.is_err() || offset > size {
                        return Ok(());
                    }
                }
                Ok(None) => return Ok(()),
                Err(e) => break session.broken(&e),
            }
        };
        failures += 1;
        if failures > ATTEMPTS || offset == 0 {
            return Err(cut);
        }
        tracing::info!(blob = digest.short(), offset, "the download was cut; going on from there");
    }
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(Ok(chunk)) => self.current = chunk,
                Some(Err(e)) => return Err(io::Error::new(io::ErrorKind::ConnectionAborted, e)),
            }
        }
        let n = buf.len().min(self.current.len());
        buf[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}
