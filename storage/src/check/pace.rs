//! Reading without getting in the way: a check takes what the disk has to spare, and stops when nobody waits for it.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes at a time.
const CHUNK: usize = 256 << 10;
/// The longest rest after a chunk.
const REST: Duration = Duration::from_millis(50);

/// What all threads of one check share.
pub(super) struct Progress<'a> {
    /// Whether nobody waits for the answer any more.
    pub(super) closed: &'a (dyn Fn() -> bool + Sync),
    /// Bytes read.
    pub(super) bytes: AtomicU64,
}

/// One thread's reading.
pub(super) struct Pace<'a> {
    progress: &'a Progress<'a>,
    buffer: Vec<u8>,
}

impl<'a> Pace<'a> {
    pub(super) fn new(progress: &'a Progress<'a>) -> Self {
        Self { progress, buffer: vec![0; CHUNK] }
    }

    /// Fails when nobody waits any more.
    pub(super) fn go_on(&self) -> io::Result<()> {
        if (self.progress.closed)() { Err(io::Error::other("given up")) } else { Ok(()) }
    }

    /// Passes everything to `take`; answers how much it was. A chunk that the disk was slow to give is followed by a
    /// rest of a third of that time, so that a busy disk serves others first.
    pub(super) fn read_all(&mut self, from: &mut dyn Read, mut take: impl FnMut(&[u8])) -> io::Result<u64> {
        let mut total = 0u64;
        loop {
            self.go_on()?;
            let started = Instant::now();
            let n = match from.read(&mut self.buffer) {
                Ok(0) => return Ok(total),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let took = started.elapsed();
            take(&self.buffer[..n]);
            total += n as u64;
            self.progress.bytes.fetch_add(n as u64, Ordering::Relaxed);
            if took > Duration::from_millis(2) {
                std::thread::sleep((took / 3).min(REST));
            }
        }
    }
}
