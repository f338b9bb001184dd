//! The three daemons together: starting, deaths, readiness, swap, and the end.

mod elsewhere;

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use davit_layout::Layout;
use rustix::process::Signal;

use crate::log::Log;
use crate::notify::Received;
use crate::place::{self, Place};
use crate::rootless::Space;
use crate::service::{Service, State};

/// Deaths in a row after which a daemon counts as not starting. It is tried further all the same. The pauses before them add up to three
/// seconds, which is longer than a predecessor's drain holds the state directory's lock.
const HOPELESS: u32 = 6;
/// How long daemons may take to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the others wait for runtimed, which may still be talking to them.
const RUNTIMED_FIRST: Duration = Duration::from_secs(5);

/// What is supervised.
#[derive(Debug)]
pub struct Fleet {
    services: Vec<Service>,
    env: Vec<(OsString, OsString)>,
    log: Log,
    null: File,
    notify: UnixDatagram,
    space: Space,
    started: Instant,
    /// When the end was begun.
    ending: Option<Instant>,
    layout: Layout,
    /// Last: the lock is let go when all else is gone.
    place: Place,
}

impl Fleet {
    /// Binds the sockets and starts the daemons, but for those that somebody else has started.
    pub fn new(layout: &Layout, place: Place, log: Log, space: Space) -> Result<Self> {
        let notify = place.notify_socket()?;
        let mut services = Vec::new();
        for name in ["storaged", "netd", "runtimed"] {
            let mut service = Service::new(name, find(name)?, name == "netd");
            let path = layout.socket(name);
            if let Some(pid) = place::server(&path) {
                log.line(format!("{name} is served by process {pid}, which is not ours: left to it"));
                service.state = elsewhere::seen(pid);
            } else {
                service.listener = Some(place.daemon_listener(&path)?);
            }
            services.push(service);
        }
        let null =
            File::options().read(true).write(true).open("/dev/null").context("cannot open /dev/null")?;
        let env = environment(layout, &place);
        let (started, ending, layout) = (Instant::now(), None, layout.clone());
        let mut me = Self { services, env, log, null, notify, space, started, ending, layout, place };
        me.log.line(format!("started, pid {}", std::process::id()));
        for limit in &me.space.limits {
            me.log.line(limit);
        }
        for n in 0..me.services.len() {
            if me.services[n].listener.is_some() {
                me.start(n);
            }
        }
        Ok(me)
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Where the daemons' messages arrive.
    pub fn notify_socket(&self) -> &UnixDatagram {
        &self.notify
    }

    fn start(&mut self, n: usize) {
        let service = &self.services[n];
        let command = davit_sys::service::Service {
            program: service.binary.clone(),
            args: Vec::new(),
            env: self.env.clone(),
            fds: service.fds(),
            output: self.log.fd(),
            null: self.null.as_fd(),
            netns: self.space.netns.as_ref().filter(|_| service.private_net).map(|fd| fd.as_fd()),
        };
        let result = command.spawn();
        let service = &mut self.services[n];
        match result {
            Ok(process) => service.started(process),
            Err(e) => {
                let how = anyhow::Error::from(e);
                service.since = Instant::now();
                self.died(n, &format!("{how:#}"));
            }
        }
    }

    /// A child of ours is gone; `how` says how, as `exit status 1`.
    pub fn child_ended(&mut self, pid: i32, how: &str) {
        let Some(n) = self.services.iter().position(|s| s.process.is_some_and(|p| p.pid == pid)) else {
            return;
        };
        if self.services[n].state == State::Stopping {
            self.log.line(format!("{} ended ({how})", self.services[n].name));
            self.services[n].ended("", false);
            if self.ending.is_none() {
                // It was told to end for the sake of a new start.
                self.services[n].restarts += 1;
                self.start(n);
            }
            return;
        }
        let words = self.log.last_words(self.services[n].name);
        let how = if words.is_empty() { how.to_owned() } else { format!("{how}: {words}") };
        self.died(n, &how);
    }

    fn died(&mut self, n: usize, how: &str) {
        let again = self.ending.is_none();
        let service = &mut self.services[n];
        let name = service.name;
        // A swapped-in binary that never said READY gives way to the one before it.
        let unproven = service.state != State::Running;
        if unproven && let Some(old) = service.previous.take() {
            self.log.line(format!(
                "{name}: {} does not start, going back to {}",
                service.binary.display(),
                old.display()
            ));
            service.binary = old;
            service.swap_failed = Some(how.to_owned());
            service.backoff.reset();
        }
        match service.ended(how, again) {
            Some(pause) => {
                service.restarts += 1;
                self.log.line(format!("{name} died ({how}), starting it again in {} ms", pause.as_millis()));
            }
            None => self.log.line(format!("{name} ended ({how})")),
        }
    }

    /// A daemon said something.
    pub fn notified(&mut self, received: Received) {
        let Some(service) =
            self.services.iter_mut().find(|s| s.process.is_some_and(|p| p.pid == received.pid))
        else {
            return;
        };
        let message = received.message;
        let name = message.fd_name.as_deref().unwrap_or("stored");
        if message.remove {
            service.forget(name);
        }
        if message.store {
            service.store(name, received.fds);
        }
        if message.ready && service.state == State::Starting {
            service.state = State::Running;
            service.previous = None;
            service.note.clear();
        }
    }

    /// Does what is due and gives the time of what is due next.
    pub fn tick(&mut self) -> Option<Instant> {
        let now = Instant::now();
        self.log.keep_bounded();
        for n in 0..self.services.len() {
            if matches!(self.services[n].state, State::Waiting(at) if at <= now) {
                self.start(n);
            }
            if let State::Elsewhere { pid, look, gone } = self.services[n].state
                && look <= now
            {
                self.look_after(n, pid, gone);
            }
        }
        self.press(now);
        self.services
            .iter()
            .filter_map(|s| match s.state {
                State::Waiting(at) | State::Elsewhere { look: at, .. } => Some(at),
                State::Stopping => s.kill_at,
                _ => None,
            })
            .chain(
                self.ending
                    .filter(|_| !self.runtimed_gone())
                    .map(|at| at + RUNTIMED_FIRST)
                    .filter(|at| *at > now),
            )
            .min()
    }

    /// Goes on with ending what was told to end.
    fn press(&mut self, now: Instant) {
        if let Some(since) = self.ending
            && (self.runtimed_gone() || now >= since + RUNTIMED_FIRST)
        {
            for s in &mut self.services {
                if matches!(s.state, State::Starting | State::Running | State::Waiting(_)) {
                    s.stop(since + PATIENCE);
                }
            }
        }
        for s in &mut self.services {
            if s.state == State::Stopping && s.kill_at.is_some_and(|at| at <= now) {
                self.log.line(format!("{} does not end: killing it", s.name));
                s.signal(Signal::KILL);
                s.kill_at = Some(now + PATIENCE);
            }
        }
    }

    fn runtimed_gone(&self) -> bool {
        self.services.iter().all(|s| s.name != "runtimed" || s.process.is_none())
    }

    /// Begins the end: runtimed first, then the other two.
    pub fn end(&mut self) {
        if self.ending.is_some() {
            return;
        }
        let now = Instant::now();
        self.log.line("ending");
        self.ending = Some(now);
        for s in self.services.iter_mut().filter(|s| s.name == "runtimed") {
            s.stop(now + PATIENCE);
        }
    }

    /// Whether the end is reached: no daemon runs.
    pub fn is_over(&self) -> bool {
        self.ending.is_some()
            && self
                .services
                .iter()
                .all(|s| s.process.is_none() && matches!(s.state, State::Stopped | State::Elsewhere { .. }))
    }

    /// Lets go of the namespaces when no container needs them, and says the last word.
    pub fn close(&mut self) {
        self.space.close(&self.layout);
        self.log.line("ended");
    }

    fn named(&mut self, name: &str) -> Result<usize> {
        let short = name.strip_prefix("davit-").unwrap_or(name);
        match self.services.iter().position(|s| s.name == short) {
            Some(n) => Ok(n),
            None => bail!("there is no daemon '{name}': storaged, netd or runtimed"),
        }
    }

    /// Ends a daemon and starts it again, from another binary when one is given. The daemon's socket stays open meanwhile.
    pub fn restart(&mut self, name: &str, binary: Option<PathBuf>) -> Result<&'static str> {
        if self.ending.is_some() {
            bail!("the daemons are being ended");
        }
        let n = self.named(name)?;
        if let Some(path) = &binary
            && (!path.is_absolute() || !path.is_file())
        {
            bail!("{} is not the absolute path of a file", path.display());
        }
        let service = &mut self.services[n];
        if let State::Elsewhere { pid, .. } = service.state {
            bail!("{} is served by process {pid}, which is not ours: end that first", service.name);
        }
        if let Some(path) = binary {
            service.previous = Some(std::mem::replace(&mut service.binary, path));
        }
        service.swap_failed = None;
        service.backoff.reset();
        let name = service.name;
        if service.process.is_some() {
            service.stop(Instant::now() + PATIENCE);
        } else {
            self.start(n);
        }
        Ok(name)
    }

