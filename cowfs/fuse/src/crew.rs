//! The serving threads: how many wait for requests, and how they wait.
//!
//! What a request costs is the change from the client to a thread here and back, not the work between: 9 us where both share a CPU, some
//! 50 us where each wakes the other on another CPU that has gone idle. The kernel hands requests in turn to the threads that wait for one, so each further
//! thread is another one to wake up, with colder caches; with a single one, on an idle machine, the client and it chase each other from CPU to CPU. So
//! two wait ([`READERS`]; one where there is one CPU), and the others stand by for when those are in operations that wait for a disk. Whether one will is
//! taken from how long the last ones of its kind took and how much it copies: on what is in memory, calling another thread only costs (a third of a large read).

use std::cell::OnceCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Threads that wait for requests, where there is more than one CPU.
const READERS: usize = 2;

/// How often those who stand by look whether the mount is still there and requests are being read.
const STAND_BY: Duration = Duration::from_secs(10);
/// The same for one of them while an operation is expected to be long: others may wait for that one.
const WATCH: Duration = Duration::from_millis(100);

/// From here on an operation has waited for something.
const LONG: Duration = Duration::from_millis(1);
/// Operations of a kind that have to be shorter before the next is expected to be, too.
const SHORT: usize = 64;
/// Bytes from which on an operation is expected to be long whatever the others were.
const MUCH: u64 = 4 << 20;

/// Operations that may wait for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum May {
    /// Reading much.
    Read,
    /// Copying a file up.
    CopyUp,
    /// fsync(2) and its like.
    Sync,
    /// Changing or copying a range of a file.
    Range,
}

/// The threads of one mount.
#[derive(Debug)]
pub struct Crew {
    device: OwnedFd,
    /// How many wait for requests.
    wanted: usize,
    /// Threads that are not standing by and not in a long operation.
    readers: AtomicUsize,
    /// Operations under way that are expected to be long.
    long: AtomicUsize,
    /// For each kind of operation, how many have to be short before the next is expected to be.
    wary: [AtomicUsize; 4],
    bell: Arc<Bell>,
}

/// Calls those who stand by.
#[derive(Debug, Default)]
struct Bell {
    standing: Mutex<usize>,
    rung: Condvar,
    /// Threads that will ring when they end.
    ringers: AtomicUsize,
}

/// Rings when the thread ends that has it: a thread that waits for requests ends with the connection, and the others are to end then too.
struct AtEnd(Arc<Bell>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        let _standing = self.0.standing.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.rung.notify_all();
    }
}

thread_local! {
    static AT_END: OnceCell<AtEnd> = const { OnceCell::new() };
}

/// A request, until after its answer.
#[derive(Debug)]
pub struct Turn<'a> {
    crew: &'a Crew,
    /// Another thread waits for requests in place of this one.
    replaced: bool,
    may: Option<(May, Instant)>,
}

impl Crew {
    /// `threads` threads that read requests from `device`.
    pub fn new(device: OwnedFd, threads: usize) -> Self {
        let alone = std::thread::available_parallelism().is_ok_and(|n| n.get() == 1);
        Self::waiting(device, threads, if alone { 1 } else { READERS })
    }

    fn waiting(device: OwnedFd, threads: usize, wanted: usize) -> Self {
        let wary = std::array::from_fn(|_| AtomicUsize::new(SHORT));
        Self {
            device,
            wanted,
            readers: AtomicUsize::new(threads),
            long: AtomicUsize::new(0),
            wary,
            bell: Arc::default(),
        }
    }

    /// The connection.
    pub fn device(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// Begins a request.
    pub fn turn(&self) -> Turn<'_> {
        Turn { crew: self, replaced: false, may: None }
    }

    /// Begins a request that may wait for a disk, for so many bytes. Should nobody be left to wait for requests, another thread does.
    pub fn long_turn(&self, may: May, bytes: u64) -> Turn<'_> {
        let replaced = bytes >= MUCH || self.wary[may as usize].load(Ordering::Relaxed) > 0;
        if replaced {
            self.long.fetch_add(1, Ordering::AcqRel);
            self.readers.fetch_sub(1, Ordering::AcqRel);
            let standing = self.bell.standing.lock().unwrap_or_else(PoisonError::into_inner);
            if *standing > 0 {
                self.bell.rung.notify_one();
            }
        }
        Turn { crew: self, replaced, may: Some((may, Instant::now())) }
    }

    /// An operation took so long.
    fn learn(&self, may: May, took: Duration) {
        let wary = &self.wary[may as usize];
        let left = wary.load(Ordering::Relaxed);
        if took >= LONG {
            wary.store(SHORT, Ordering::Relaxed);
        } else if left > 0 {
            wary.store(left - 1, Ordering::Relaxed); // what another thread has stored meanwhile is lost, at worst a long one
        }
    }

    /// Stands by if there are enough without this thread, and one of them rings at the end: one that has never had a request does not.
    fn stand_by(&self) {
        let mut standing = self.bell.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.bell.ringers.load(Ordering::Acquire) < *standing + 2 {
            return;
        }
        let leave = |readers: usize| (readers > self.wanted).then(|| readers - 1);
        if self.readers.fetch_update(Ordering::AcqRel, Ordering::Relaxed, leave).is_err() {
            return;
        }
        *standing += 1;
        while self.readers.load(Ordering::Acquire) > 0 && !is_over(self.device.as_fd()) {
            let most = if self.long.load(Ordering::Acquire) > 0 { WATCH } else { STAND_BY };
            let waited = self.bell.rung.wait_timeout(standing, most).unwrap_or_else(PoisonError::into_inner);
            standing = waited.0;
            if waited.1.timed_out() && is_left_lying(self.device.as_fd()) {
                break; // those who should read are held up by what nobody expected to take long
            }
        }
        *standing -= 1;
        drop(standing);
        self.readers.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let crew = self.crew;
        AT_END.with(|at_end| {
            at_end.get_or_init(|| {
                crew.bell.ringers.fetch_add(1, Ordering::AcqRel);
                AtEnd(Arc::clone(&crew.bell))
            });
        });
        if let Some((may, begun)) = self.may {
            crew.learn(may, begun.elapsed());
        }
        if self.replaced {
            crew.long.fetch_sub(1, Ordering::AcqRel);
            crew.readers.fetch_add(1, Ordering::AcqRel);
        }
        if crew.readers.load(Ordering::Relaxed) > crew.wanted {
            crew.stand_by();
        }
    }
}

