//! The end of programs, and of the monitor itself.

use std::fs;
use std::time::{Duration, Instant};

use davit_wire::{Event, ExecExit, ExitRecord, Failure, FailureKind, Frame, Phase, Reply};

use super::calls::{Asker, Purpose};
use super::{MAIN, Monitor};
use crate::clock;
use crate::note::note;
use crate::oom::OomWatch;
use crate::runtime::ProgramEnds;
use crate::session::{Session, Stage};
use crate::startup::replace_file;
use crate::stdio::Status;

/// Exec records kept for a runtimed that was away.
const RECORDS: usize = 64;

/// A runtime call that has not ended after this long does not hold a shutdown up any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// A shutdown under way.
#[derive(Debug)]
pub struct Shutdown {
    askers: Vec<Asker>,
    since: Instant,
    killed: bool,
    deleted: Option<Result<(), Failure>>,
    gave_up: bool,
}

impl Shutdown {
    /// How long calls that are under way may still take.
    pub fn patience(&self, now: Instant) -> Option<Duration> {
        (!self.gave_up).then(|| (self.since + PATIENCE).saturating_duration_since(now))
    }
}

impl Monitor {
    pub(super) fn program_ended(&mut self, id: u32, status: Status) {
        let Some(session) = self.session(id) else { return };
        session.ended(status, clock::unix_ns());
        self.read_output(id, true);
        self.read_output(id, false);
        self.try_finish(id);
    }

    /// Tells the end of a program once its streams are drained.
    pub(super) fn try_finish(&mut self, id: u32) {
        let Some(session) = self.session(id) else { return };
        if session.stage != Stage::Ending || !session.is_drained() {
            return;
        }
        if id != MAIN {
            self.finish_exec(id, None);
        } else if !self.calls.iter().any(|(_, p)| matches!(p, Purpose::Start { .. }))
            && self.root_is_quiet()
            && self.log_is_complete()
        {
            self.finish_main();
        }
    }

    /// Whether everything that belongs into the log is there.
    fn log_is_complete(&mut self) -> bool {
        self.last_oom();
        self.log.finish(clock::unix_ns())
    }

    /// Whether what the program wrote is where others will look for it: a server of the root must have got all of it first. Nobody will
    /// look at what is removed at once.
    fn root_is_quiet(&mut self) -> bool {
        let Some(server) = &mut self.server else { return true };
        if self.config.ephemeral {
            return true;
        }
        server.leave(&mut self.mounts);
        server.has_let_go()
    }

    /// The server of the root was waited for.
    pub(super) fn server_ended(&mut self, status: Status) {
        let Some(server) = self.server.take() else { return };
        let words = server.last_words().map(|w| format!(" ({w})")).unwrap_or_default();
        let how = match status.signal() {
            Some(signal) => format!("was ended by signal {signal}"),
            None => format!("ended with status {}", status.code()),
        };
        if server.is_leaving() {
            if !status.succeeded() {
                let text = "what was written last may be lost";
                self.lose_root(format!("the server of the container's root {how}{words}: {text}"));
            }
        } else {
            let text = "the container was ended with it";
            self.lose_root(format!("the server of the container's root {how}{words}: {text}"));
            let main = self.main();
            if main.pid > 0 && main.status.is_none() {
                let _ = davit_sys::resident::signal_child(main.pid, 9);
                if self.phase == Phase::Paused {
                    self.thaw();
                }
            }
        }
        self.try_finish(MAIN);
        self.advance_shutdown();
    }

    fn lose_root(&mut self, why: String) {
        note(format_args!("{why}"));
        self.root_failure.get_or_insert(why);
    }

    fn finish_main(&mut self) {
        let failure = self.start_failure.take();
        let started = failure.is_none() && self.phase >= Phase::Running;
        let oom_killed = self.oom.as_ref().is_some_and(OomWatch::struck);
        let report = self.oom.as_ref().and_then(OomWatch::report).map(str::to_owned);
        let main = self.main();
        main.stage = Stage::Ended;
        let mut record = record(main, failure.as_ref(), oom_killed, started);
        if self.config.system && record.error.is_empty() {
            system_end(&mut record);
        }
        if let (Some(why), true) = (&self.root_failure, record.error.is_empty()) {
            record.error.clone_from(why);
        }
        // What was killed need not have been the program, nor its end have come of that.
        if let (Some(report), 137, true, false) =
            (report, record.code, record.error.is_empty(), self.struck_down)
        {
            record.error = report;
        }
        let (bytes, why) = self.log.dropped();
        (record.log_dropped_bytes, record.log_error) = (bytes, why.into());
        self.phase = Phase::Exited;
        self.hold = false;
        self.stop_health();
        self.write_record(&record);
        self.exit = Some(record.clone());
        self.tell_control(Event::Exited(record.clone()));
        self.tell_clients(MAIN, &Frame::Exit(record), true);
        self.end_held_execs();
        self.advance_shutdown();
    }

    /// In durable state first, unless the container is removed at once anyway; then where a runtimed looks that finds this monitor.
    fn write_record(&self, record: &ExitRecord) {
        let text = serde_json::to_vec(record).expect("a record is a plain struct");
        let durable = (!self.config.ephemeral && !self.config.state_dir.as_os_str().is_empty())
            .then(|| self.config.state_dir.join("exit.json"));
        let here = self.run_dir.join("exit.json");
        for (path, sync) in durable.iter().map(|p| (p, true)).chain([(&here, false)]) {
            if let Err(e) = replace_file(path, &text, sync) {
                note(format_args!("cannot write {}: {e}", path.display()));
            }
        }
    }

