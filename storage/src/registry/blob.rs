//! A blob's body as a blocking reader: the download runs as a task and is resumed by range when the connection is cut.

use std::io::{self, Read};

use reqwest::Response;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::backoff::Backoff;
use super::endpoint::Endpoint;
use super::{RegistryError, Session};
use crate::digest::Digest;

/// Chunks between the download and the unpacking; each is at most some ten kilobytes.
const CHUNKS: usize = 16;
/// Cuts that are survived without progress in between.
const ATTEMPTS: u32 = 5;
/// What counts as progress: a server that gives one byte a connection is given up.
const PROGRESS: u64 = 64 << 10;

type Chunk = Result<bytes::Bytes, RegistryError>;

/// Reads a blob while it arrives.
pub struct BlobReader {
    chunks: mpsc::Receiver<Chunk>,
    current: bytes::Bytes,
    /// What follows an error is no end.
    failed: bool,
}

impl BlobReader {
    /// Starts the download as a task of `runtime`; it ends when the reader is dropped.
    pub fn start(session: Session, digest: Digest, size: u64, runtime: &Handle) -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS);
        runtime.spawn(async move {
            let mut download = Download { session, digest, size, offset: 0, sender };
            if let Err(e) = download.run().await {
                let _ = download.sender.send(Err(e)).await;
            }
        });
        Self { chunks, current: bytes::Bytes::new(), failed: false }
    }
}

struct Download {
    session: Session,
    digest: Digest,
    size: u64,
    /// Bytes that the reader has been given.
    offset: u64,
    sender: mpsc::Sender<Chunk>,
}

/// How one connection ended.
enum End {
    /// There is no more to do: all is there, or nobody wants more.
    Done,
    /// The body ended in order, but early.
    Short,
    /// The connection broke.
    Cut(RegistryError),
}

impl Download {
    /// Ends early without an error when the server says that there is no more: the reader knows the size.
    async fn run(&mut self) -> Result<(), RegistryError> {
        let mut backoff = Backoff::new(ATTEMPTS);
        let mut shorts = 0;
        loop {
            let before = self.offset;
            // Whoever is asked has asked again itself: what comes here stays.
            let body = self.session.body(&self.digest, self.offset).await?;
            let endpoint = body.endpoint;
            let end = self.take(body.response, body.start, &endpoint).await;
            if self.offset - before >= PROGRESS {
                (backoff, shorts) = (Backoff::new(ATTEMPTS), 0);
            }
            let cut = match end {
                End::Done => return Ok(()),
                End::Short if shorts > 0 && !endpoint.mirror => return Ok(()),
                End::Short => {
                    shorts += 1;
                    endpoint.unreachable("it ends before the blob does")
                }
                End::Cut(e) => e,
            };
            if endpoint.mirror {
                endpoint.give_up(&cut);
                continue;
            }
            let Some(pause) = backoff.next(std::time::Duration::ZERO) else { return Err(cut) };
            tracing::info!(blob = self.digest.short(), offset = self.offset, error = %cut, "the download was cut; going on from there");
            tokio::time::sleep(pause).await;
        }
    }

    /// Hands over what comes, without what the reader has already when it begins before that.
    async fn take(&mut self, mut response: Response, start: u64, endpoint: &Endpoint) -> End {
        let mut skip = self.offset - start;
        loop {
            match response.chunk().await {
                Ok(Some(mut chunk)) => {
                    let known = skip.min(chunk.len() as u64);
                    skip -= known;
                    let _ = chunk.split_to(known as usize);
                    self.offset += chunk.len() as u64;
                    // One byte too many is enough to tell that it is wrong.
                    if self.sender.send(Ok(chunk)).await.is_err() || self.offset > self.size {
                        return End::Done;
                    }
                }
                Ok(None) if self.offset < self.size => return End::Short,
                Ok(None) => return End::Done,
                // All is there: whatever followed was not wanted.
                Err(_) if self.offset == self.size => return End::Done,
                Err(e) => return End::Cut(endpoint.broken(&e)),
            }
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.failed {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the download has failed"));
            }
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(Ok(chunk)) => self.current = chunk,
                Some(Err(e)) => {
                    self.failed = true;
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, e));
                }
            }
        }
        let n = buf.len().min(self.current.len());
        buf[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}
