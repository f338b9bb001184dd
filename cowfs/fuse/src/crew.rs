//! Which of the serving threads waits for the next request.
//!
//! The kernel hands requests in turn to the threads that wait for one, so each would meet the thread that has slept longest: its caches are
//! cold, and it may have to be woken on another CPU. So one thread waits and answers while the others are parked at the end of their
//! last turn; the one that parked last comes back first.
//!
//! ```text
//! waiting for a request ──> turn ──> enough wait? no: waiting again
//!                            │              yes: parked ──> called: waiting again
//!                            └─ takes long: another is called first
//! ```
//! A turn takes long if it is known to (fsync), or if it has not ended after two ticks of a watch, which sleeps while there are no requests.
//! The watch also lets more threads wait when those that do are at work all the time.
//!
//! Invariant: of the threads that have had a turn, `waiting` are not parked and not in a long turn; it is never 0 while one is parked
//! and nothing has ended.

use std::cell::RefCell;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Between two looks of the watch.
const TICK: Duration = Duration::from_millis(2);
/// Ticks without a request after which the watch sleeps.
const IDLE: u64 = 50;
/// Ticks between two looks at how busy threads are.
const WEIGHED: u64 = 16;
/// A sync that took longer has waited for a disk.
const SLOW: Duration = Duration::from_micros(200);
/// Turns of a thread between two readings of its clock.
const READ_CLOCK: u32 = 64;

/// The serving threads of one mount.
#[derive(Debug)]
pub struct Crew {
    state: Mutex<State>,
    /// Wakes the watch.
    request: Condvar,
    /// The most that wait at the same time: one CPU is left for those who ask.
    most: usize,
    /// Whether the last request of those that may wait for a disk did.
    slow: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    wanted: usize,
    parked: Vec<Arc<Seat>>,
    turns: Vec<Running>,
    next: u64,
    tick: u64,
    last_request: u64,
    watch_sleeps: bool,
    /// Processor time of turns since the watch has weighed it.
    worked: Duration,
    ended: bool,
}

/// A turn under way.
#[derive(Debug)]
struct Running {
    id: u64,
    tick: u64,
    long: bool,
}

/// Where a thread is parked.
#[derive(Debug)]
struct Seat {
    thread: Thread,
    called: AtomicBool,
}

/// A thread's work on one request, until after its answer.
#[derive(Debug)]
pub struct Turn<'a> {
    crew: &'a Crew,
    id: u64,
    /// When it began, if it may wait for a disk.
    begun: Option<Instant>,
}

/// What a thread knows of itself from its first turn on.
struct Member {
    crew: Arc<Crew>,
    turns: u32,
    clock: Duration,
}

thread_local! {
    static MEMBER: RefCell<Option<Member>> = const { RefCell::new(None) };
}

impl Drop for Member {
    fn drop(&mut self) {
        // A thread ends when the mount has: those that are parked have to see it too.
        self.crew.end();
    }
}

impl Crew {
    /// A crew with its watch.
    pub fn new() -> std::io::Result<Arc<Self>> {
        let cpus = thread::available_parallelism().map_or(1, NonZero::get);
        let crew = Arc::new(Self::of(cpus.saturating_sub(1).max(1)));
        let watched = Arc::clone(&crew);
        thread::Builder::new().name("watch".into()).spawn(move || watched.watch())?;
        Ok(crew)
    }

    fn of(most: usize) -> Self {
        let state = State { wanted: 1, ..State::default() };
        Self { state: Mutex::new(state), request: Condvar::new(), most, slow: AtomicBool::new(false) }
    }

