//! What a container's monitor finds out about its health, its memory and its log.

use std::sync::Arc;

use davit_contracts::runtime::{self as contract, HealthLog};
use davit_wire::{Health, HealthCheck, HealthStatus, MonitorState, ProbeResult, Reply, Request};

use super::handle::Answer;
use super::state::{Ask, judge};
use super::task::Task;
use crate::error::RuntimeError;
use crate::monitor::link::LinkError;
use crate::spec::health::{merged, plan};

/// As clients see it.
pub fn result(r: ProbeResult) -> contract::ProbeResult {
    contract::ProbeResult {
        start_unix_ns: r.start_unix_ns,
        end_unix_ns: r.end_unix_ns,
        exit_code: r.exit_code,
        output: r.output,
    }
}

impl Task {
    /// What the monitor is to try. An image's check that is not understood is none, as docker has it.
    pub(super) fn health_check(&self) -> Option<HealthCheck> {
        let asked = self.record.container.spec.as_ref().and_then(|s| s.health.as_ref());
        let spec = merged(asked, self.record.image.healthcheck.as_ref())?;
        plan(&spec, &self.record.image.shell).unwrap_or_else(|e| {
            tracing::warn!(
                container.id = self.record.short(),
                error = e.line(),
                "the health check is not run"
            );
            None
        })
    }

    /// Enters that nothing is known yet; to be saved with the start.
    pub(super) fn health_starts(&mut self, check: Option<&HealthCheck>) {
        self.enter_health(check.map(|_| Health::default()));
        let state = self.record.state_mut();
        state.log_dropped_bytes = 0;
        state.log_error.clear();
    }

    fn enter_health(&mut self, health: Option<Health>) {
        let state = self.record.state_mut();
        health.as_ref().map_or("", |h| h.status.word()).clone_into(&mut state.health);
        state.health_log = health.map(|h| HealthLog {
            failing_streak: h.failing_streak,
            results: h.log.into_iter().map(result).collect(),
        });
    }

    /// A probe has ended.
    pub(super) fn health_found(&mut self, health: Health) {
        let (word, now) = (self.record.state().health, health.status);
        self.enter_health(Some(health));
        if word == now.word() {
            // The results are with the monitor, and need no writing each time.
            return self.show();
        }
        self.publish();
        self.emit(&format!("health_status: {}", now.word()), &[]);
        if now == HealthStatus::Unhealthy {
            self.act_on_failure();
        }
    }

    /// The program has ended; docker calls that unhealthy.
    pub(super) fn health_stops(&mut self) {
        let state = self.record.state_mut();
        if !state.health.is_empty() {
            HealthStatus::Unhealthy.word().clone_into(&mut state.health);
        }
    }

    /// Killing is the monitor's part.
    fn act_on_failure(&self) {
        let spec = self.record.container.spec.as_ref().and_then(|s| s.health.as_ref());
        let action = spec.map_or(String::new(), |s| s.on_failure.clone());
        if !matches!(action.as_str(), "stop" | "restart") {
            return;
        }
        let (engine, id) = (Arc::clone(&self.engine), self.record.id().to_owned());
        tokio::spawn(async move {
            let Ok(handle) = engine.registry.find(&id) else { return };
            let done = match action.as_str() {
                "stop" => engine.stop(&handle, None, "").await.map(drop),
                _ => engine.restart(&handle, None, "").await.map(drop),
            };
            if let Err(e) = done {
                tracing::error!(
                    container.id = id,
                    error = e.line(),
                    action,
                    "on the failure of its health check"
                );
            }
        });
    }

    /// Memory ran out, and something was killed for it.
    pub(super) fn memory_ran_out(&mut self, report: String) {
        self.record.state_mut().oom_killed = true;
        self.publish();
        self.emit("oom", &[("report", report)]);
    }

    /// Output is missing in the log.
    pub(super) fn log_dropped(&mut self, bytes: u64, why: String) {
        let state = self.record.state_mut();
        state.log_dropped_bytes = bytes;
        state.log_error = why;
        self.show();
    }

    /// What happened while no runtimed was there; events are told for what is new.
    pub(super) fn catch_up(&mut self, state: &MonitorState, oom_was_told: bool) {
        self.record.state_mut().log_dropped_bytes = state.log_dropped_bytes;
        self.record.state_mut().log_error.clone_from(&state.log_error);
        self.record.state_mut().oom_killed = state.oom_killed;
        if state.oom_killed && !oom_was_told {
            self.memory_ran_out("killed while davit-runtimed was not there".into());
        }
        if let Some(health) = &state.health {
            self.health_found(health.clone());
        }
    }

    /// Tries now. It may take as long as a probe may, and nobody else waits for that.
    pub(super) fn probe(&self, answer: Answer<ProbeResult>) {
        let name = &self.record.container.name;
        let link = match (judge(Ask::Exec, self.status(), name), &self.monitor) {
            (Ok(_), Some(monitor)) => monitor.link.clone(),
            (Err(why), _) => return drop(answer.send(Err(RuntimeError::WrongState(why)))),
            (Ok(_), None) => {
                let why = format!("container {name} is not running");
                return drop(answer.send(Err(RuntimeError::WrongState(why))));
            }
        };
        let id = self.record.short().to_owned();
        tokio::spawn(async move {
            let _ = answer.send(match link.request(Request::Probe).await {
                Ok(Ok(Reply::Probed(result))) => Ok(result),
                Ok(Ok(_)) => Err(RuntimeError::Link { id, source: LinkError::Unexpected }),
                Ok(Err(failure)) => {
                    Err(RuntimeError::Monitor { kind: failure.kind, message: failure.message })
                }
                Err(source) => Err(RuntimeError::Link { id, source }),
            });
        });
    }
}