    /// The name of a daemon, if there is one.
    pub fn known(&self, name: &str) -> Result<&'static str> {
        match self.services.iter().find(|s| s.name == name) {
            Some(service) => Ok(service.name),
            None => bail!("there is no daemon '{name}'"),
        }
    }

    /// Whether a restart or swap of `name` is through: none while it is not, then its error if it failed.
    pub fn restarted(&self, name: &str) -> Option<Result<(), String>> {
        let service = self.services.iter().find(|s| s.name == name)?;
        if let Some(why) = &service.swap_failed {
            return Some(Err(format!("the new {name} does not start, the old one goes on: {why}")));
        }
        match service.state {
            State::Running => Some(Ok(())),
            // It may have ended since it was looked after.
            State::Elsewhere { pid, gone: None, .. } if place::is_alive(pid) => Some(Ok(())),
            _ if service.backoff.deaths() >= HOPELESS => {
                Some(Err(format!("{name} does not start: {}", service.note)))
            }
            _ => None,
        }
    }

    /// Whether all daemons serve: none while it is open.
    pub fn all_ready(&self) -> Option<Result<(), String>> {
        let answers: Vec<_> = self.services.iter().map(|s| self.restarted(s.name)).collect();
        if let Some(failed) = answers.iter().flatten().find(|a| a.is_err()) {
            return Some(failed.clone());
        }
        answers.iter().all(Option::is_some).then_some(Ok(()))
    }

    /// The report of the control protocol.
    pub fn status(&self) -> String {
        let mut text = format!(
            "supervisor\tpid={}\tuptime_ms={}\trootless={}\n",
            std::process::id(),
            self.started.elapsed().as_millis(),
            u8::from(self.layout.rootless)
        );
        for s in &self.services {
            let pid = match s.state {
                State::Elsewhere { pid, gone: None, .. } => pid,
                _ => s.process.map_or(0, |p| p.pid),
            };
            let line = format!(
                "daemon\tname={}\tstate={}\tpid={pid}\tuptime_ms={}\trestarts={}\tdeaths={}\tbinary={}\tnote={}",
                s.name,
                s.state.word(),
                if s.process.is_none() { 0 } else { s.since.elapsed().as_millis() },
                s.restarts,
                s.backoff.deaths(),
                s.binary.display(),
                s.note.replace('\t', " "),
            );
            text.push_str(&line.replace(['\n', '\r'], " "));
            text.push('\n');
        }
        for limit in &self.space.limits {
            text.push_str("limit\t");
            text.push_str(limit);
            text.push('\n');
        }
        text
    }
}

