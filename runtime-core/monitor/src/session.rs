//! One program and its streams: the container's main program, or one exec session.
//!
//! ```text
//! Held --(client attaches)--> Starting --(runtime call succeeds)--> Running --(reaped)--> Ending --(streams drained)--> Ended
//! ```
//!
//! Invariant: what the program itself wrote before it ended is read completely before its end is told (`owed` counts it); what others
//! that hold its pipes write later is waited for only for a short grace.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use davit_wire::ExecSpec;
use rustix::io::Errno;

use crate::reactor::{Interest, Reactor, Token, Watched};
use crate::ring::Ring;
use crate::stdio::{MonitorEnds, Status};

/// How long after a program's end its streams may stay open in other hands.
pub const GRACE: Duration = Duration::from_millis(200);

/// Input that a program has not read; its client waits above this.
const INPUT_FULL: usize = 64 << 10;

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Waits for a client.
    Held,
    /// Its runtime call is under way (main: created, not started).
    Starting,
    /// The program runs.
    Running,
    /// The program is reaped, its streams are not drained.
    Ending,
    /// Everybody has been told.
    Ended,
}

/// One output stream.
#[derive(Debug)]
pub struct Source {
    /// Pipe or terminal.
    pub fd: Watched,
    /// After the program's end: bytes it had written and we have not read.
    pub owed: usize,
}

/// A program and its streams.
#[derive(Debug)]
pub struct Session {
    /// 0 is the main program.
    pub id: u32,
    /// None for the main program.
    pub exec_id: Option<String>,
    /// It has a terminal.
    pub tty: bool,
    /// Its input ends with its first client's.
    pub stdin_once: bool,
    /// Its process, once known.
    pub pid: i32,
    /// Where it stands.
    pub stage: Stage,
    /// How it ended.
    pub status: Option<Status>,
    /// When it was started; 0 before.
    pub started_ns: i64,
    /// When it was reaped.
    pub finished_ns: i64,
    /// The terminal's size, as last asked for.
    pub size: Option<(u16, u16)>,
    /// What to run, while it is held.
    pub spec: Option<Box<ExecSpec>>,
    /// Output, or the terminal.
    pub stdout: Option<Source>,
    /// Error output.
    pub stderr: Option<Source>,
    /// The last output.
    pub ring: Ring,
    /// A health probe: the beginning of what it has written.
    pub probe: Option<Vec<u8>>,
    /// Streams still open at this time are given up.
    pub grace: Option<Instant>,
    /// The terminal's other side, while the main program runs: an init opens its console only now and then, and with nobody there it
    /// would be over at the first time that nobody has it open.
    terminal: Option<OwnedFd>,
    stdin: Option<Watched>,
    input: Vec<u8>,
    input_sent: usize,
    input_ends: bool,
}

impl Session {
    /// Without any program yet.
    pub fn new(id: u32, exec_id: Option<String>, tty: bool, stdin_once: bool, stage: Stage) -> Self {
        Self {
            id,
            exec_id,
            tty,
            stdin_once,
            pid: 0,
            stage,
            status: None,
            started_ns: 0,
            finished_ns: 0,
            size: None,
            spec: None,
            stdout: None,
            stderr: None,
            ring: Ring::default(),
            probe: None,
            grace: None,
            terminal: None,
            stdin: None,
            input: Vec::new(),
            input_sent: 0,
            input_ends: false,
        }
    }

    /// Takes the program's streams.
    pub fn connect(&mut self, ends: MonitorEnds) {
        let id = self.id;
        let source = |fd, token| Source { fd: Watched::new(fd, token), owed: 0 };
        self.stdout = ends.stdout.map(|fd| source(fd, Token::Stdout(id)));
        self.stderr = ends.stderr.map(|fd| source(fd, Token::Stderr(id)));
        match ends.stdin {
            Some(fd) => {
                self.stdin = Some(Watched::new(fd, Token::Stdin(id)));
                self.flush_input();
            }
            None => self.close_input(),
        }
        self.apply_size();
        self.reopen_terminal();
    }

