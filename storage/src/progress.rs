//! What a long operation reports while it runs, and how it learns that nobody waits for it any more.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::digest::Digest;

/// One report.
#[derive(Debug, Clone)]
pub enum Event {
    /// A line for a person.
    Status(String),
    /// Where a layer is.
    Layer {
        /// Its short diff id or blob digest, stable during the operation.
        id: String,
        /// What happens to it.
        phase: Phase,
        /// Bytes so far.
        current: u64,
        /// Bytes in all; 0 when unknown.
        total: u64,
    },
    /// An image is there, durably.
    Done(Done),
}

/// A finished image.
#[derive(Debug, Clone)]
pub struct Done {
    /// Its id.
    pub id: Digest,
    /// Familiar references that name it now.
    pub references: Vec<String>,
    /// Its manifest's digest, when it has one.
    pub manifest: Option<Digest>,
}

/// What happens to a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// For its turn.
    Waiting,
    /// Bytes arrive and are unpacked at the same time.
    Downloading,
    /// Bytes come from a local archive.
    Unpacking,
    /// Bytes go to a registry.
    Pushing,
    /// It was there before.
    Exists,
    /// It is ready.
    Done,
}

/// Takes reports; must not block.
pub trait Sink: Send + Sync {
    /// Takes one. Layer reports may be dropped when nobody keeps up.
    fn send(&self, event: Event);
    /// Whether the caller has gone away.
    fn closed(&self) -> bool;
}

/// A sink that many threads report to.
pub type SharedSink = Arc<dyn Sink>;

/// Reports nothing.
pub struct Silent;

impl Sink for Silent {
    fn send(&self, _: Event) {}
    fn closed(&self) -> bool {
        false
    }
}

/// A sink that can be closed by us: the layers of an image are given up when one of them has failed.
pub struct Stoppable {
    inner: SharedSink,
    stopped: AtomicBool,
}

impl Stoppable {
    /// Passes everything on.
    pub fn new(inner: SharedSink) -> Arc<Self> {
        Arc::new(Self { inner, stopped: AtomicBool::new(false) })
    }

    /// Makes those who report stop soon.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl Sink for Stoppable {
    fn send(&self, event: Event) {
        self.inner.send(event);
    }

    fn closed(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.inner.closed()
    }
}

/// Counts what is read and reports it a few times a second; fails when the caller has gone.
pub struct Metered<R> {
    inner: R,
    sink: SharedSink,
    id: String,
    phase: Phase,
    current: u64,
    total: u64,
    last: Instant,
}

impl<R> Metered<R> {
    /// Starts with nothing read.
    pub fn new(inner: R, sink: SharedSink, id: String, phase: Phase, total: u64) -> Self {
        sink.send(Event::Layer { id: id.clone(), phase, current: 0, total });
        Self { inner, sink, id, phase, current: 0, total, last: Instant::now() }
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.current += n as u64;
        if self.sink.closed() {
            return Err(io::Error::other("given up"));
        }
        if self.last.elapsed() > Duration::from_millis(100) {
            self.last = Instant::now();
            let (id, current) = (self.id.clone(), self.current);
            self.sink.send(Event::Layer { id, phase: self.phase, current, total: self.total });
        }
        Ok(n)
    }
}
