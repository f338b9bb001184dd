//! What a container's task does when something happened to the program, and with the short commands.

use std::fs;

use davit_wire::{Event, ExitRecord, Failure, FailureKind, Phase, Request};

use super::leftovers::Leftovers;
use super::record::{ProcessRecord, read_exit};
use super::remove::{MARKER, Removing, recorded_monitor};
use super::state::{Ask, Status, judge};
use super::task::{Flow, Task};
use crate::clock::unix_ns;
use crate::error::{RuntimeError, io_error};
use crate::failpoint;
use crate::monitor::link::connect;
use crate::signal;

impl Task {
    /// Takes an event of the monitor.
    pub(super) fn happened(&mut self, event: Event) -> Flow {
        match event {
            Event::Started { pid, unix_ns } => {
                if !self.status().is_alive() {
                    self.running(pid, unix_ns);
                    self.emit_networks("connect", &self.record.container.endpoints);
                    self.emit("start", &[]);
                    self.publish();
                }
                Flow::On
            }
            Event::StartFailed(failure) => {
                let exit = failed_start(&failure);
                self.ended(&exit)
            }
            Event::Exited(exit) => self.ended(&exit),
            Event::Health(health) => {
                self.health_found(health);
                Flow::On
            }
            Event::Oom { report } => {
                self.memory_ran_out(report);
                Flow::On
            }
            Event::LogDropped { bytes, why } => {
                self.log_dropped(bytes, why);
                Flow::On
            }
            Event::ExecStarted { exec_id, pid } => {
                self.engine.execs.started(&exec_id, pid);
                let action = format!("exec_start: {}", self.engine.execs.command(&exec_id));
                self.emit(action.trim_end_matches(": "), &[("execID", exec_id)]);
                Flow::On
            }
            Event::ExecExited { exec_id, record } => {
                self.engine.execs.ended(&exec_id, record.code);
                self.emit("exec_die", &[("execID", exec_id), ("exitCode", record.code.to_string())]);
                Flow::On
            }
        }
    }

    /// Enters that the program runs.
    pub(super) fn running(&mut self, pid: i32, started_unix_ns: i64) {
        self.record.held = false;
        self.record.unseen = false;
        self.record.rebooting = false;
        if pid > 0 {
            self.record.process = ProcessRecord::of(pid);
        }
        let pid = if pid > 0 { pid } else { self.record.process.map_or(0, |p| p.pid) };
        let state = self.record.state_mut();
        "running".clone_into(&mut state.status);
        state.pid = pid;
        state.exit_code = 0;
        state.error.clear();
        state.oom_killed = false;
        state.started_unix_ns = if started_unix_ns > 0 { started_unix_ns } else { unix_ns() };
    }

    /// The program has ended (or never began): publish first, then let go of everything.
    pub(super) fn ended(&mut self, exit: &ExitRecord) -> Flow {
        self.engine.execs.container_ended(self.record.id());
        let endpoints = std::mem::take(&mut self.record.container.endpoints);
        if exit.oom_killed && !self.record.state().oom_killed {
            // While no runtimed was there to hear of it.
            self.memory_ran_out(exit.error.clone());
        }
        self.record.ended(exit);
        self.health_stops();
        self.emit("die", &[("exitCode", exit.code.to_string())]);
        self.emit_networks("disconnect", &endpoints);
        failpoint::pass("exit.told");
        if let Some(monitor) = self.monitor.take() {
            self.teardown.monitor = Some(monitor);
        }
        self.teardown.detach |= self.record.attached;
        self.teardown.run_dir = true;
        // A system container that asked for it is started again, as a machine is.
        let reboot = exit.reboot && !self.record.stopped;
        if self.record.auto_remove() && !reboot {
            self.publish_exit();
            match self.remove(true) {
                Ok(()) => return Flow::End,
                Err(e) => {
                    tracing::error!(
                        container.id = self.record.short(),
                        error = e.line(),
                        "automatic removal failed"
                    );
                }
            }
        }
        if reboot {
            self.boot_again();
        } else if exit.started_unix_ns != 0 {
            self.follow_policy(exit);
        }
        self.publish_exit();
        Flow::On
    }

    /// The monitor's connection ended without an exit.
    pub(super) async fn monitor_died(&mut self) -> Flow {
        let run = self.engine.dirs.run_dir(self.record.id());
        if let Some(process) = self.monitor.as_ref().map(|m| m.process)
            && process.as_ref().is_alive()
            && let Ok(Ok(connected)) =
                tokio::time::timeout(std::time::Duration::from_secs(2), connect(&run.socket())).await
        {
            // Only the connection broke.
            let state = connected.welcome.state.clone();
            self.monitor = Some(connected.into());
            return match state.exit {
                Some(exit) if state.phase == Phase::Exited => self.ended(&exit),
                _ => Flow::On,
            };
        }
        self.monitor = None;
        let exit = read_exit(&run.exit()).unwrap_or_else(|| self.lost());
        self.teardown.leftovers = Some(self.leftovers());
        self.ended(&exit)
    }

