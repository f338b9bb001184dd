//! The monitor's state and its loop.
//!
//! Events only change state; [`Monitor::settle`] then brings everything that follows from the state up to date: what epoll waits for, which
//! connections are over, which clients may go on sending.

mod attach;
mod calls;
mod ending;
mod health;
mod requests;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use davit_sys::process::ProcessRef;
use davit_wire::{ExecExit, ExitRecord, Failure, Frame, MonitorConfig, MonitorState, Phase};
use nix::sys::signalfd::SignalFd;

use crate::conn::{Conn, Party};
use crate::health::Checker;
use crate::log::Log;
use crate::oom::OomWatch;
use crate::reactor::{Reactor, Token};
use crate::runtime::{Call, Runtime};
use crate::server::Server;
use crate::session::{Session, Stage};
use crate::startup::{Prepared, StartupError};
use crate::stdio::Status;

pub use calls::Asker;
use calls::Purpose;
use ending::Shutdown;

/// The main program's session.
const MAIN: u32 = 0;

/// Read at most this much at once.
const SCRATCH: usize = 64 << 10;

/// Quiet for this long: buffers are given back.
const QUIET: Duration = Duration::from_millis(300);

/// How often an idle monitor without runtimed looks whether its run directory is still there.
const LOOK: Duration = Duration::from_secs(5);

/// Everything that a monitor knows.
#[derive(Debug)]
pub struct Monitor {
    config: MonitorConfig,
    run_dir: PathBuf,
    this: ProcessRef,
    reactor: Reactor,
    /// None: leaving.
    listener: Option<UnixListener>,
    signals: SignalFd,
    conns: Vec<Conn>,
    conns_made: u32,
    sessions: Vec<Session>,
    sessions_made: u32,
    runtime: Runtime,
    /// Runtime calls under way.
    calls: Vec<(Call, Purpose)>,
    /// Children that ended while a call that may name them was under way.
    orphans: Vec<(i32, Status)>,
    log: Log,
    phase: Phase,
    /// Start was asked for with hold: the first attaching client starts the program.
    hold: bool,
    mounts: Vec<PathBuf>,
    /// Where the root is not a mount of the kernel's own.
    server: Option<Server>,
    /// Why what the program had on its root is not, or not all, there.
    root_failure: Option<String>,
    /// The runtime knows the container.
    created: bool,
    oom: Option<OomWatch>,
    /// Where one is configured.
    health: Option<Checker>,
    /// Somebody sent the program SIGKILL by us.
    struck_down: bool,
    start_failure: Option<Failure>,
    exit: Option<ExitRecord>,
    exec_exits: VecDeque<ExecExit>,
    shutdown: Option<Shutdown>,
    scratch: Vec<u8>,
    /// Buffers may be larger than needed.
    untidy: bool,
}

impl Monitor {
    /// Takes over what startup has made.
    pub fn new(prepared: Prepared) -> Result<Self, StartupError> {
        let failed = |source| StartupError::Process { what: "epoll", source };
        let Prepared { config, run_dir, listener, signals, this, oom } = prepared;
        let reactor = Reactor::new().map_err(failed)?;
        reactor.add_reader(listener.as_fd(), Token::Listener).map_err(failed)?;
        reactor.add_reader(signals.as_fd(), Token::Signals).map_err(failed)?;
        let log = Log::open(&config.log, config.log_buffer).map_err(failed)?;
        log.bell().map_or(Ok(()), |bell| reactor.add_reader(bell, Token::Log)).map_err(failed)?;
        let main = Session::new(MAIN, None, config.tty, config.stdin_once, Stage::Starting);
        Ok(Self {
            runtime: Runtime::new(config.runtime.clone(), &run_dir, &config.container_id, oom),
            log,
            config,
            run_dir,
            this,
            reactor,
            listener: Some(listener),
            signals,
            conns: Vec::new(),
            conns_made: 0,
            sessions: vec![main],
            sessions_made: 1,
            calls: Vec::new(),
            orphans: Vec::new(),
            phase: Phase::Ready,
            hold: false,
            mounts: Vec::new(),
            server: None,
            root_failure: None,
            created: false,
            oom: None,
            health: None,
            struck_down: false,
            start_failure: None,
            exit: None,
            exec_exits: VecDeque::new(),
            shutdown: None,
            scratch: Vec::new(),
            untidy: true,
        })
    }

    /// Serves until it is told to leave, and the last client has its bytes.
    pub fn run(mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        loop {
            self.settle();
            if self.listener.is_none() && self.conns.is_empty() {
                return Ok(());
            }
            self.reactor.wait(self.timeout(), &mut ready)?;
            if ready.is_empty() {
                self.tidy();
            } else {
                self.untidy = true;
            }
            for (token, gone) in ready.drain(..) {
                self.handle(token, gone);
            }
            self.time_passes();
        }
    }