    /// Begins a request that is over soon.
    pub fn turn(self: &Arc<Self>) -> Turn<'_> {
        Turn { crew: self, id: self.begin(false), begun: None }
    }

    /// Begins a request that may wait for a disk. Where the last one did not (a file system in memory), nobody is called for it.
    pub fn long_turn(self: &Arc<Self>) -> Turn<'_> {
        Turn { crew: self, id: self.begin(self.slow.load(Ordering::Relaxed)), begun: Some(Instant::now()) }
    }

    fn begin(self: &Arc<Self>, long: bool) -> u64 {
        let joined = MEMBER.with_borrow_mut(|member| {
            let new = member.is_none();
            member.get_or_insert_with(|| Member { crew: Arc::clone(self), turns: 0, clock: clock() });
            new
        });
        let mut state = self.state();
        state.waiting += usize::from(joined);
        state.last_request = state.tick;
        let id = state.next;
        state.next += 1;
        let tick = state.tick;
        state.turns.push(Running { id, tick, long });
        let called = long.then(|| state.leave()).flatten();
        let wake = std::mem::take(&mut state.watch_sleeps);
        drop(state);
        if wake {
            self.request.notify_one();
        }
        call(called);
        id
    }

    fn finish(&self, id: u64) {
        let worked = MEMBER.with_borrow_mut(|member| member.as_mut().map_or(Duration::ZERO, Member::worked));
        let mut state = self.state();
        state.worked += worked;
        if let Some(at) = state.turns.iter().position(|t| t.id == id) {
            let turn = state.turns.swap_remove(at);
            state.waiting += usize::from(turn.long);
        }
        if state.waiting <= state.wanted || state.ended {
            return;
        }
        state.waiting -= 1;
        let seat = Arc::new(Seat { thread: thread::current(), called: AtomicBool::new(false) });
        state.parked.push(Arc::clone(&seat));
        drop(state);
        while !seat.called.load(Ordering::Acquire) {
            thread::park();
        }
    }

    /// Lets all go back to the kernel, which tells them that the mount has ended.
    fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        let parked = std::mem::take(&mut state.parked);
        drop(state);
        self.request.notify_one();
        call(parked);
    }

    fn watch(&self) {
        let mut weighed = Instant::now();
        loop {
            let mut state = self.state();
            if state.ended {
                return;
            }
            if state.turns.is_empty() && state.tick - state.last_request > IDLE {
                state.watch_sleeps = true;
                while state.watch_sleeps && !state.ended {
                    state = self.request.wait(state).expect("no holder panics");
                }
                state.worked = Duration::ZERO;
                weighed = Instant::now();
            }
            let mut called = state.look_for_long_turns();
            if state.tick.is_multiple_of(WEIGHED) {
                called.extend(state.weigh(weighed.elapsed(), self.most));
                weighed = Instant::now();
            }
            drop(state);
            call(called);
            thread::sleep(TICK);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl State {
    /// The calling thread waits no more. Answers who waits instead.
    fn leave(&mut self) -> Option<Arc<Seat>> {
        self.waiting -= 1;
        self.fill()
    }

    /// Somebody who is to wait, if too few do.
    fn fill(&mut self) -> Option<Arc<Seat>> {
        let seat = if self.waiting < self.wanted { self.parked.pop() } else { None };
        self.waiting += usize::from(seat.is_some());
        seat
    }

    fn look_for_long_turns(&mut self) -> Vec<Arc<Seat>> {
        self.tick += 1;
        let mut called = Vec::new();
        for at in 0..self.turns.len() {
            if !self.turns[at].long && self.turns[at].tick + 2 <= self.tick {
                self.turns[at].long = true;
                called.extend(self.leave());
            }
        }
        called
    }

    /// One more waits when those that do have hardly slept, one less when fewer could do their work.
    fn weigh(&mut self, time: Duration, most: usize) -> Option<Arc<Seat>> {
        let percent = std::mem::take(&mut self.worked).as_micros() * 100 / time.as_micros().max(1);
        let busy = usize::try_from(percent).unwrap_or(usize::MAX);
        if busy > 85 * self.wanted && self.wanted < most {
            self.wanted += 1;
            return self.fill();
        }
        if self.wanted > 1 && busy < 60 * (self.wanted - 1) {
            self.wanted -= 1;
        }
        None
    }
}

impl Member {
    /// Processor time since the last reading of the clock, which is not read each time.
    fn worked(&mut self) -> Duration {
        self.turns = self.turns.wrapping_add(1);
        if !self.turns.is_multiple_of(READ_CLOCK) {
            return Duration::ZERO;
        }
        let now = clock();
        now.saturating_sub(std::mem::replace(&mut self.clock, now))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(begun) = self.begun {
            self.crew.slow.store(begun.elapsed() > SLOW, Ordering::Relaxed);
        }
        self.crew.finish(self.id);
    }
}

fn clock() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

fn call(seats: impl IntoIterator<Item = Arc<Seat>>) {
    for seat in seats {
        seat.called.store(true, Ordering::Release);
        seat.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::{JoinHandle, ThreadId};

    use super::*;

    type Job = Box<dyn FnOnce() + Send>;

    /// Threads that take jobs as the serving threads take requests.
    struct Kernel {
        jobs: Option<Sender<Job>>,
        threads: Vec<JoinHandle<()>>,
    }

    impl Kernel {
        fn new(crew: &Arc<Crew>) -> Self {
            let (jobs, queue) = channel::<Job>();
            let queue: Arc<Mutex<Receiver<Job>>> = Arc::new(Mutex::new(queue));
            let serve = |crew: Arc<Crew>, queue: Arc<Mutex<Receiver<Job>>>| {
                move || loop {
                    let Ok(job) = queue.lock().unwrap().recv() else { return };
                    let _turn = crew.turn();
                    job();
                }
            };
            let threads =
                (0..4).map(|_| thread::spawn(serve(Arc::clone(crew), Arc::clone(&queue)))).collect();
            Self { jobs: Some(jobs), threads }
        }

        fn ask(&self, job: impl FnOnce() + Send + 'static) {
            self.jobs.as_ref().unwrap().send(Box::new(job)).unwrap();
        }

        /// Has a job done and answers by whom.
        fn served(&self) -> ThreadId {
            let (tell, told) = channel();
            self.ask(move || tell.send(thread::current().id()).unwrap());
            told.recv().unwrap()
        }

        /// Ends as a mount does.
        fn unmount(mut self) {
            self.jobs = None;
            self.threads.drain(..).for_each(|t| t.join().unwrap());
        }
    }

    #[test]
    fn one_thread_serves_a_lone_client_and_all_end_with_the_mount() {
        // Without a watch nobody is called for a turn that the machine makes long.
        let crew = Arc::new(Crew::of(1));
        let kernel = Kernel::new(&crew);
        // All but one have had a turn and are parked.
        while crew.state().parked.len() < 3 {
            kernel.served();
        }
        let first = kernel.served();
        assert!((0..50).all(|_| kernel.served() == first));
        kernel.unmount();
    }

    #[test]
    fn another_thread_takes_over_while_a_turn_lasts() {
        let crew = Crew::new().unwrap();
        let kernel = Kernel::new(&crew);
        while crew.state().parked.len() < 3 {
            kernel.served();
        }
        for _ in 0..3 {
            let (end, ended) = channel::<()>();
            let (tell, told) = channel();
            kernel.ask(move || {
                ended.recv().unwrap();
                tell.send(thread::current().id()).unwrap();
            });
            // Would wait for ever if the thread that is busy were the only one.
            let other = kernel.served();
            end.send(()).unwrap();
            assert_ne!(told.recv().unwrap(), other);
        }
        kernel.unmount();
    }

    #[test]
    fn more_wait_when_those_that_do_are_always_at_work() {
        let mut state = State { waiting: 1, wanted: 1, ..State::default() };
        let second = Duration::from_secs(1);
        let mut after = |milliseconds| {
            state.worked = Duration::from_millis(milliseconds);
            state.weigh(second, 2);
            state.wanted
        };
        assert_eq!([500, 900, 1900, 700, 500].map(&mut after), [1, 2, 2, 2, 1]);
    }
}
