//! The queue between the loop and the thread that writes the log.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use super::STUCK;
use super::writer::Writer;
use crate::note::note;

/// A thread that has nothing to write for this long ends.
const LINGER: Duration = Duration::from_millis(100);

/// Of the thread; only what is touched counts, and starting a program (to compress a file) needs the most.
const STACK: usize = 256 << 10;

/// What a record is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// Of standard output.
    pub stdout: bool,
    /// The stream ends here.
    pub end: bool,
    /// A line of our own.
    pub note: bool,
    /// Output was dropped before it; true: up to the end of a line.
    pub gap: Option<bool>,
}

impl Flags {
    fn pack(self) -> u8 {
        let gap = match self.gap {
            None => 0,
            Some(false) => 8,
            Some(true) => 16,
        };
        u8::from(self.stdout) | u8::from(self.end) << 1 | u8::from(self.note) << 2 | gap
    }

    fn unpack(bits: u8) -> Self {
        let gap = match bits & 0x18 {
            0 => None,
            8 => Some(false),
            _ => Some(true),
        };
        Self { stdout: bits & 1 != 0, end: bits & 2 != 0, note: bits & 4 != 0, gap }
    }
}

/// One piece of output.
#[derive(Debug)]
pub struct Record<'a> {
    /// What it is.
    pub flags: Flags,
    /// When it was read.
    pub unix_ns: i64,
    /// Any bytes.
    pub data: &'a [u8],
}

const HEADER: usize = 13;

/// The records of a batch.
pub fn records(mut batch: &[u8]) -> impl Iterator<Item = Record<'_>> {
    std::iter::from_fn(move || {
        let (header, rest) = batch.split_first_chunk::<HEADER>()?;
        let (time, length) = header[1..].split_first_chunk::<8>().expect("13 bytes are 1, 8 and 4");
        let length = u32::from_le_bytes(length.try_into().expect("the last 4 of 13 bytes"));
        let (data, rest) = rest.split_at_checked(length as usize)?;
        batch = rest;
        Some(Record { flags: Flags::unpack(header[0]), unix_ns: i64::from_le_bytes(*time), data })
    })
}

/// What loop and thread share.
#[derive(Debug)]
pub struct Shared {
    state: Mutex<State>,
    work: Condvar,
    bell: OwnedFd,
}

/// The part of it that changes.
#[derive(Debug)]
pub struct State {
    queue: Vec<u8>,
    /// Bytes that the thread has taken and not written.
    taken: usize,
    /// Bytes of the program in `queue` and among `taken`.
    queued_content: u64,
    taken_content: u64,
    /// Here while there is no thread.
    writer: Option<Box<Writer>>,
    /// When the thread last got something done, or was given something to do.
    progress: Instant,
    /// Somebody waits: ring when there is room.
    pub ring: bool,
    dropped: u64,
    why: &'static str,
    /// What of `dropped` the log itself tells of.
    reported: u64,
    abandoned: bool,
}

