//! The main program's log: the loop hands output over, a thread writes it.
//!
//! ```text
//! loop --(records)--> queue --(swap)--> thread: lines -> format -> file (rotated, compressed) or journal
//! ```
//!
//! A file cannot be written without waiting for its disk, so that the loop never does. The thread exists while there is something to write
//! and a moment longer. The program waits behind a full queue as long as the log makes progress, and not at all with a configured
//! buffer; behind a log that makes none for [`STUCK`], or that refuses, output is counted and forgotten, and the log and the exit record say so. Of every
//! line either the whole is in the log or nothing.

mod compress;
mod file;
mod journal;
mod json;
mod lines;
mod local;
mod queue;
mod writer;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use davit_wire::config::LogSink;

pub use compress::run as compress;
use queue::{Flags, Shared};
use writer::Writer;

/// The program waits behind this much output that is not written yet.
const FULL: usize = 256 << 10;

/// A log that gets nothing done for this long is stuck.
const STUCK: Duration = Duration::from_secs(2);

/// Drops are told at most this often.
const TELL: Duration = Duration::from_secs(1);

/// Where the main program's output is recorded.
#[derive(Debug)]
pub struct Log {
    /// None: nowhere.
    shared: Option<Arc<Shared>>,
    limit: usize,
    /// The program never waits.
    non_blocking: bool,
    /// Output was dropped since the last of this stream (standard error, standard output), and whether the end of a line was.
    gaps: [Option<bool>; 2],
    ended: bool,
    told: u64,
    told_at: Option<Instant>,
}

impl Log {
    /// Opens the configured sink; `buffer` above 0: output that does not fit into so many bytes is dropped at once.
    pub fn open(sink: &LogSink, buffer: u64) -> std::io::Result<Self> {
        let shared = Writer::new(sink).map(Shared::new).transpose()?;
        Ok(Self {
            shared: shared.map(Arc::new),
            limit: if buffer > 0 { usize::try_from(buffer).unwrap_or(usize::MAX) } else { FULL },
            non_blocking: buffer > 0,
            gaps: [None; 2],
            ended: false,
            told: 0,
            told_at: None,
        })
    }

    /// Rings when a full log has room again, or has written all.
    pub fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.shared.as_ref().map(|s| s.bell())
    }

    /// The bell was heard.
    pub fn heard(&self) {
        if let Some(shared) = &self.shared {
            shared.silence();
        }
    }

    /// Records output.
    pub fn write(&mut self, stdout: bool, data: &[u8], unix_ns: i64) {
        let Some(shared) = &self.shared else { return };
        let gap = &mut self.gaps[usize::from(stdout)];
        let mut state = shared.lock();
        let over = state.pending() > 0 && state.pending() + data.len() > self.limit;
        // What is read although the log is full is what the program had written before its end.
        if over && (self.non_blocking || state.is_stuck()) {
            let why = if self.non_blocking { "its buffer was full" } else { "its disk was too slow" };
            state.lose(data.len() as u64, why);
            *gap = Some(data.last() == Some(&b'\n'));
            return;
        }
        state.push(Flags { stdout, gap: gap.take(), ..Flags::default() }, unix_ns, data);
        shared.wake(state);
    }

    /// Adds a line of our own.
    pub fn note(&mut self, text: &str, unix_ns: i64) {
        let Some(shared) = &self.shared else { return };
        let mut state = shared.lock();
        state.push(Flags { note: true, ..Flags::default() }, unix_ns, text.as_bytes());
        shared.wake(state);
    }

    /// A stream has ended: what is left of its last line is written.
    pub fn end(&mut self, stdout: bool, unix_ns: i64) {
        let Some(shared) = &self.shared else { return };
        let mut state = shared.lock();
        state.push(Flags { stdout, end: true, ..Flags::default() }, unix_ns, &[]);
        shared.wake(state);
    }

    /// Everything has been handed over: whether it is written. Of a stuck log what waits is given up.
    pub fn finish(&mut self, unix_ns: i64) -> bool {
        if !std::mem::replace(&mut self.ended, true) {
            self.end(true, unix_ns);
            self.end(false, unix_ns);
        }
        let Some(shared) = &self.shared else { return true };
        let mut state = shared.lock();
        if state.is_stuck() {
            state.abandon("its disk was too slow");
        }
        state.ring = state.pending() > 0;
        !state.ring
    }

    /// Whether the program has to wait.
    pub fn is_full(&self) -> bool {
        let Some(shared) = self.shared.as_ref().filter(|_| !self.non_blocking) else { return false };
        let mut state = shared.lock();
        let full = state.pending() >= self.limit && !state.is_stuck();
        state.ring |= full;
        full
    }

    /// How long until somebody who waits for the log waits no more; none: nobody does.
    pub fn patience(&self) -> Option<Duration> {
        let state = self.shared.as_ref()?.lock();
        // Behind a log that is stuck nobody waits.
        (state.ring && state.pending() > 0 && !state.is_stuck()).then(|| state.stuck_in())
    }

    /// All bytes of the program that are not in the log, and why.
    pub fn dropped(&self) -> (u64, &'static str) {
        self.shared.as_ref().map_or((0, ""), |s| s.lock().dropped())
    }

    /// The same where it is time to tell it again.
    pub fn news(&mut self, now: Instant) -> Option<(u64, &'static str)> {
        let (bytes, why) = self.dropped();
        if bytes == self.told || self.told_at.is_some_and(|at| now < at + TELL) {
            return None;
        }
        self.told = bytes;
        self.told_at = Some(now);
        Some((bytes, why))
    }

    /// When there is something to tell, if there is.
    pub fn news_in(&self, now: Instant) -> Option<Duration> {
        let at = self.told_at.filter(|_| self.dropped().0 != self.told)?;
        Some((at + TELL).saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests;
