//! Runtime calls that have ended, and what follows.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use davit_wire::{Event, Failure, Frame, Phase, Reply};
use rustix::process::WaitOptions;

use super::requests::internal;
use super::{MAIN, Monitor};
use crate::clock;
use crate::oom::OomWatch;
use crate::reactor::Token;
use crate::runtime::{Call, Runtime};
use crate::session::Stage;
use crate::stdio::{Pending, Status};

/// Who waits for an answer.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// The connection.
    pub conn: u32,
    /// The request's number there.
    pub number: u64,
}

/// What a call was made for.
#[derive(Debug)]
pub enum Purpose {
    /// The container.
    Create { asker: Asker, pending: Pending, mount_us: u32, since: Instant, pid_file: PathBuf },
    /// Its program; without an asker it was held.
    Start { asker: Option<Asker> },
    /// One more program; without an asker it was held.
    Exec {
        session: u32,
        asker: Option<Asker>,
        pending: Pending,
        files: ExecFiles,
        started_ns: i64,
        stdin: bool,
    },
    /// Kill, pause, resume: done is done.
    Simple { asker: Option<Asker>, then: Option<Phase> },
    /// The end of the container, in a shutdown.
    Delete,
}

impl Purpose {
    /// Whether the phase changes with it.
    pub fn moves(&self) -> bool {
        !matches!(self, Self::Exec { .. } | Self::Simple { then: None, .. })
    }
}

/// The files of one exec call.
#[derive(Debug)]
pub struct ExecFiles {
    /// The `process` object.
    pub process: PathBuf,
    /// Where the runtime writes the pid.
    pub pid: PathBuf,
    /// Where it sends the terminal.
    pub console: PathBuf,
}

impl ExecFiles {
    /// They are of no use once the call has ended.
    pub fn remove(&self) {
        for path in [&self.process, &self.pid, &self.console] {
            let _ = fs::remove_file(path);
        }
    }
}

