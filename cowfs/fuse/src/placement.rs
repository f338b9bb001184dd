//! Where the serving threads run.
//!
//! A request and its answer cost 7 to 10 us where client and server share a CPU, and several times that where each wakes the other on
//! another CPU, which is more than all the work on it.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fuser::Request;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// How threads are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Threads run on the CPU of the client that was seen last.
    pub follow: bool,
    /// Requests between two looks at the client.
    pub every: u64,
    /// How long a thread looks for the next request before it sleeps.
    pub poll: Duration,
}

impl Default for Placement {
    fn default() -> Self {
        Self { follow: false, every: 16, poll: Duration::ZERO }
    }
}

impl Placement {
    /// Reads `follow+every16+poll30`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut placement = Self::default();
        for word in text.split('+').filter(|w| !w.is_empty()) {
            match word {
                "off" => {}
                "follow" => placement.follow = true,
                _ => match (word.strip_prefix("every"), word.strip_prefix("poll")) {
                    (Some(n), _) => placement.every = n.parse().ok().filter(|n| *n > 0)?,
                    (_, Some(us)) => placement.poll = Duration::from_micros(us.parse().ok()?),
                    _ => return None,
                },
            }
        }
        Some(placement)
    }
}

/// The serving threads.
#[derive(Debug)]
pub struct Crew {
    placement: Placement,
    device: OnceLock<OwnedFd>,
    allowed: CpuSet,
    requests: AtomicU64,
    /// The CPU to run on, or [`ANYWHERE`].
    target: AtomicUsize,
}

const ANYWHERE: usize = usize::MAX;

thread_local! {
    static APPLIED: Cell<usize> = const { Cell::new(ANYWHERE) };
}

/// A thread's work on one request, until after its answer.
#[derive(Debug)]
pub struct Turn<'a> {
    crew: &'a Crew,
    client: u32,
}

impl Crew {
    /// Threads placed as said.
    pub fn new(placement: Placement) -> Self {
        Self {
            placement,
            device: OnceLock::new(),
            allowed: sched_getaffinity(Pid::from_raw(0)).unwrap_or_default(),
            requests: AtomicU64::new(0),
            target: AtomicUsize::new(ANYWHERE),
        }
    }

    /// The connection, for those who look before they sleep.
    pub fn watch(&self, device: OwnedFd) {
        let _ = self.device.set(device);
    }

    /// Begins a request that is over soon.
    pub fn turn(&self, req: &Request) -> Turn<'_> {
        Turn { crew: self, client: req.pid() }
    }

    /// Begins a request that may wait for a disk.
    pub fn long_turn(&self, req: &Request) -> Turn<'_> {
        self.turn(req)
    }

    fn answered(&self, client: u32) {
        if self.placement.follow {
            if self.requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.placement.every)
                && let Some(cpu) = cpu_of(client)
                && self.allowed.is_set(cpu).unwrap_or(false)
            {
                self.target.store(cpu, Ordering::Relaxed);
            }
            go_to(self.target.load(Ordering::Relaxed));
        }
        if !self.placement.poll.is_zero() {
            self.look();
        }
    }

    fn look(&self) {
        let Some(device) = self.device.get() else { return };
        let begun = Instant::now();
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            let mut fds = [rustix::event::PollFd::new(device, rustix::event::PollFlags::IN)];
            if rustix::event::poll(&mut fds, Some(&now)) != Ok(0) {
                return;
            }
            if begun.elapsed() > self.placement.poll {
                return;
            }
        }
    }
}

/// Moves this thread to a CPU.
fn go_to(cpu: usize) {
    if cpu == APPLIED.get() {
        return;
    }
    let mut one = CpuSet::new();
    if one.set(cpu).is_ok() && sched_setaffinity(Pid::from_raw(0), &one).is_ok() {
        APPLIED.set(cpu);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.crew.answered(self.client);
    }
}

/// The CPU that a thread is on (proc_pid_stat(5), field 39).
fn cpu_of(thread: u32) -> Option<usize> {
    if thread == 0 {
        return None;
    }
    let stat = std::fs::read(format!("/proc/{thread}/stat")).ok()?;
    let after_name = stat.iter().rposition(|b| *b == b')')?;
    let field = stat[after_name..].split(|b| *b == b' ').nth(37)?;
    std::str::from_utf8(field).ok()?.parse().ok()
}
