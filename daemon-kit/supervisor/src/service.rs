//! One daemon as it is supervised: its binary, its socket, what it stored, and where it stands.
//!
//! ```text
//! stopped -> starting -> running -> stopping -> stopped
//!               \           \
//!                +-> waiting +-> waiting -> starting
//! elsewhere -> starting
//! ```

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use davit_sys::process::ProcessRef;
use rustix::process::{Pid, Signal, kill_process};

use crate::backoff::Backoff;

/// Most descriptors that a daemon may store.
const MOST_STORED: usize = 512;

/// Where a daemon stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not running, and not to be.
    Stopped,
    /// Started; has not said READY=1.
    Starting,
    /// Serves.
    Running,
    /// Was told to end.
    Stopping,
    /// Died; is started again at this time.
    Waiting(Instant),
    /// Served by a process that somebody else started, which is looked after at this time; since when nobody has answered.
    Elsewhere {
        /// That process.
        pid: i32,
        /// When to look again.
        look: Instant,
        /// Since when it has been gone.
        gone: Option<Instant>,
    },
}

impl State {
    /// The word that the control protocol uses.
    pub fn word(self) -> &'static str {
        match self {
            State::Stopped => "stopped",
            State::Starting => "starting",
            State::Running => "running",
            State::Stopping => "stopping",
            State::Waiting(_) => "waiting",
            State::Elsewhere { .. } => "elsewhere",
        }
    }
}

/// A supervised daemon.
#[derive(Debug)]
pub struct Service {
    /// `storaged`, `netd` or `runtimed`.
    pub name: &'static str,
    /// What is executed.
    pub binary: PathBuf,
    /// What was executed before a swap that has not proved itself.
    pub previous: Option<PathBuf>,
    /// Its listening socket, ours for good; none while another process serves it.
    pub listener: Option<UnixListener>,
    /// Descriptors that it stored, with their names.
    pub stored: Vec<(String, OwnedFd)>,
    /// Where it stands.
    pub state: State,
    /// The process, while there is one.
    pub process: Option<ProcessRef>,
    /// When that process was started.
    pub since: Instant,
    /// Starts after the first.
    pub restarts: u32,
    /// Deaths in a row.
    pub backoff: Backoff,
    /// How it ended last and why, for people; empty while all is well.
    pub note: String,
    /// Why the last swap was undone.
    pub swap_failed: Option<String>,
    /// When a daemon that was told to end is killed.
    pub kill_at: Option<Instant>,
    /// Runs in the private network namespace of a rootless instance.
    pub private_net: bool,
}

impl Service {
    /// A daemon that is not running yet.
    pub fn new(name: &'static str, binary: PathBuf, private_net: bool) -> Self {
        Self {
            name,
            binary,
            previous: None,
            listener: None,
            stored: Vec::new(),
            state: State::Stopped,
            process: None,
            since: Instant::now(),
            restarts: 0,
            backoff: Backoff::default(),
            note: String::new(),
            swap_failed: None,
            kill_at: None,
            private_net,
        }
    }

    /// What is handed over at a start: the socket first, then what was stored.
    pub fn fds(&self) -> Vec<(String, BorrowedFd<'_>)> {
        let socket = self.listener.iter().map(|l| (self.name.to_owned(), l.as_fd()));
        socket.chain(self.stored.iter().map(|(n, fd)| (n.clone(), fd.as_fd()))).collect()
    }

    /// Notes a started process.
    pub fn started(&mut self, process: ProcessRef) {
        self.process = Some(process);
        self.since = Instant::now();
        self.state = State::Starting;
    }

    /// Sends a signal to the process, if there is one. It is our unreaped child, so the pid cannot have been recycled.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.process.and_then(|p| Pid::from_raw(p.pid)) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Tells it to end; at `kill_at` it is killed.
    pub fn stop(&mut self, kill_at: Instant) {
        self.kill_at = Some(kill_at);
        if self.process.is_some() {
            self.signal(Signal::TERM);
            self.state = State::Stopping;
        } else {
            self.state = State::Stopped;
        }
    }

    /// Notes that the process is gone, and whether and when another follows.
    pub fn ended(&mut self, how: &str, again: bool) -> Option<Duration> {
        let lived = self.since.elapsed();
        self.process = None;
        how.clone_into(&mut self.note);
        if !again {
            self.state = State::Stopped;
            return None;
        }
        let pause = self.backoff.died(lived);
        self.state = State::Waiting(Instant::now() + pause);
        Some(pause)
    }

    /// Keeps descriptors over the daemon's restarts. Those over the bound are dropped, which closes them.
    pub fn store(&mut self, name: &str, fds: Vec<OwnedFd>) {
        for fd in fds {
            if self.stored.len() < MOST_STORED {
                self.stored.push((name.to_owned(), fd));
            }
        }
    }

    /// Forgets stored descriptors of this name.
    pub fn forget(&mut self, name: &str) {
        self.stored.retain(|(n, _)| n != name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(dir: &tempfile::TempDir) -> Service {
        let listener = Some(UnixListener::bind(dir.path().join("s")).unwrap());
        Service { listener, ..Service::new("netd", "/x".into(), false) }
    }

    #[test]
    fn a_death_leads_to_waiting_and_a_wanted_end_to_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let mut s = service(&dir);
        s.started(ProcessRef { pid: i32::MAX, start_time: 0 });
        assert_eq!(s.state.word(), "starting");
        assert_eq!(s.ended("killed by signal 9", true), Some(Duration::ZERO));
        assert_eq!(s.state.word(), "waiting");
        s.started(ProcessRef { pid: i32::MAX, start_time: 0 });
        s.stop(Instant::now());
        assert_eq!(s.state, State::Stopping);
        assert_eq!(s.ended("", false), None);
        assert_eq!(s.state, State::Stopped);
    }

    #[test]
    fn the_socket_comes_before_what_was_stored_and_the_store_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut s = service(&dir);
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        s.store("a", vec![null()]);
        s.store("b", vec![null()]);
        let names: Vec<String> = s.fds().into_iter().map(|(n, _)| n).collect();
        assert_eq!(names, ["netd", "a", "b"]);
        s.forget("a");
        assert_eq!(s.stored.len(), 1);
        s.store("c", (0..MOST_STORED).map(|_| null()).collect());
        assert_eq!(s.stored.len(), MOST_STORED);
    }
}
