//! Running the probes of a health check.

use std::fs;
use std::time::Instant;

use davit_wire::{Event, ExecSpec, Failure, FailureKind, HealthCheck, Probe, ProbeResult, Reply};
use serde_json::Value;

use super::calls::{Asker, Purpose};
use super::requests::internal;
use super::{MAIN, Monitor, Phase};
use crate::clock;
use crate::health::net::NetProbe;
use crate::health::{Checker, Kind, Step, text, too_long, tree};
use crate::note::note;
use crate::rules;
use crate::session::{Session, Stage};

impl Monitor {
    /// What is to be found out once the program runs.
    pub(super) fn configure_health(&mut self, check: Option<&HealthCheck>) {
        self.health = check.cloned().map(Checker::new);
    }

    /// Somebody wants to know now.
    pub(super) fn probe_now(&mut self, asker: Asker) -> Result<(), Failure> {
        let Some(health) = &mut self.health else {
            let message = "the container has no health check".to_owned();
            return Err(Failure { kind: FailureKind::InvalidArgument, message });
        };
        health.askers.push(asker);
        if health.running.is_none() {
            self.begin_probe(Instant::now());
        }
        Ok(())
    }

    /// Whatever time has brought.
    pub(super) fn tend_health(&mut self, now: Instant) {
        let paused = self.phase == Phase::Paused;
        match self.health.as_mut().map_or(Step::Wait, |h| h.step(now, paused)) {
            Step::Wait => {}
            Step::Begin => self.begin_probe(now),
            Step::GiveUp => self.give_probe_up(),
        }
    }

    fn begin_probe(&mut self, now: Instant) {
        let Some(health) = &mut self.health else { return };
        let start_ns = clock::unix_ns();
        match &health.check.probe {
            Probe::Exec { args } => {
                let args = args.clone();
                let id = self.sessions_made;
                health.begun(Kind::Session(id), now, start_ns);
                if let Err(failure) = self.run_probe(&args) {
                    self.probe_ended(-1, failure.message);
                }
            }
            probe => {
                let probe = NetProbe::start(probe, &self.reactor);
                match probe {
                    Ok(net) => health.begun(Kind::Net(net), now, start_ns),
                    Err(why) => self.probe_ended(1, why),
                }
            }
        }
    }

    /// As `exec` does, but for nobody.
    fn run_probe(&mut self, args: &[String]) -> Result<(), Failure> {
        let id = self.sessions_made;
        self.sessions_made += 1;
        let path = self.run_dir.join("bundle/config.json");
        let config = fs::read(&path).map_err(|e| internal(format!("cannot read {}: {e}", path.display())))?;
        let process =
            process(&config, args).ok_or_else(|| internal(format!("{} has no process", path.display())))?;
        let mut session = Session::new(id, None, false, true, Stage::Starting);
        session.spec = Some(Box::new(ExecSpec { process, ..ExecSpec::default() }));
        session.probe = Some(Vec::new());
        self.sessions.push(session);
        self.begin_exec(id, None);
        Ok(())
    }

    /// A probe's connection has something to say.
    pub(super) fn probe_ready(&mut self) {
        let Some(running) = self.health.as_mut().and_then(|h| h.running.as_mut()) else { return };
        let Kind::Net(net) = &mut running.kind else { return };
        if let Some((ok, why)) = net.ready(&self.reactor) {
            self.probe_ended(i32::from(!ok), why);
        }
    }

    /// A probe's program has ended, or could not be run.
    pub(super) fn probe_session_ended(&mut self, id: u32, code: i32, output: String) {
        if self.health.as_ref().is_some_and(|h| h.is_session(id)) {
            self.probe_ended(code, output);
        }
    }