impl Shared {
    /// Nothing is written yet.
    pub fn new(writer: Writer) -> io::Result<Self> {
        let state = State {
            queue: Vec::new(),
            taken: 0,
            queued_content: 0,
            taken_content: 0,
            writer: Some(Box::new(writer)),
            progress: Instant::now(),
            ring: false,
            dropped: 0,
            why: "",
            reported: 0,
            abandoned: false,
        };
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { state: Mutex::new(state), work: Condvar::new(), bell })
    }

    /// Never held while something is written.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An eventfd.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Empties it.
    pub fn silence(&self) {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    /// Sees to it that what was pushed is written.
    pub fn wake(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let Some(writer) = state.writer.take() else {
            self.work.notify_one();
            return;
        };
        drop(state);
        let shared = Arc::clone(self);
        // The thread takes the writer from here, so that it is not lost when there is no thread.
        let slot = Arc::new(Mutex::new(Some(writer)));
        let theirs = Arc::clone(&slot);
        let thread = std::thread::Builder::new().name("log".into()).stack_size(STACK);
        let started = thread.spawn(move || {
            if let Some(writer) = theirs.lock().unwrap_or_else(PoisonError::into_inner).take() {
                shared.write(writer);
            }
        });
        if let Err(e) = started {
            note(format_args!("cannot start the log's thread: {e}"));
            let mut state = self.lock();
            state.writer = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            state.abandon("there was no thread for it");
            state.abandoned = false;
        }
    }

    /// The thread.
    fn write(&self, mut writer: Box<Writer>) {
        let mut batch = Vec::new();
        loop {
            let mut state = self.lock();
            state.taken = 0;
            state.taken_content = 0;
            state.progress = Instant::now();
            if std::mem::take(&mut state.ring) {
                let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
            }
            while state.queue.is_empty() {
                let waited = self.work.wait_timeout(state, LINGER);
                let (back, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                state = back;
                if timeout.timed_out() && state.queue.is_empty() {
                    writer.shrink();
                    state.writer = Some(writer);
                    state.queue = Vec::new();
                    return;
                }
            }
            batch.clear();
            let state_now = &mut *state;
            std::mem::swap(&mut state_now.queue, &mut batch);
            state_now.taken = batch.len();
            state_now.taken_content = std::mem::take(&mut state_now.queued_content);
            drop(state);
            writer.write(&batch, self);
        }
    }

    /// Something was written.
    pub fn progressed(&self) {
        self.lock().progress = Instant::now();
    }

    /// Bytes of the program were not written.
    pub fn lose(&self, bytes: u64, why: &'static str) {
        self.lock().lose(bytes, why);
    }

    /// What was dropped and is not told in the log yet.
    pub fn unreported(&self) -> (u64, &'static str) {
        let state = self.lock();
        (state.dropped - state.reported, state.why)
    }

    /// It is told now.
    pub fn reported(&self, bytes: u64) {
        self.lock().reported += bytes;
    }
}

impl State {
    /// Bytes that are not written yet.
    pub fn pending(&self) -> usize {
        self.queue.len() + self.taken
    }

    /// Queues a record.
    pub fn push(&mut self, flags: Flags, unix_ns: i64, data: &[u8]) {
        if self.abandoned {
            self.lose(data.len() as u64, self.why);
            return;
        }
        if self.pending() == 0 {
            self.progress = Instant::now();
        }
        self.queue.push(flags.pack());
        self.queue.extend_from_slice(&unix_ns.to_le_bytes());
        self.queue.extend_from_slice(&(data.len() as u32).to_le_bytes());
        self.queue.extend_from_slice(data);
        if !flags.note {
            self.queued_content += data.len() as u64;
        }
    }

    /// Whether the thread gets nothing done.
    pub fn is_stuck(&self) -> bool {
        self.pending() > 0 && self.stuck_in().is_zero()
    }

    /// How long until it counts as stuck unless it gets something done.
    pub fn stuck_in(&self) -> Duration {
        (self.progress + STUCK).saturating_duration_since(Instant::now())
    }

    /// Counts bytes of the program that are not logged.
    pub fn lose(&mut self, bytes: u64, why: &'static str) {
        if bytes > 0 {
            self.dropped += bytes;
            self.why = why;
        }
    }

    /// All that were lost, and why the last ones were.
    pub fn dropped(&self) -> (u64, &'static str) {
        (self.dropped, self.why)
    }

    /// Gives up what is not written, at the very end: what the thread has taken may be written yet, but nobody waits to see it.
    pub fn abandon(&mut self, why: &'static str) {
        self.lose(self.queued_content + self.taken_content, why);
        self.queue = Vec::new();
        (self.queued_content, self.taken_content, self.taken) = (0, 0, 0);
        self.abandoned = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_survive_the_packing() {
        for bits in 0..24 {
            assert_eq!(Flags::unpack(bits).pack(), bits);
        }
    }
}