fn find(short: &str) -> Result<PathBuf> {
    let name = format!("davit-{short}");
    match Layout::binary(&name) {
        Some(path) => Ok(path),
        None => bail!("{name} is neither beside davit-supervisor nor in PATH: install it there"),
    }
}

/// Ours, with the instance's directories spelled out and nothing of a supervisor above us.
fn environment(layout: &Layout, place: &Place) -> Vec<(OsString, OsString)> {
    const OURS: [&str; 8] = [
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
        "NOTIFY_SOCKET",
        "DAVIT_STATE_DIR",
        "DAVIT_RUN_DIR",
        "DAVIT_CONFIG_DIR",
        "DAVIT_ROOTLESS",
    ];
    let mut env: Vec<_> =
        std::env::vars_os().filter(|(k, _)| !OURS.iter().any(|ours| k.as_os_str() == *ours)).collect();
    let mut set = |key: &str, value: OsString| env.push((key.into(), value));
    set("DAVIT_STATE_DIR", layout.state.clone().into());
    set("DAVIT_RUN_DIR", layout.run.clone().into());
    set("DAVIT_CONFIG_DIR", layout.config.clone().into());
    set("NOTIFY_SOCKET", place.notify_path().into());
    if layout.rootless {
        set("DAVIT_ROOTLESS", "1".into());
    }
    env
}