    fn give_probe_up(&mut self) {
        let Some(health) = &self.health else { return };
        let timeout = health.timeout();
        let mut output = String::new();
        if let Some(Kind::Session(id)) = health.running.as_ref().map(|r| &r.kind) {
            let id = *id;
            let called =
                self.calls.iter().find(|(_, p)| matches!(p, Purpose::Exec { session, .. } if *session == id));
            let called = called.map(|(call, _)| call.pid);
            if let Some(session) = self.sessions.iter().find(|s| s.id == id) {
                output = text(session.probe.as_deref().unwrap_or_default());
                for pid in called.into_iter().chain(session.status.is_none().then_some(session.pid)) {
                    if pid > 0 {
                        tree::kill(pid);
                    }
                }
            }
        }
        self.probe_ended(-1, too_long(timeout, &output));
    }

    fn probe_ended(&mut self, exit_code: i32, output: String) {
        let now = Instant::now();
        let end_ns = clock::unix_ns();
        let Some(health) = &mut self.health else { return };
        let start_ns = health.running.as_ref().map_or(end_ns, |r| r.start_ns);
        let result = ProbeResult { start_unix_ns: start_ns, end_unix_ns: end_ns, exit_code, output };
        let fell_ill = health.ended(result.clone(), now);
        let kill = fell_ill && health.check.kill;
        let askers = std::mem::take(&mut health.askers);
        let event = Event::Health(health.health.clone());
        self.tell_control(event);
        for asker in askers {
            self.answer(asker, Ok(Reply::Probed(result.clone())));
        }
        if kill {
            note(format_args!("the container is unhealthy: its program is killed"));
            let pid = self.sessions[0].pid;
            if let Err(e) = davit_sys::resident::signal_child(pid, 9) {
                note(format_args!("cannot kill process {pid}: {e}"));
            }
        }
    }

    /// The program has ended.
    pub(super) fn stop_health(&mut self) {
        let Some(health) = &mut self.health else { return };
        health.stop();
        for asker in std::mem::take(&mut health.askers) {
            self.answer(asker, Err(rules::wrong_state("the container has ended".into())));
        }
    }

    /// The kernel says that the container's memory has run out, or it is time to look who was killed for it.
    pub(super) fn tend_oom(&mut self, noticed: bool) {
        let now = Instant::now();
        let Some(oom) = &mut self.oom else { return };
        if noticed {
            oom.noticed(now);
        }
        if let Some(report) = oom.step(now) {
            let report = report.to_owned();
            self.tell_oom(report);
        }
    }

    /// The last look, when the program has ended.
    pub(super) fn last_oom(&mut self) {
        if let Some(report) = self.oom.as_mut().and_then(|o| o.check()).map(str::to_owned) {
            self.tell_oom(report);
        }
    }

    fn tell_oom(&mut self, report: String) {
        self.log.note(&format!("davit: {report}\n"), clock::unix_ns());
        self.tell_control(Event::Oom { report });
    }

    /// Output of a session that nobody is attached to: the probe's, as far as it is kept.
    pub(super) fn keep_probe_output(&mut self, id: u32, data: &[u8]) -> bool {
        let Some(kept) = self.session(id).filter(|s| s.id != MAIN).and_then(|s| s.probe.as_mut()) else {
            return false;
        };
        let room = crate::health::OUTPUT - kept.len().min(crate::health::OUTPUT);
        kept.extend_from_slice(&data[..data.len().min(room)]);
        true
    }
}

/// The container's own `process`, with another command and without a terminal.
fn process(config: &[u8], args: &[String]) -> Option<String> {
    let mut config: Value = serde_json::from_slice(config).ok()?;
    let mut process = config.get_mut("process")?.take();
    let object = process.as_object_mut()?;
    object.insert("args".into(), args.into());
    object.insert("terminal".into(), false.into());
    object.remove("consoleSize");
    Some(process.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_the_container_s_process_with_its_own_command() {
        let config =
            br#"{"process":{"args":["a"],"terminal":true,"consoleSize":{},"cwd":"/w","env":["A=1"]}}"#;
        let process: Value =
            serde_json::from_str(&process(config, &["b".into(), "c".into()]).unwrap()).unwrap();
        assert_eq!(
            process,
            serde_json::json!({"args": ["b", "c"], "terminal": false, "cwd": "/w", "env": ["A=1"]})
        );
    }
}
