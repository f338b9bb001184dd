//! What runtimed asks for, up to the point where a runtime call is under way.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use davit_sys::fs_ids::with_power;
use davit_sys::mount::{mount_at, open_target};
use davit_sys::served;
use davit_wire::config::{CreateSpec, LogSink, Mount};
use davit_wire::{ExecSpec, Failure, FailureKind, Frame, Phase, Reply, Request};
use rustix::fs::{Mode, OFlags};

use super::calls::{Asker, ExecFiles, Purpose};
use super::{MAIN, Monitor};
use crate::clock;
use crate::log::Log;
use crate::reactor::Token;
use crate::rules;
use crate::runtime::{ProgramEnds, option};
use crate::server::{self, Server};
use crate::session::{Session, Stage};
use crate::staging;
use crate::stdio::{self, Pending};

/// More sessions than any program needs; a bound for a client gone wild.
const MOST_EXECS: usize = 1024;

/// The longest path that a unix socket can have (unix(7): 108 bytes with the terminating zero).
const LONGEST_SOCKET: usize = 107;

impl Monitor {
    pub(super) fn request(&mut self, conn: u32, number: u64, request: Request) {
        let asker = Asker { conn, number };
        let under_way = self.hold || self.shutdown.is_some() || self.calls.iter().any(|(_, p)| p.moves());
        let result = rules::check(&request, self.phase, under_way).and_then(|()| match request {
            Request::Mount(spec) => self.mount(&spec, asker),
            Request::Create(spec) => self.create(&spec, asker),
            Request::Start { hold_for_attach } => {
                self.start(hold_for_attach, asker);
                Ok(())
            }
            Request::Kill { signal, all } => self.kill(signal, all, asker),
            Request::Pause => self.call_simple("pause", Phase::Paused, asker),
            Request::Resume => self.call_simple("resume", Phase::Running, asker),
            Request::Update { resources } => self.update(&resources, asker),
            Request::Exec(spec) => self.exec(spec, asker),
            Request::Probe => self.probe_now(asker),
            Request::State => {
                let state = Box::new(self.state());
                self.answer(asker, Ok(Reply::State(state)));
                Ok(())
            }
            Request::Shutdown => {
                self.begin_shutdown(asker);
                Ok(())
            }
        });
        if let Err(failure) = result {
            self.answer(asker, Err(failure));
        }
    }

    pub(super) fn answer(&mut self, to: Asker, result: Result<Reply, Failure>) {
        if let Some(conn) = self.conn(to.conn) {
            let id = to.number;
            conn.send(&match result {
                Ok(reply) => Frame::Reply { id, reply },
                Err(failure) => Frame::Failed { id, failure },
            });
        }
    }

    fn mount(&mut self, spec: &CreateSpec, asker: Asker) -> Result<(), Failure> {
        if !self.mounts.is_empty() {
            return Err(rules::wrong_state("the root is mounted already".into()));
        }
        let since = Instant::now();
        if let Err(failure) = self.mount_all(spec, &self.run_dir.join("bundle/rootfs")) {
            self.unmount_all();
            return Err(failure);
        }
        let us = since.elapsed().as_micros() as u32;
        self.answer(asker, Ok(Reply::Mounted { us }));
        Ok(())
    }

    fn create(&mut self, spec: &CreateSpec, asker: Asker) -> Result<(), Failure> {
        let since = Instant::now();
        if let Some(sink) = &spec.log {
            self.open_log(sink).map_err(|e| internal(format!("cannot open the log: {e}")))?;
        }
        self.configure_health(spec.health.as_ref());
        let bundle = self.run_dir.join("bundle");
        if let Err(failure) = self
            .mount_all(spec, &bundle.join("rootfs"))
            .and_then(|()| self.place_parts(spec))
            .and_then(|()| set_sysctls(spec))
        {
            self.unmount_all();
            return Err(failure);
        }
        let mount_us = since.elapsed().as_micros() as u32;
        let pid_file = self.run_dir.join("container.pid");
        let _ = fs::remove_file(&pid_file);
        let mut options = Vec::new();
        options.extend(option("--bundle", &bundle));
        options.extend(option("--pid-file", &pid_file));
        let socket = self.run_dir.join("console.sock");
        let made = make_stdio(self.config.tty, self.config.open_stdin, &socket);
        let called = made.and_then(|(pending, ends)| {
            if self.config.tty {
                options.extend(option("--console-socket", &socket));
            }
            Ok((self.runtime.call("create", &options, &[], ends)?, pending))
        });
        let (call, pending) = match called {
            Ok(both) => both,
            Err(failure) => {
                self.unmount_all();
                return Err(failure);
            }
        };
        self.created = true;
        self.calls
            .push((call, Purpose::Create { asker, pending, mount_us, since: Instant::now(), pid_file }));
        Ok(())
    }

