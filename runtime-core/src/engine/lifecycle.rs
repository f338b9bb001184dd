//! Requests that take several steps of a container's task: stop, restart, forced removal, waiting.

use std::time::Duration;

use davit_contracts::network::Drift;
use davit_contracts::runtime::wait_request::Condition;
use tokio::sync::watch;

use super::Engine;
use crate::container::handle::{Command, Handle, View};
use crate::container::reattach::{self, Lost};
use crate::container::record::ProcessRecord;
use crate::container::start::Started;
use crate::container::state::{Ask, Verdict, judge};
use crate::error::RuntimeError;
use crate::signal;
use crate::spec::system::{self, Init};

/// docker's patience with a program that was asked to stop.
const STOP_TIMEOUT_S: u32 = 10;
/// How long a start that is under way may still take when somebody wants the container stopped.
pub const START_PATIENCE: Duration = Duration::from_secs(2);
/// A killed program that does not go is stuck in the kernel.
const KILL_PATIENCE: Duration = Duration::from_secs(30);

impl Engine {
    /// Stop signal, patience, SIGKILL.
    pub async fn stop(
        &self,
        handle: &Handle,
        timeout_s: Option<u32>,
        asked: &str,
    ) -> Result<(), RuntimeError> {
        let view = handle.view();
        let name = view.record.container.name.clone();
        let legal = judge(Ask::Stop, effective(&view), &name).map_err(RuntimeError::WrongState)?;
        if legal == Verdict::Already && !view.starting {
            return Ok(());
        }
        let spec = view.record.container.spec.clone().unwrap_or_default();
        let init = Init::parse(&view.record.init);
        let first = view.record.process.map(ProcessRecord::as_ref);
        let own = init.map_or("", |init| system::prepare_stop(init, first));
        let text = [asked, &spec.stop_signal, own, &view.record.image.stop_signal];
        let text = text.into_iter().find(|t| !t.is_empty()).unwrap_or("TERM");
        let number = signal::parse(text).or(if asked.is_empty() { Some(signal::TERM) } else { None });
        let number = number.ok_or_else(|| RuntimeError::Invalid(format!("invalid signal: {text}")))?;
        let default = if init.is_some() { system::STOP_TIMEOUT_S } else { STOP_TIMEOUT_S };
        let patience = Duration::from_secs(timeout_s.or(spec.stop_timeout_s).unwrap_or(default).into());
        let mut watch = handle.watch();
        let before = match handle.insist(START_PATIENCE, |answer| Command::Stopping { answer }).await {
            Ok(Some(before)) => before,
            // It waited for its next start, or has just ended.
            Ok(None) => {
                self.emit_for(&watch.borrow(), "stop", &[]);
                return Ok(());
            }
            Err(RuntimeError::Removing(_)) => return Ok(()),
            Err(e) => return Err(e),
        };
        self.send(handle, number, "kill").await?;
        if !ends(&mut watch, before, patience).await {
            self.send(handle, signal::KILL, "kill").await?;
            if !ends(&mut watch, before, KILL_PATIENCE).await {
                return Err(RuntimeError::WrongState(format!(
                    "container {name} did not end, not even after SIGKILL"
                )));
            }
        }
        self.emit_for(&watch.borrow(), "stop", &[]);
        Ok(())
    }

    /// One signal; that the program ended meanwhile is no failure of a stop.
    async fn send(&self, handle: &Handle, number: i32, action: &'static str) -> Result<(), RuntimeError> {
        match handle.ask(|answer| Command::Signal { signal: number, action, answer }).await {
            Err(e) if effective(&handle.view()).is_alive() && !matches!(e, RuntimeError::Removing(_)) => {
                Err(e)
            }
            _ => Ok(()),
        }
    }

    /// Stops what runs, then starts.
    pub async fn restart(
        &self,
        handle: &Handle,
        timeout_s: Option<u32>,
        signal: &str,
    ) -> Result<Started, RuntimeError> {
        let view = handle.view();
        judge(Ask::Restart, view.status(), &view.record.container.name).map_err(RuntimeError::WrongState)?;
        self.stop(handle, timeout_s, signal).await?;
        let started = handle.ask(|answer| Command::Start { hold: false, answer }).await?;
        self.emit_for(&handle.view(), "restart", &[]);
        Ok(started)
    }

    /// Journals the removal; with force a living program is killed first.
    pub async fn remove(&self, handle: &Handle, force: bool, volumes: bool) -> Result<(), RuntimeError> {
        Self::not_a_pod(&handle.view().record, "removed")?;
        self.remove_one(handle, force, volumes).await
    }