fn events(device: BorrowedFd<'_>) -> PollFlags {
    let mut fds = [PollFd::new(&device, PollFlags::IN)];
    match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(_) => fds[0].revents(),
        Err(_) => PollFlags::empty(),
    }
}

/// A request has been waiting for a while.
fn is_left_lying(device: BorrowedFd<'_>) -> bool {
    let ready = || events(device).contains(PollFlags::IN);
    ready() && {
        std::thread::sleep(Duration::from_millis(1));
        ready()
    }
}

/// The kernel has ended the connection.
fn is_over(device: BorrowedFd<'_>) -> bool {
    events(device).intersects(PollFlags::ERR | PollFlags::HUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crew(threads: usize) -> (Arc<Crew>, OwnedFd) {
        let (read, write) = rustix::pipe::pipe().unwrap();
        (Arc::new(Crew::waiting(read, threads, READERS)), write)
    }

    #[test]
    fn threads_beyond_the_readers_stand_by_until_nobody_waits() {
        let (crew, write) = crew(3);
        drop(crew.turn()); // this thread will ring
        let third = std::thread::spawn({
            let crew = Arc::clone(&crew);
            move || drop(crew.turn())
        });
        while crew.readers.load(Ordering::Acquire) != 2 {
            std::thread::yield_now();
        }
        let first = crew.long_turn(May::Sync, 0);
        assert!(!third.is_finished(), "one still waits for requests");
        let second = crew.long_turn(May::Read, 0);
        third.join().unwrap(); // it went back to wait for requests
        // Back from their long operations these two are one too many, so one stands by: until the connection ends.
        drop(write);
        drop((first, second));
    }

    #[test]
    fn who_waits_for_a_long_operation_does_not_hold_up_the_others() {
        let (crew, write) = crew(3);
        drop(crew.turn()); // this thread rings
        let third = std::thread::spawn({
            let crew = Arc::clone(&crew);
            move || drop(crew.turn())
        });
        while crew.readers.load(Ordering::Acquire) != 2 {
            std::thread::yield_now();
        }
        let long = crew.long_turn(May::CopyUp, MUCH);
        // The other reader waits for the same file; a request comes, which nobody reads.
        let begun = Instant::now();
        rustix::io::write(&write, b"request").unwrap();
        third.join().unwrap();
        assert!(begun.elapsed() < STAND_BY / 2);
        drop(write);
        drop(long);
    }

    #[test]
    fn what_has_been_short_for_long_is_expected_to_be() {
        let (crew, _write) = crew(2);
        let mut expected = Vec::new();
        for took in [0, 1, 0].map(|n| n * LONG) {
            crew.learn(May::Sync, took);
            expected.push(crew.long_turn(May::Sync, 0).replaced);
        }
        assert_eq!(expected, [true; 3], "the first ones, and after a long one");
        let short = |may| (0..SHORT).for_each(|_| crew.learn(may, LONG / 2));
        short(May::Sync);
        assert!(!crew.long_turn(May::Sync, MUCH - 1).replaced);
        assert!(crew.long_turn(May::Sync, MUCH).replaced, "so much takes long");
        assert!(crew.long_turn(May::Read, 0).replaced, "another kind");
        crew.learn(May::Sync, LONG);
        assert!(crew.long_turn(May::Sync, 0).replaced);
    }

    #[test]
    fn those_who_stand_by_end_with_the_connection() {
        let (crew, write) = crew(3);
        assert!(!is_over(crew.device.as_fd()));
        let (end, until_the_end) = std::sync::mpsc::channel::<()>();
        let (served, first_served) = std::sync::mpsc::channel();
        let first = std::thread::spawn({
            let crew = Arc::clone(&crew);
            move || {
                drop(crew.turn());
                served.send(()).unwrap();
                until_the_end.recv().unwrap_err();
            }
        });
        first_served.recv().unwrap();
        assert_eq!(crew.readers.load(Ordering::Acquire), 3, "nobody else would wake it");
        let second = std::thread::spawn({
            let crew = Arc::clone(&crew);
            move || drop(crew.turn())
        });
        while crew.readers.load(Ordering::Acquire) != 2 {
            std::thread::yield_now();
        }
        drop((write, end));
        let begun = std::time::Instant::now();
        first.join().unwrap();
        second.join().unwrap();
        assert!(begun.elapsed() < STAND_BY, "it was not called");
    }
}