    /// The record of a program whose end nobody saw.
    fn lost(&self) -> ExitRecord {
        ExitRecord {
            code: 137,
            signal: Some(signal::KILL),
            oom_killed: false,
            started_unix_ns: self.record.state().started_unix_ns,
            finished_unix_ns: unix_ns(),
            error: "the container's monitor died; its processes were killed".to_owned(),
            ..ExitRecord::default()
        }
    }

    fn leftovers(&self) -> Leftovers {
        let run = self.engine.dirs.run_dir(self.record.id());
        let runtime = self.engine.config.runtime(&self.record.container.runtime).ok();
        Leftovers {
            id: self.record.id().to_owned(),
            process: self.record.process,
            monitor: recorded_monitor(&run).or(self.record.monitor),
            runtime: runtime.map(|(_, command)| (command, run.runtime_root())),
            cgroup_parent: self
                .record
                .container
                .spec
                .as_ref()
                .map(|s| s.cgroup_parent.clone())
                .unwrap_or_default(),
        }
    }

    /// Removes a container whose run was cut before its program began.
    fn give_up(&mut self) -> Flow {
        tracing::info!(
            container.id = self.record.short(),
            "removing a container whose run was never finished"
        );
        if let Some(monitor) = self.monitor.take() {
            self.teardown.monitor = Some(monitor);
        }
        self.record.held = false;
        self.teardown.detach = true;
        self.teardown.run_dir = true;
        match self.remove(true) {
            Ok(()) => Flow::End,
            Err(e) => {
                tracing::error!(container.id = self.record.short(), error = e.line(), "it cannot be removed");
                Flow::On
            }
        }
    }

    /// The client for which the program was held has not come: it died between the answer and its attaching.
    pub(super) async fn nobody_came(&mut self) -> Flow {
        if self.record.unseen && self.record.auto_remove() {
            return self.give_up();
        }
        tracing::info!(container.id = self.record.short(), "nobody attached: the start is taken back");
        self.record.unseen = false;
        self.abandon().await;
        self.publish();
        Flow::On
    }

    /// Takes a container over from a runtimed before us. Network and storage are not asked here: they may not be there yet.
    pub async fn adopt(&mut self) -> Flow {
        let run = self.engine.dirs.run_dir(self.record.id());
        let was_alive = matches!(self.status(), Status::Running | Status::Paused) || self.record.held;
        if !run.path().exists() {
            if !was_alive {
                return if self.record.unseen { self.give_up() } else { Flow::On };
            }
            let state_exit = read_exit(&self.directory().join("exit.json"));
            let exit = state_exit.filter(|e| e.finished_unix_ns >= self.record.state().started_unix_ns);
            let exit = exit.unwrap_or_else(|| self.lost());
            self.teardown.leftovers = Some(self.leftovers());
            return self.ended(&exit);
        }
        self.teardown.detach = self.record.attached;
        let connected = match connect(&run.socket()).await {
            Ok(c) if c.welcome.state.container_id == self.record.id() => c,
            _ if was_alive => {
                self.teardown.detach = true;
                return self.monitor_died().await;
            }
            _ => {
                self.teardown.leftovers = Some(self.leftovers());
                self.teardown.detach = true;
                self.teardown.run_dir = true;
                return if self.record.unseen { self.give_up() } else { Flow::On };
            }
        };
        let state = connected.welcome.state.clone();
        self.record.monitor =
            Some(ProcessRecord { pid: state.monitor_pid, start_time: state.monitor_start_time });
        match state.phase {
            Phase::Running | Phase::Paused => {
                self.monitor = Some(connected.into());
                self.teardown.detach = false;
                self.record.attached = true;
                let oom_was_told = self.record.state().oom_killed;
                self.running(state.pid, state.started_unix_ns);
                self.catch_up(&state, oom_was_told);
                // Read once: what is paused later is paused by a person.
                let copying = std::mem::take(&mut self.record.copying);
                if state.phase == Phase::Paused && copying {
                    self.thaw().await;
                } else if state.phase == Phase::Paused {
                    "paused".clone_into(&mut self.record.state_mut().status);
                }
                self.engine.execs.adopt(self.record.id(), &state.execs);
                for exit in &state.exec_exits {
                    self.engine.execs.adopt_ended(self.record.id(), &exit.exec_id, exit.record.code);
                }
                self.publish();
                Flow::On
            }
            Phase::Created if self.record.held => {
                self.teardown.detach = false;
                self.monitor = Some(connected.into());
                Flow::On
            }
            Phase::Exited => {
                self.monitor = Some(connected.into());
                self.record.attached = true;
                let exit = state.exit.unwrap_or_else(|| self.lost());
                if !was_alive && exit.finished_unix_ns == self.record.state().finished_unix_ns {
                    // The runtimed before us told of this end.
                    self.teardown.monitor = self.monitor.take();
                    self.teardown.detach = true;
                    self.teardown.run_dir = true;
                    return Flow::On;
                }
                self.ended(&exit)
            }
            // A start that nobody was told of.
            Phase::Ready | Phase::Created if self.record.unseen => {
                self.monitor = Some(connected.into());
                self.give_up()
            }
            Phase::Ready | Phase::Created => {
                self.teardown.monitor = Some(connected.into());
                self.teardown.detach = true;
                self.teardown.run_dir = true;
                Flow::On
            }
        }
    }