    fn end_held_execs(&mut self) {
        let held: Vec<u32> = self.sessions.iter().filter(|s| s.stage == Stage::Held).map(|s| s.id).collect();
        for id in held {
            let message = "the container has ended before a client attached".to_owned();
            self.exec_failed(id, None, &Failure { kind: FailureKind::WrongState, message });
        }
    }

    /// Tells the end of an exec session. With a failure it never ran.
    pub(super) fn finish_exec(&mut self, id: u32, failure: Option<&Failure>) {
        let Some(session) = self.session(id) else { return };
        session.stage = Stage::Ended;
        if let Some(output) = session.probe.take() {
            let code = session.status.map_or(-1, Status::code);
            let (code, output) = match failure {
                Some(failure) => (-1, failure.message.clone()),
                None => (code, crate::health::text(&output)),
            };
            return self.probe_session_ended(id, code, output);
        }
        let exec_id = session.exec_id.clone().unwrap_or_default();
        let record = record(session, failure, false, failure.is_none());
        if self.exec_exits.len() == RECORDS {
            self.exec_exits.pop_front();
        }
        self.exec_exits.push_back(ExecExit { exec_id: exec_id.clone(), record: record.clone() });
        self.tell_control(Event::ExecExited { exec_id, record: record.clone() });
        self.tell_clients(id, &Frame::Exit(record), true);
    }

    pub(super) fn begin_shutdown(&mut self, asker: Asker) {
        let shutdown = self.shutdown.get_or_insert_with(|| Shutdown {
            askers: Vec::new(),
            since: Instant::now(),
            killed: false,
            deleted: None,
            gave_up: false,
        });
        shutdown.askers.push(asker);
        self.advance_shutdown();
    }

    /// One step further, where nothing has to be waited for: calls, the program's death, the runtime's `delete`.
    pub(super) fn advance_shutdown(&mut self) {
        let Some(shutdown) = &mut self.shutdown else { return };
        if self.listener.is_none() {
            return;
        }
        if !self.calls.is_empty() {
            if shutdown.patience(Instant::now()).is_some_and(|left| left.is_zero()) {
                shutdown.gave_up = true;
                for (call, _) in &self.calls {
                    call.kill();
                }
            }
            return;
        }
        let main = &self.sessions[0];
        if main.pid > 0 && self.phase != Phase::Exited {
            if !shutdown.killed {
                shutdown.killed = true;
                let _ = davit_sys::resident::signal_child(main.pid, 9);
                if self.phase == Phase::Paused {
                    self.thaw();
                }
            }
            return;
        }
        if self.created && shutdown.deleted.is_none() {
            let options = ["--force".into()];
            match self.runtime.call("delete", &options, &[], ProgramEnds::default()) {
                Ok(call) => return self.calls.push((call, Purpose::Delete)),
                Err(failure) => shutdown.deleted = Some(Err(failure)),
            }
        }
        self.finish_shutdown();
    }

    pub(super) fn deleted(&mut self, result: Result<(), Failure>) {
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.deleted = Some(result);
        }
    }

    fn finish_shutdown(&mut self) {
        self.unmount_all();
        if self.server.is_some() {
            // Its end, or its being killed, brings us here again.
            return;
        }
        self.leave();
        if let Some(shutdown) = self.shutdown.take() {
            let result = shutdown.deleted.unwrap_or(Ok(())).map(|()| Reply::Done);
            if let Err(failure) = &result {
                note(format_args!("the container is not removed cleanly: {}", failure.message));
            }
            for asker in shutdown.askers {
                self.answer(asker, result.clone());
            }
        }
    }

    /// From here on only clients that still have bytes to get are served.
    pub(super) fn leave(&mut self) {
        self.listener = None;
        for name in ["monitor.sock", "monitor.pid"] {
            let _ = fs::remove_file(self.run_dir.join(name));
        }
        // Clients of programs that never ended here (nothing was started) have nothing to wait for.
        for conn in &mut self.conns {
            conn.closing = true;
        }
    }
}

fn record(session: &Session, failure: Option<&Failure>, oom_killed: bool, started: bool) -> ExitRecord {
    let status = session.status;
    let code = match (failure, status) {
        (Some(failure), _) => match failure.kind {
            FailureKind::CommandNotFound => 127,
            FailureKind::CommandNotRunnable => 126,
            _ => 125,
        },
        (None, status) => status.map_or(0, Status::code),
    };
    ExitRecord {
        code,
        signal: status.filter(|_| failure.is_none()).and_then(Status::signal),
        oom_killed,
        started_unix_ns: if started { session.started_ns } else { 0 },
        finished_unix_ns: session.finished_ns,
        error: failure.map(|f| f.message.clone()).unwrap_or_default(),
        ..ExitRecord::default()
    }
}

/// reboot(2) in a pid namespace ends its first process by a signal (reboot(2), "Behavior inside PID namespaces"); no other sender can end
/// it with these two.
fn system_end(record: &mut ExitRecord) {
    if let Some(signal @ (HUP | INT)) = record.signal {
        record.reboot = signal == HUP;
        record.signal = None;
        record.code = 0;
    }
}

/// What a first process ends with that asked for a reboot.
const HUP: i32 = 1;
/// The same for a halt or for switching off.
const INT: i32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reboot_2_is_an_orderly_end_of_an_init() {
        let after = |signal: Option<i32>, code| {
            let mut record = ExitRecord { signal, code, ..ExitRecord::default() };
            system_end(&mut record);
            (record.code, record.signal, record.reboot)
        };
        assert_eq!(after(Some(HUP), 129), (0, None, true));
        assert_eq!(after(Some(INT), 130), (0, None, false));
        assert_eq!(after(Some(9), 137), (137, Some(9), false));
        assert_eq!(after(None, 1), (1, None, false));
    }
}
