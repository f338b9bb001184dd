//! Other limits and another restart policy for a container that is there.
//!
//! Order: checked, applied to the kernel, entered into the record with a flush. What the kernel refuses is put back as it was.

use davit_contracts::runtime::{Resources, RestartPolicy};
use davit_wire::{FEATURE_UPDATE, Request};
use serde_json::Value;

use super::restart::{follows, is_policy};
use super::state::{Ask, Status, judge};
use super::task::Task;
use crate::error::RuntimeError;
use crate::spec::{check, update};
use crate::usage;

impl Task {
    /// Answers warnings.
    pub(super) async fn update(
        &mut self,
        resources: Option<Box<Resources>>,
        restart: Option<RestartPolicy>,
    ) -> Result<Vec<String>, RuntimeError> {
        judge(Ask::Rename, self.status(), &self.record.container.name).map_err(RuntimeError::WrongState)?;
        let mut spec = self.spec_of();
        if let Some(policy) = restart.clone() {
            spec.restart = Some(policy);
            check::restart(&spec)?;
        }
        if let Some(asked) = resources.filter(|r| **r != Resources::default()) {
            let old = spec.resources.clone().unwrap_or_default();
            let change = update::change(&old, &asked, &self.engine.host)?;
            if matches!(self.status(), Status::Running | Status::Paused) || self.record.held {
                self.apply(&change).await?;
            }
            spec.resources = Some(change.next);
        }
        self.record.container.spec = Some(spec);
        self.record.save_durably(&self.directory())?;
        if self.status() == Status::Restarting && restart.is_some() {
            let state = self.record.state();
            let count = self.record.container.restart_count.saturating_sub(1);
            if !follows(&self.record.policy(), state.exit_code, self.record.stopped, count) {
                self.stay_ended();
            }
        }
        if restart.as_ref().is_some_and(is_policy) && self.status().is_alive() {
            self.record.stopped = false;
        }
        self.publish();
        self.emit("update", &[]);
        Ok(Vec::new())
    }

    async fn apply(&self, change: &update::Change) -> Result<(), RuntimeError> {
        let name = &self.record.container.name;
        let monitor = self.monitor.as_ref();
        if !monitor.is_some_and(|m| m.features.iter().any(|f| f == FEATURE_UPDATE)) {
            return Err(RuntimeError::Unsupported(format!(
                "the monitor of container {name} is of an older davit: stop the container to change its limits"
            )));
        }
        if let (Some(limit), Some(process)) = (change.memory, self.record.process) {
            let used = usage::memory_in_use(process.pid);
            if used > limit {
                return Err(RuntimeError::Invalid(format!(
                    "container {name} uses {used} bytes of memory: its limit cannot be {limit}"
                )));
            }
        }
        let ask = |object: &Value| self.request(Request::Update { resources: object.to_string() });
        if let Err(e) = ask(&change.apply).await {
            if let Err(undone) = ask(&change.undo).await {
                tracing::warn!(
                    container.id = self.record.short(),
                    error = undone.line(),
                    "limits that were refused in part are not put back"
                );
            }
            return Err(e);
        }
        Ok(())
    }
}