    /// Sends a signal.
    pub(super) async fn signal(&mut self, number: i32, action: &'static str) -> Result<(), RuntimeError> {
        let status = if self.record.held { Status::Running } else { self.status() };
        if status == Status::Restarting && self.ends_it(number) {
            self.stopping()?;
            self.emit(action, &[("signal", number.to_string())]);
            return Ok(());
        }
        judge(Ask::Kill, status, &self.record.container.name).map_err(RuntimeError::WrongState)?;
        if action == "kill" && self.ends_it(number) {
            // Before it is sent: the program may be gone, and its policy asked, in no time.
            self.stopping()?;
        }
        self.request(Request::Kill { signal: number, all: false }).await?;
        failpoint::pass("stop.signalled");
        if status == Status::Paused && number != signal::KILL {
            // A frozen program takes its signal when it thaws. After SIGKILL the monitor sees to that by itself.
            self.freeze(false).await?;
        }
        self.emit(action, &[("signal", number.to_string())]);
        Ok(())
    }

    /// Whether a signal is a person's way to end the program for good: SIGKILL, or the one that `stop` sends. Others are words to the
    /// program, which may end, and start again, as it likes.
    fn ends_it(&self, number: i32) -> bool {
        let spec = self.record.container.spec.as_ref();
        let own = spec.map_or("", |s| s.stop_signal.as_str());
        let text =
            [own, &self.record.image.stop_signal].into_iter().find(|t| !t.is_empty()).unwrap_or("TERM");
        number == signal::KILL || Some(number) == signal::parse(text)
    }

    /// Freezes or thaws.
    pub(super) async fn freeze(&mut self, freeze: bool) -> Result<(), RuntimeError> {
        let (ask, request, word, action) = if freeze {
            (Ask::Pause, Request::Pause, "paused", "pause")
        } else {
            (Ask::Unpause, Request::Resume, "running", "unpause")
        };
        judge(ask, self.status(), &self.record.container.name).map_err(RuntimeError::WrongState)?;
        self.request(request).await?;
        word.clone_into(&mut self.record.state_mut().status);
        self.publish();
        self.emit(action, &[]);
        Ok(())
    }

    fn drop_log(&self) {
        let entries = fs::read_dir(self.directory()).into_iter().flatten().flatten();
        for entry in entries.filter(|e| e.file_name().to_string_lossy().contains(".log")) {
            // The monitor may still have it open: only without content does it give its room back.
            let _ = fs::File::options().write(true).open(entry.path()).and_then(|f| f.set_len(0));
            let _ = fs::remove_file(entry.path());
        }
    }

    /// Journals the removal: the directory goes to `trash/`, the name is free. The rest follows when the task ends.
    pub(super) fn remove(&mut self, volumes: bool) -> Result<(), RuntimeError> {
        let status = self.status();
        judge(Ask::Remove, status, &self.record.container.name).map_err(RuntimeError::WrongState)?;
        let directory = self.directory();
        let trashed = self.engine.dirs.trashed(self.record.id());
        let marker = serde_json::to_vec(&Removing { volumes }).expect("a plain struct always serialises");
        let path = directory.join(MARKER);
        let written = fs::write(&path, &marker).or_else(|e| {
            if e.kind() != std::io::ErrorKind::StorageFull {
                return Err(e);
            }
            // On a full disk there is room for the journal where the log was, which goes with the container anyway.
            self.drop_log();
            fs::write(&path, &marker)
        });
        written.map_err(io_error("write", &path))?;
        failpoint::pass("remove.marked");
        fs::rename(&directory, &trashed).map_err(io_error("move to the trash", &directory))?;
        failpoint::pass("remove.trashed");
        self.engine.registry.remove(self.record.id());
        if self.teardown.leftovers.is_none() {
            // Its program has ended and all else in its pid namespace with it; files keep no ids of the host.
            self.engine.registry.free_ids(self.record.id());
        }
        self.emit("destroy", &[]);
        if let Some(monitor) = self.monitor.take() {
            self.teardown.monitor = Some(monitor);
        }
        if status == Status::Dead {
            // Its monitor and its processes may be there all the same.
            self.teardown.leftovers = Some(self.leftovers());
        }
        self.teardown.detach |= self.record.attached;
        self.teardown.run_dir = true;
        self.teardown.release = self.record.volumes.then_some(volumes);
        self.teardown.snapshot = true;
        self.teardown.directory = Some(trashed);
        Ok(())
    }
}

/// docker's codes for programs that never ran.
pub fn failed_start(failure: &Failure) -> ExitRecord {
    let code = match failure.kind {
        FailureKind::CommandNotFound => 127,
        FailureKind::CommandNotRunnable => 126,
        _ => 128,
    };
    ExitRecord { code, finished_unix_ns: unix_ns(), error: failure.message.clone(), ..ExitRecord::default() }
}