    fn handle(&mut self, token: Token, gone: bool) {
        match token {
            Token::Listener => self.accept(),
            Token::Signals => self.reap(),
            Token::Conn(id) => {
                let mut scratch = self.take_scratch();
                if let Some(conn) = self.conn(id) {
                    conn.flush();
                    conn.receive(&mut scratch, gone);
                }
                self.scratch = scratch;
                self.dispatch(id);
            }
            Token::Stdin(id) => {
                if let Some(session) = self.session(id) {
                    session.flush_input();
                }
            }
            Token::Stdout(id) => self.read_output(id, true),
            Token::Stderr(id) => self.read_output(id, false),
            Token::Log => self.log.heard(),
            Token::Oom => self.tend_oom(true),
            Token::Probe => self.probe_ready(),
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        while let Ok((stream, _)) = listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                self.conns_made += 1;
                self.conns.push(Conn::new(self.conns_made, stream.into()));
            }
        }
    }

    /// Brings everything up to date that follows from the state.
    fn settle(&mut self) {
        self.let_clients_go_on();
        self.remove_conns();
        for conn in &mut self.conns {
            conn.watch(&self.reactor);
        }
        let conns = &self.conns;
        let log_is_full = self.log.is_full();
        self.sessions.retain_mut(|s| {
            s.watch(&self.reactor, attach::is_full(conns, s.id) || (log_is_full && s.id == MAIN));
            s.id == MAIN || s.stage < Stage::Ended || s.stdout.is_some() || s.stderr.is_some()
        });
    }

    /// Clients whose session had too much input: once it has room, their frames are taken up again.
    fn let_clients_go_on(&mut self) {
        loop {
            let sessions = &self.sessions;
            let next = self.conns.iter_mut().find(|c| {
                let Party::Attached { session, .. } = c.party else { return false };
                c.held_back && sessions.iter().find(|s| s.id == session).is_none_or(Session::takes_input)
            });
            let Some(conn) = next else { return };
            conn.held_back = false;
            let id = conn.id;
            self.dispatch(id);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let graces = self.sessions.iter().filter(|s| s.stage == Stage::Ending).filter_map(|s| s.grace);
        let graces = graces.map(|at| at.saturating_duration_since(now));
        let stalls = self.conns.iter().filter(|c| self.may_be_dropped(c)).filter_map(|c| c.stalls_in(now));
        let shutdown = self.shutdown.as_ref().and_then(|s| s.patience(now));
        let quiet = self.untidy.then_some(QUIET);
        let look = self.is_idle_alone().then_some(LOOK);
        let server = self.server.as_ref().and_then(Server::patience);
        let health = self.health.as_ref().and_then(|h| h.patience(now));
        let oom = self.oom.as_ref().and_then(|o| o.patience(now));
        let log = self.log.patience().into_iter().chain(self.log.news_in(now));
        let calls = self.calls.iter().filter_map(|(call, _)| self.runtime.patience(call, now));
        let look = look.into_iter().chain(server).chain(log).chain(health).chain(oom).chain(calls);
        graces.chain(stalls).chain(shutdown).chain(quiet).chain(look).min()
    }

    fn time_passes(&mut self) {
        let now = Instant::now();
        if let Some(server) = &mut self.server {
            server.look();
        }
        let ended: Vec<u32> =
            self.sessions.iter().filter(|s| s.stage == Stage::Ending).map(|s| s.id).collect();
        for id in ended {
            self.try_finish(id);
        }
        for (call, _) in &mut self.calls {
            self.runtime.hurry(call, now);
        }
        self.drop_stalled(now);
        self.tell_drops(now);
        self.tend_health(now);
        self.tend_oom(false);
        self.advance_shutdown();
        if self.is_idle_alone() && !self.run_dir.join("monitor.sock").exists() {
            // Nobody can ever ask for anything again.
            self.leave();
        }
    }

    /// No program runs and no runtimed is connected.
    fn is_idle_alone(&self) -> bool {
        let idle = !matches!(self.phase, Phase::Running | Phase::Paused) && self.calls.is_empty();
        idle && self.listener.is_some() && !self.conns.iter().any(|c| matches!(c.party, Party::Control))
    }

    fn tidy(&mut self) {
        if self.untidy {
            self.scratch = Vec::new();
            self.sessions.iter_mut().for_each(Session::shrink);
            davit_sys::resident::release_free_heap();
            self.untidy = false;
        }
    }

    fn tell_drops(&mut self, now: Instant) {
        if let Some((bytes, why)) = self.log.news(now) {
            self.tell_control(davit_wire::Event::LogDropped { bytes, why: why.into() });
        }
    }

    fn take_scratch(&mut self) -> Vec<u8> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(SCRATCH, 0);
        scratch
    }

    fn conn(&mut self, id: u32) -> Option<&mut Conn> {
        self.conns.iter_mut().find(|c| c.id == id)
    }

    fn session(&mut self, id: u32) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|s| s.id == id)
    }

    fn main(&mut self) -> &mut Session {
        // The main session is made first and never removed.
        &mut self.sessions[0]
    }

    fn tell_control(&mut self, event: davit_wire::Event) {
        let frame = Frame::Event(event);
        for conn in self.conns.iter_mut().filter(|c| matches!(c.party, Party::Control)) {
            conn.send(&frame);
        }
    }

    fn state(&self) -> MonitorState {
        let main = &self.sessions[0];
        let (log_dropped_bytes, log_error) = self.log.dropped();
        let running = self.sessions.iter().filter(|s| s.stage < Stage::Ended);
        MonitorState {
            container_id: self.config.container_id.clone(),
            monitor_pid: self.this.pid,
            monitor_start_time: self.this.start_time,
            phase: self.phase,
            pid: main.pid,
            started_unix_ns: if self.phase >= Phase::Running { main.started_ns } else { 0 },
            exit: self.exit.clone(),
            execs: running.filter_map(|s| s.exec_id.clone()).collect(),
            exec_exits: self.exec_exits.iter().cloned().collect(),
            features: vec![davit_wire::FEATURE_UPDATE.to_owned()],
            log_dropped_bytes,
            log_error: log_error.into(),
            health: self.health.as_ref().map(|h| h.health.clone()),
            oom_killed: self.oom.as_ref().is_some_and(OomWatch::struck),
        }
    }
}