    /// The same, also of the infra container of a pod that goes as a whole.
    pub(super) async fn remove_one(
        &self,
        handle: &Handle,
        force: bool,
        volumes: bool,
    ) -> Result<(), RuntimeError> {
        let view = handle.view();
        if force && (view.starting || effective(&view).is_alive()) {
            let mut watch = handle.watch();
            let before = match handle.insist(Duration::ZERO, |answer| Command::Stopping { answer }).await {
                Ok(before) => before,
                Err(RuntimeError::Removing(_)) => return Ok(()),
                Err(e) => return Err(e),
            };
            if before.is_some() {
                self.send(handle, signal::KILL, "kill").await?;
            }
            if let Some(before) = before
                && !ends(&mut watch, before, KILL_PATIENCE).await
            {
                return Err(RuntimeError::WrongState(format!(
                    "container {} did not end, not even after SIGKILL",
                    view.record.container.name
                )));
            }
        }
        match handle.ask(|answer| Command::Remove { volumes, answer }).await {
            // Its automatic removal was faster.
            Err(RuntimeError::Removing(_)) if force => Ok(()),
            other => other,
        }
    }

    /// Blocks until the condition holds; answers the exit code and error.
    pub async fn wait(
        &self,
        handle: &Handle,
        condition: Condition,
        states: &[String],
    ) -> Result<(i32, String), RuntimeError> {
        if let Some(unknown) = states.iter().find(|s| !STATES.contains(&s.as_str())) {
            let known = STATES.join(", ");
            return Err(RuntimeError::Invalid(format!("unknown state '{unknown}' to wait for: {known}")));
        }
        if condition == Condition::States && states.is_empty() {
            return Err(RuntimeError::Invalid("no state to wait for is named".into()));
        }
        let mut watch = handle.watch();
        let before = watch.borrow().exits;
        let holds = |v: &View| match condition {
            Condition::Unspecified | Condition::NotRunning => v.gone || !effective(v).is_alive(),
            Condition::NextExit => v.gone || v.exits > before,
            Condition::Removed => v.gone,
            Condition::States => v.gone || states.iter().any(|s| is_in(v, s)),
        };
        // A closed channel: the container is gone, and its last view is still there.
        let _ = watch.wait_for(holds).await;
        let view = watch.borrow();
        let state = view.record.state();
        if condition == Condition::States && view.gone && !states.iter().any(|s| s == "removing") {
            return Err(RuntimeError::Removing(view.record.container.name.clone()));
        }
        Ok((state.exit_code, state.error))
    }

    /// Compares the networks of all that runs with what netd has; also answers the ids of those that netd does not know.
    pub async fn check_networks(&self, repair: bool) -> Result<(Vec<Drift>, Vec<String>), RuntimeError> {
        let known = reattach::known(&self.peers).await?;
        let (mut drifts, mut detached) = (Vec::new(), Vec::new());
        for handle in self.registry.all() {
            let view = handle.view();
            let lost = reattach::lost(&view.record, effective(&view).is_alive(), &known);
            if lost == Lost::Nothing {
                continue;
            }
            let found = match handle.ask(|answer| Command::CheckNetworks { repair, answer }).await {
                Err(RuntimeError::Removing(_)) => continue,
                found => found?,
            };
            if lost == Lost::Whole && found.iter().any(|d| !d.repaired) {
                detached.push(handle.id.clone());
            }
            drifts.extend(found);
        }
        Ok((drifts, detached))
    }

    /// Records an event of a container with docker's attributes.
    pub fn emit_for(&self, view: &View, action: &str, extra: &[(&str, String)]) {
        let c = &view.record.container;
        let mut attributes = c.spec.as_ref().map(|s| s.labels.clone()).unwrap_or_default();
        attributes.insert("name".into(), c.name.clone());
        attributes.insert("image".into(), c.image.clone());
        attributes.extend(extra.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        self.events.emit("container", action, &c.id, attributes);
    }
}

/// docker's and podman's words for what can be waited for.
const STATES: &[&str] = &[
    "created",
    "running",
    "paused",
    "restarting",
    "exited",
    "stopped",
    "removing",
    "starting",
    "healthy",
    "unhealthy",
];

fn is_in(view: &View, state: &str) -> bool {
    let word = view.record.status();
    match state {
        "stopped" => !view.starting && !view.record.held && matches!(word, "created" | "exited"),
        "starting" | "healthy" | "unhealthy" => view.record.state().health == state,
        "removing" => view.gone,
        other => word == other && !view.gone,
    }
}

/// A program that is held for a client counts as one that runs.
fn effective(view: &View) -> crate::container::state::Status {
    use crate::container::state::Status;
    if view.record.held && !view.gone { Status::Running } else { view.status() }
}

async fn ends(watch: &mut watch::Receiver<View>, before: u64, patience: Duration) -> bool {
    let ended = watch.wait_for(|v| v.gone || v.exits > before);
    tokio::time::timeout(patience, ended).await.is_ok()
}