    fn mount_all(&mut self, spec: &CreateSpec, rootfs: &Path) -> Result<(), Failure> {
        if spec.mounts.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(rootfs).map_err(|e| failed(&e))?;
        for mount in &spec.mounts {
            let mapped;
            let mount = if self.config.userns.is_some() && mount.target.trim_matches('/').is_empty() {
                let (over, place) = staging::layers::mapped(mount, &self.run_dir).map_err(|e| {
                    internal(format!(
                        "cannot show the root's files with the owners of the user namespace: {e}"
                    ))
                })?;
                self.mounts.push(place);
                mapped = over;
                &mapped
            } else {
                mount
            };
            // Opened anew each time: the first mount usually is the root itself.
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root =
                rustix::fs::open(rootfs, flags, Mode::empty()).map_err(|e| failed(&io::Error::from(e)))?;
            let target = open_target(root.as_fd(), Path::new(&mount.target)).map_err(|e| failed(&e))?;
            if served::is_served(&mount.r#type) {
                self.serve(mount, rootfs)?;
            } else {
                let mount =
                    || mount_at(&mount.r#type, Path::new(&mount.source), &mount.options, target.as_fd());
                // overlayfs works with the ids of whoever mounted it: others than the container's cannot be stored in its layers.
                let root = self.config.userns.as_ref().and_then(davit_wire::config::UserNamespace::root);
                root.map_or_else(mount, |(uid, gid)| with_power(uid, gid, mount)).map_err(|e| failed(&e))?;
            }
            self.mounts.push(rootfs.join(mount.target.trim_start_matches('/')));
        }
        Ok(())
    }

    /// Starts the server of the root and waits for it: nothing runs yet, so nobody is kept waiting but who asked.
    fn serve(&mut self, mount: &Mount, rootfs: &Path) -> Result<(), Failure> {
        let Some(program) = &mount.server else {
            return Err(invalid(format!("no program is named that serves the {} mount", mount.r#type)));
        };
        if !mount.target.trim_matches('/').is_empty() || self.server.is_some() {
            return Err(invalid(format!("only the root itself can be a {} mount", mount.r#type)));
        }
        let log = self.run_dir.join("cowfs.log");
        let server = Server::start(program, &mount.options, rootfs, &log).map_err(|e| failed(&e))?;
        self.server = Some(server);
        Ok(())
    }

    fn open_log(&mut self, sink: &LogSink) -> io::Result<()> {
        let log = Log::open(sink, self.config.log_buffer)?;
        log.bell().map_or(Ok(()), |bell| self.reactor.add_reader(bell, Token::Log))?;
        self.log = log;
        Ok(())
    }

    fn place_parts(&mut self, spec: &CreateSpec) -> Result<(), Failure> {
        let mut trees = Vec::new();
        for part in &spec.parts {
            let tree = staging::part(part).map_err(|e| {
                let (what, directory) = (&part.subpath, part.directory.display());
                internal(format!("cannot mount {what} of the volume at {directory}: {e}"))
            })?;
            if part.idmap {
                staging::layers::map(tree.as_fd(), &self.run_dir).map_err(|e| {
                    let directory = part.directory.display();
                    internal(format!("cannot show {directory} with the owners of the user namespace: {e}"))
                })?;
            }
            trees.push(tree);
        }
        let places = staging::place(&self.run_dir.join("parts"), &trees)
            .map_err(|(path, e)| internal(format!("cannot mount {}: {e}", path.display())))?;
        self.mounts.extend(places);
        let Some(process) = spec.shm_of else { return Ok(()) };
        let shm = self.run_dir.join("shm");
        staging::shm_of(process)
            .and_then(|tree| staging::place_one(&shm, tree.as_fd()))
            .map_err(|e| internal(format!("cannot share /dev/shm of the process {}: {e}", process.pid)))?;
        self.mounts.push(shm);
        Ok(())
    }

    pub(super) fn unmount_all(&mut self) {
        match &mut self.server {
            Some(server) => server.leave(&mut self.mounts),
            None => server::unmount_all(std::mem::take(&mut self.mounts)),
        }
    }

    fn start(&mut self, hold: bool, asker: Asker) {
        let waiting = self.conns.iter().any(|c| c.wants_streams_of(MAIN));
        if !hold {
            self.begin_start(Some(asker));
            return;
        }
        self.answer(asker, Ok(Reply::Started { pid: 0 }));
        if waiting {
            self.begin_start(None);
        } else {
            self.hold = true;
        }
    }

    /// Runs the runtime's `start`. Without an asker the program was held, and events tell what comes of it.
    pub(super) fn begin_start(&mut self, asker: Option<Asker>) {
        let main = self.main();
        main.apply_size();
        main.started_ns = clock::unix_ns();
        // From now on it may write, and fill its pipe before the runtime call has ended.
        main.stage = Stage::Running;
        match self.runtime.call("start", &[], &[], ProgramEnds::default()) {
            Ok(call) => self.calls.push((call, Purpose::Start { asker })),
            Err(failure) => self.start_failed(asker, failure),
        }
    }

    fn kill(&mut self, signal: i32, all: bool, asker: Asker) -> Result<(), Failure> {
        if !(1..=64).contains(&signal) {
            return Err(invalid(format!("there is no signal {signal}")));
        }
        let paused = self.phase == Phase::Paused;
        let main = self.main();
        if main.pid == 0 || main.status.is_some() {
            return Err(rules::wrong_state("the program has ended".into()));
        }
        if all {
            let number = signal.to_string();
            let call = self.runtime.call("kill", &["--all".into()], &[&number], ProgramEnds::default())?;
            self.calls.push((call, Purpose::Simple { asker: Some(asker), then: None }));
            return Ok(());
        }
        davit_sys::resident::signal_child(main.pid, signal)
            .map_err(|e| internal(format!("cannot send signal {signal} to process {}: {e}", main.pid)))?;
        self.struck_down |= signal == 9;
        self.answer(asker, Ok(Reply::Done));
        if paused && signal == 9 {
            self.thaw();
        }
        Ok(())
    }

    /// A frozen process (freezer of cgroup v1) dies only when it is thawed.
    pub(super) fn thaw(&mut self) {
        if let Ok(call) = self.runtime.call("resume", &[], &[], ProgramEnds::default()) {
            self.calls.push((call, Purpose::Simple { asker: None, then: Some(Phase::Running) }));
        }
    }

    fn call_simple(&mut self, verb: &str, then: Phase, asker: Asker) -> Result<(), Failure> {
        let call = self.runtime.call(verb, &[], &[], ProgramEnds::default())?;
        self.calls.push((call, Purpose::Simple { asker: Some(asker), then: Some(then) }));
        Ok(())
    }

    fn update(&mut self, resources: &str, asker: Asker) -> Result<(), Failure> {
        let path = self.run_dir.join("update.json");
        fs::write(&path, resources).map_err(|e| internal(format!("cannot write {}: {e}", path.display())))?;
        let options = option("--resources", &path);
        let call = self.runtime.call("update", &options, &[], ProgramEnds::default())?;
        self.calls.push((call, Purpose::Simple { asker: Some(asker), then: None }));
        Ok(())
    }

    fn exec(&mut self, spec: Box<ExecSpec>, asker: Asker) -> Result<(), Failure> {
        let id = &spec.exec_id;
        let usable = !id.is_empty() && id.len() <= 128 && id.bytes().all(|b| b.is_ascii_alphanumeric());
        if !usable {
            return Err(invalid(format!("{id:?} is no exec id")));
        }
        if self.sessions.iter().any(|s| s.exec_id.as_ref() == Some(id)) {
            return Err(invalid(format!("exec session {id} exists already")));
        }
        if self.sessions.len() > MOST_EXECS {
            return Err(internal(format!("{MOST_EXECS} exec sessions are running")));
        }
        let number = self.sessions_made;
        self.sessions_made += 1;
        let hold = spec.hold_for_attach;
        let stage = if hold { Stage::Held } else { Stage::Starting };
        let mut session = Session::new(number, Some(id.clone()), spec.tty, true, stage);
        session.spec = Some(spec);
        self.sessions.push(session);
        if hold {
            self.answer(asker, Ok(Reply::Started { pid: 0 }));
        } else {
            self.begin_exec(number, Some(asker));
        }
        Ok(())
    }

    /// Runs the runtime's `exec` for a session whose spec is there.
    pub(super) fn begin_exec(&mut self, session: u32, asker: Option<Asker>) {
        if let Err(failure) = self.call_exec(session, asker) {
            self.exec_failed(session, asker, &failure);
        }
    }

    fn call_exec(&mut self, number: u32, asker: Option<Asker>) -> Result<(), Failure> {
        let dir = self.run_dir.join("exec");
        if self.phase != Phase::Running {
            return Err(rules::wrong_state("the container is not running any more".into()));
        }
        let Some(session) = self.session(number) else { return Ok(()) };
        let Some(spec) = session.spec.take() else { return Ok(()) };
        session.stage = Stage::Starting;
        let files = ExecFiles {
            process: dir.join(format!("{number}.json")),
            pid: dir.join(format!("{number}.pid")),
            console: dir.join(format!("{number}.sock")),
        };
        let process = with_size(&spec.process, session.size.filter(|_| spec.tty))?;
        let written = fs::create_dir_all(&dir).and_then(|()| fs::write(&files.process, process));
        written.map_err(|e| internal(format!("cannot write {}: {e}", files.process.display())))?;
        let mut options = Vec::new();
        options.extend(option("--process", &files.process));
        options.extend(option("--pid-file", &files.pid));
        options.push("--detach".into());
        if spec.tty {
            options.extend(option("--console-socket", &files.console));
        }
        let called = make_stdio(spec.tty, spec.stdin, &files.console)
            .and_then(|(pending, ends)| Ok((self.runtime.call("exec", &options, &[], ends)?, pending)));
        match called {
            Ok((call, pending)) => {
                let started_ns = clock::unix_ns();
                let stdin = spec.stdin;
                let purpose = Purpose::Exec { session: number, asker, pending, files, started_ns, stdin };
                self.calls.push((call, purpose));
                Ok(())
            }
            Err(failure) => {
                files.remove();
                Err(failure)
            }
        }
    }
}

fn make_stdio(tty: bool, stdin: bool, socket: &Path) -> Result<(Pending, ProgramEnds), Failure> {
    if tty {
        if socket.as_os_str().len() > LONGEST_SOCKET {
            let path = socket.display();
            return Err(internal(format!("{path} is too long for a socket: use a shorter run directory")));
        }
        let listener = stdio::console(socket)
            .map_err(|e| internal(format!("cannot listen on {}: {e}", socket.display())))?;
        return Ok((Pending::Console(listener), ProgramEnds::default()));
    }
    let (ours, theirs) = stdio::pipes(stdin).map_err(|e| internal(format!("cannot make pipes: {e}")))?;
    Ok((Pending::Pipes(ours), theirs))
}

/// Puts the client's terminal size into the `process` object, so that the program finds it from its first moment.
fn with_size(process: &str, size: Option<(u16, u16)>) -> Result<Vec<u8>, Failure> {
    let mut value: serde_json::Value = serde_json::from_str(process)
        .map_err(|e| invalid(format!("the process to run is no OCI process object: {e}")))?;
    if let (Some((rows, cols)), Some(object)) = (size, value.as_object_mut()) {
        object.insert("consoleSize".into(), serde_json::json!({ "height": rows, "width": cols }));
    }
    Ok(value.to_string().into_bytes())
}

/// With its cause.
fn failed(e: &dyn std::error::Error) -> Failure {
    let cause = e.source().map(|c| format!(": {c}")).unwrap_or_default();
    internal(format!("{e}{cause}"))
}

pub(super) fn internal(message: String) -> Failure {
    Failure { kind: FailureKind::Internal, message }
}

fn invalid(message: String) -> Failure {
    Failure { kind: FailureKind::InvalidArgument, message }
}

/// Dots separate, slashes are dots of a name, as in `net.ipv4.conf.eth0/1.forwarding`; runtimed lets only `net.` through.
fn set_sysctls(spec: &CreateSpec) -> Result<(), Failure> {
    for (key, value) in &spec.sysctls {
        let path: String = if key.contains('.') {
            key.chars()
                .map(|c| {
                    if c == '.' {
                        '/'
                    } else if c == '/' {
                        '.'
                    } else {
                        c
                    }
                })
                .collect()
        } else {
            key.clone()
        };
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(invalid(format!("sysctl \"{key}\" is no parameter's name")));
        }
        fs::write(Path::new("/proc/sys").join(path), value)
            .map_err(|e| internal(format!("cannot set sysctl {key} to \"{value}\": {e}")))?;
    }
    Ok(())
}