impl Monitor {
    /// Waits for all children that have ended: calls, programs, and whatever a container left to its subreaper.
    pub(super) fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            let status = Status::from_wait(status);
            if let Some(at) = self.calls.iter().position(|(c, _)| c.pid == pid) {
                let (call, purpose) = self.calls.swap_remove(at);
                self.call_ended(&call, purpose, status);
            } else if let Some(s) = self.sessions.iter().find(|s| s.pid == pid && s.status.is_none()) {
                let id = s.id;
                self.program_ended(id, status);
            } else if self.server.as_ref().is_some_and(|s| s.pid == pid) {
                self.server_ended(status);
            } else if !self.calls.is_empty() {
                self.orphans.push((pid, status));
            }
            if self.calls.is_empty() {
                self.orphans = Vec::new();
            }
        }
    }

    fn call_ended(&mut self, call: &Call, purpose: Purpose, status: Status) {
        match purpose {
            Purpose::Create { asker, pending, mount_us, since, pid_file } => {
                let create_us = since.elapsed().as_micros() as u32;
                let result = self.created(call, status, pending, &pid_file);
                let _ = fs::remove_file(self.run_dir.join("console.sock"));
                let reply = result.map(|pid| Reply::Created {
                    pid,
                    stage_us: vec![("mount".into(), mount_us), ("runtime create".into(), create_us)],
                });
                if reply.is_err() {
                    self.unmount_all();
                }
                self.answer(asker, reply);
                self.adopt(MAIN);
            }
            Purpose::Start { asker } => self.start_ended(call, status, asker),
            Purpose::Exec { session, asker, pending, files, started_ns, stdin } => {
                let result = self.exec_created(call, status, session, pending, &files, stdin);
                files.remove();
                match result {
                    Ok(pid) => self.exec_started(session, pid, started_ns, asker),
                    Err(failure) => self.exec_failed(session, asker, &failure),
                }
            }
            Purpose::Simple { asker, then } => {
                let result = call.outcome(status, None, Vec::new);
                if let (Ok(()), Some(phase), Phase::Running | Phase::Paused) = (&result, then, self.phase) {
                    self.phase = phase;
                }
                if let Some(asker) = asker {
                    self.answer(asker, result.map(|()| Reply::Done));
                }
            }
            Purpose::Delete => {
                let result = call.outcome(status, None, Vec::new);
                self.deleted(result);
            }
        }
        self.advance_shutdown();
    }

    fn created(
        &mut self,
        call: &Call,
        status: Status,
        pending: Pending,
        pid_file: &Path,
    ) -> Result<i32, Failure> {
        let config = self.run_dir.join("bundle/config.json");
        // Read only to explain a failure.
        let program = if status.succeeded() { None } else { program(fs::read(config)) };
        call.outcome(status, program.as_deref(), || pending.error_output())?;
        let pid = read_pid(pid_file)?;
        let stdin = self.config.open_stdin;
        let ends = pending
            .complete(stdin)
            .map_err(|e| internal(format!("the OCI runtime sent no terminal: {e}")))?;
        let main = self.main();
        main.pid = pid;
        main.connect(ends);
        self.oom = OomWatch::of(pid, &self.config.container_id);
        if let Some(notice) = self.oom.as_ref().and_then(OomWatch::notice) {
            let _ = self.reactor.add_reader(notice, Token::Oom);
        }
        self.phase = Phase::Created;
        Ok(pid)
    }

    fn start_ended(&mut self, call: &Call, status: Status, asker: Option<Asker>) {
        let config = self.run_dir.join("bundle/config.json");
        let program = if status.succeeded() { None } else { program(fs::read(config)) };
        if let Err(failure) = call.outcome(status, program.as_deref(), Vec::new) {
            return self.start_failed(asker, failure);
        }
        self.phase = Phase::Running;
        if let Some(health) = &mut self.health {
            health.start(Instant::now());
        }
        let (pid, unix_ns) = (self.main().pid, self.main().started_ns);
        if let Some(asker) = asker {
            self.answer(asker, Ok(Reply::Started { pid }));
        }
        self.tell_control(Event::Started { pid, unix_ns });
        self.tell_clients(MAIN, &Frame::Started { pid }, false);
        // It may have ended before the call has.
        self.try_finish(MAIN);
    }

    /// The program never ran: its waiting process is ended, and the record says why.
    pub(super) fn start_failed(&mut self, asker: Option<Asker>, failure: Failure) {
        match asker {
            Some(asker) => self.answer(asker, Err(failure.clone())),
            None => self.tell_control(Event::StartFailed(failure.clone())),
        }
        self.tell_clients(MAIN, &Frame::Failed { id: 0, failure: failure.clone() }, false);
        self.start_failure = Some(failure);
        let main = self.main();
        main.started_ns = 0;
        if main.status.is_none() {
            let _ = davit_sys::resident::signal_child(main.pid, 9);
        }
        self.try_finish(MAIN);
    }

    fn exec_created(
        &mut self,
        call: &Call,
        status: Status,
        session: u32,
        pending: Pending,
        files: &ExecFiles,
        stdin: bool,
    ) -> Result<i32, Failure> {
        let program = if status.succeeded() { None } else { program(fs::read(&files.process)) };
        call.outcome(status, program.as_deref(), || pending.error_output())?;
        let pid = read_pid(&files.pid)?;
        let ends = pending
            .complete(stdin)
            .map_err(|e| internal(format!("the OCI runtime sent no terminal: {e}")))?;
        if let Some(session) = self.session(session) {
            session.pid = pid;
            session.connect(ends);
        }
        Ok(pid)
    }

    fn exec_started(&mut self, id: u32, pid: i32, started_ns: i64, asker: Option<Asker>) {
        let Some(session) = self.session(id) else { return };
        session.started_ns = started_ns;
        session.stage = Stage::Running;
        if session.probe.is_some() {
            return self.adopt(id);
        }
        let exec_id = session.exec_id.clone().unwrap_or_default();
        if let Some(asker) = asker {
            self.answer(asker, Ok(Reply::Started { pid }));
        }
        self.tell_control(Event::ExecStarted { exec_id, pid });
        self.tell_clients(id, &Frame::Started { pid }, false);
        self.adopt(id);
    }

    pub(super) fn exec_failed(&mut self, id: u32, asker: Option<Asker>, failure: &Failure) {
        if let Some(asker) = asker {
            self.answer(asker, Err(failure.clone()));
        }
        self.tell_clients(id, &Frame::Failed { id: 0, failure: failure.clone() }, false);
        if let Some(session) = self.session(id) {
            session.finished_ns = clock::unix_ns();
        }
        self.finish_exec(id, Some(failure));
    }

    /// A program whose pid has just become known may have been reaped already.
    fn adopt(&mut self, id: u32) {
        let Some(pid) = self.session(id).map(|s| s.pid) else { return };
        if let Some(at) = self.orphans.iter().position(|(p, _)| *p == pid) {
            let (_, status) = self.orphans.swap_remove(at);
            self.program_ended(id, status);
        }
    }
}

fn program(json: io::Result<Vec<u8>>) -> Option<String> {
    Runtime::program_of(&json.ok()?)
}

fn read_pid(path: &Path) -> Result<i32, Failure> {
    let text = fs::read_to_string(path);
    let pid = text.ok().and_then(|t| t.trim().parse().ok()).filter(|pid| *pid > 1);
    pid.ok_or_else(|| internal(format!("the OCI runtime left no pid in {}", path.display())))
}
