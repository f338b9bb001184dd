//! Streams of the contract: progress going out, chunks coming in.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use davit_contracts::storage as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{messages, status};
use crate::error::Error;
use crate::progress::{Event, SharedSink, Sink};

/// Progress as tonic sends it.
pub(super) type ProgressStream =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<pb::Progress, Status>> + Send>>;

/// Bytes as tonic sends them.
pub(super) type ChunkStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<pb::Chunk, Status>> + Send>>;

/// Events on their way; the last ones of a call must find room, so that reports of layers are dropped before.
const EVENTS: usize = 256;
const RESERVED: usize = 128;
/// Chunks of a client on their way to the disk.
const CHUNKS: usize = 4;

struct Channel(mpsc::Sender<Result<pb::Progress, Status>>);

impl Sink for Channel {
    fn send(&self, event: Event) {
        if matches!(event, Event::Layer { .. }) && self.0.capacity() < RESERVED {
            return;
        }
        // Full only when the client reads nothing: it asks again then.
        let _ = self.0.try_send(Ok(messages::progress(event)));
    }

    fn closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// Runs an operation as a task and answers its reports; the operation is given up when the caller goes away.
pub(super) fn run<F, W>(work: W) -> ProgressStream
where
    W: FnOnce(SharedSink) -> F,
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    use tracing::Instrument as _;
    let (sender, receiver) = mpsc::channel(EVENTS);
    let operation = work(Arc::new(Channel(sender.clone())));
    let task = async move {
        tokio::select! {
            result = operation => {
                if let Err(e) = result {
                    let _ = sender.send(Err(status(&e))).await;
                }
            }
            () = sender.closed() => tracing::info!("given up: the caller has gone away"),
        }
    };
    tokio::spawn(task.instrument(tracing::Span::current()));
    Box::pin(ReceiverStream::new(receiver))
}

/// What a client streams, as a blocking reader.
pub(super) struct ChunkReader {
    chunks: mpsc::Receiver<Result<Vec<u8>, Status>>,
    current: Vec<u8>,
    at: usize,
}

impl ChunkReader {
    /// Starts taking messages; `data` picks the bytes out of one.
    pub(super) fn start<M: Send + 'static>(
        mut stream: Streaming<M>,
        data: impl Fn(M) -> Option<Vec<u8>> + Send + 'static,
    ) -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS);
        tokio::spawn(async move {
            loop {
                let chunk = match stream.message().await {
                    Ok(None) => return,
                    Ok(Some(message)) => data(message)
                        .ok_or_else(|| Status::invalid_argument("only data may follow the first message")),
                    Err(e) => Err(e),
                };
                let failed = chunk.is_err();
                if sender.send(chunk).await.is_err() || failed {
                    return;
                }
            }
        });
        Self { chunks, current: Vec::new(), at: 0 }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.len() {
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(Ok(chunk)) => (self.current, self.at) = (chunk, 0),
                Some(Err(e)) => {
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, e.message().to_owned()));
                }
            }
        }
        let n = buf.len().min(self.current.len() - self.at);
        buf[..n].copy_from_slice(&self.current[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// Tells work on another thread, when it is dropped, that nobody waits for it any more.
#[derive(Debug, Default)]
pub(super) struct Abandoned(pub(super) Arc<AtomicBool>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