    /// Keeps the main program's terminal open (TIOCGPTPEER, Linux 4.13); false: it is not to be, or cannot be.
    pub fn reopen_terminal(&mut self) -> bool {
        use rustix::pty::OpenptFlags;
        // The old one may have been hung up: vhangup(2), or the end of a session that it was the terminal of.
        self.terminal = None;
        if !self.tty || self.exec_id.is_some() || self.stage > Stage::Running {
            return false;
        }
        let Some(master) = &self.stdout else { return false };
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        self.terminal = rustix::pty::ioctl_tiocgptpeer(&master.fd, flags).ok();
        self.terminal.is_some()
    }

    /// One of its output streams.
    pub fn source(&mut self, stdout: bool) -> &mut Option<Source> {
        if stdout { &mut self.stdout } else { &mut self.stderr }
    }

    /// Brings its terminal to the size that was asked for.
    pub fn apply_size(&mut self) {
        if let (true, Some((rows, cols)), Some(terminal)) = (self.tty, self.size, &self.stdout) {
            let _ = davit_sys::pty::set_size(&terminal.fd, rows, cols);
        }
    }

    /// Queues input for the program. Before it has streams the bytes wait; after its end they are dropped.
    pub fn give_input(&mut self, data: &[u8]) {
        let open = self.stdin.is_some() || self.stage < Stage::Running;
        if open && !self.input_ends {
            self.input.extend_from_slice(data);
            self.flush_input();
        }
    }

    /// No more input is to come: the pipe is closed when the program has taken the rest; a terminal gets its end-of-file character.
    pub fn end_input(&mut self) {
        if self.tty && !self.input_ends {
            self.input.push(4);
        }
        self.input_ends = true;
        self.flush_input();
    }

    /// Whether clients may send more.
    pub fn takes_input(&self) -> bool {
        self.input.len() - self.input_sent < INPUT_FULL
    }

    /// Writes what the program's input takes.
    pub fn flush_input(&mut self) {
        let Some(stdin) = &self.stdin else { return };
        while self.input_sent < self.input.len() {
            match rustix::io::write(stdin, &self.input[self.input_sent..]) {
                Ok(n) => self.input_sent += n,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                // The program has closed its input, or is gone.
                Err(_) => return self.close_input(),
            }
        }
        if self.input_sent == self.input.len() {
            self.input = Vec::new();
            self.input_sent = 0;
            if self.input_ends {
                self.stdin = None;
            }
        } else if self.input_sent >= INPUT_FULL {
            self.input.drain(..self.input_sent);
            self.input_sent = 0;
        }
    }

    /// Nobody will read input any more.
    pub fn close_input(&mut self) {
        self.stdin = None;
        self.input = Vec::new();
        self.input_sent = 0;
        self.input_ends = true;
    }

    /// The program was reaped.
    pub fn ended(&mut self, status: Status, now_ns: i64) {
        self.status = Some(status);
        self.finished_ns = now_ns;
        self.stage = Stage::Ending;
        self.terminal = None;
        self.close_input();
        for source in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            source.owed = rustix::io::ioctl_fionread(&source.fd).unwrap_or(0) as usize;
        }
        self.grace = Some(Instant::now() + GRACE);
    }

    /// Nothing of what the program wrote is still to be read.
    pub fn is_drained(&self) -> bool {
        let sources = || [&self.stdout, &self.stderr].into_iter().flatten();
        let closed = sources().next().is_none();
        let nothing_owed = sources().all(|s| s.owed == 0);
        closed || (nothing_owed && self.grace.is_some_and(|at| at <= Instant::now()))
    }

    /// Tells epoll what it waits for. `paused`: some client is full.
    pub fn watch(&mut self, reactor: &Reactor, paused: bool) {
        if let Some(stdin) = &mut self.stdin {
            let waits = self.input_sent < self.input.len();
            // A program may close its input without reading it: EPOLLERR tells, and the next write would fail.
            let interest = if waits { Interest::Write } else { Interest::None };
            if stdin.want(reactor, interest).is_err() {
                self.close_input();
            }
        }
        // The main program's streams are silent before its start, and a terminal has no slave open at times.
        let open = self.stage >= Stage::Running;
        for source in [&mut self.stdout, &mut self.stderr] {
            let Some(s) = source else { continue };
            let read = open && (!paused || s.owed > 0);
            let interest = if read { Interest::Read } else { Interest::None };
            if s.fd.want(reactor, interest).is_err() {
                *source = None;
            }
        }
    }

    /// Gives spare memory back.
    pub fn shrink(&mut self) {
        self.input.shrink_to_fit();
    }
}
