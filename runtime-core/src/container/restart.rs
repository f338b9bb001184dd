//! Restart policies: when a container that ended is started again without a person, and how long that waits.
//!
//! ```text
//! running --ends--> restarting --(back-off)--> running          a person's stop, kill, rm -f: --> exited
//!                       ^   |  start fails: its reason is in State.Error
//!                       +---+
//! ```
//!
//! Owner: the container's task. Durable in the record: the count, the last wait, whether a person ended it. Invariants:
//! - who is ended by a person stays so, over restarts of runtimed, until a person starts it (`always`: or until the next boot, docker's rule);
//! - a restart that is due when runtimed dies is due again when it is back.

use std::time::Duration;

use davit_contracts::runtime::RestartPolicy;
use davit_wire::ExitRecord;
use tokio::time::Instant;

use super::state::{Ask, Status, judge};
use super::task::Task;
use crate::error::RuntimeError;
use crate::failpoint;

/// docker's first wait, and what it never exceeds.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// A program that ran for so long is no crash loop.
const SOUND: Duration = Duration::from_secs(10);

/// Whether it ever restarts anything.
pub fn is_policy(policy: &RestartPolicy) -> bool {
    !matches!(policy.name.as_str(), "" | "no")
}

/// Whether a container that ended with `code` starts again while the machine runs, after `count` restarts.
pub fn follows(policy: &RestartPolicy, code: i32, stopped: bool, count: u32) -> bool {
    let more = policy.max_retries == 0 || count < policy.max_retries;
    match policy.name.as_str() {
        _ if stopped => false,
        "always" | "unless-stopped" => true,
        "on-failure" => code != 0 && more,
        _ => false,
    }
}

/// Whether a boot starts a container that had ended before it.
pub fn boots(policy: &RestartPolicy, code: i32, stopped: bool, count: u32) -> bool {
    match policy.name.as_str() {
        "always" => true,
        _ => follows(policy, code, stopped, count),
    }
}

/// The wait before the next start: twice the last one, from the shortest again after a program that ran long enough.
pub fn wait(last_ms: u64, ran: Duration) -> Duration {
    if last_ms == 0 || ran >= SOUND {
        return SHORTEST;
    }
    Duration::from_millis(last_ms.saturating_mul(2)).min(LONGEST)
}

impl Task {
    /// Makes `restarting` of a container that has just ended, if its policy says so.
    pub(super) fn follow_policy(&mut self, exit: &ExitRecord) {
        let (policy, count) = (self.record.policy(), self.record.container.restart_count);
        if !follows(&policy, exit.code, self.record.stopped, count) {
            return;
        }
        let ran = exit.finished_unix_ns.saturating_sub(exit.started_unix_ns);
        let ran = if exit.started_unix_ns == 0 { 0 } else { u64::try_from(ran).unwrap_or(0) };
        self.restart_after(wait(self.record.backoff_ms, Duration::from_nanos(ran)));
    }

    /// The same for an init that has asked to be booted again, whatever the policy.
    pub(super) fn boot_again(&mut self) {
        self.record.rebooting = true;
        self.restart_after(SHORTEST);
    }

    fn restart_after(&mut self, wait: Duration) {
        self.record.backoff_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.record.container.restart_count += 1;
        "restarting".clone_into(&mut self.record.state_mut().status);
        self.restart_at = Some(Instant::now() + wait);
    }

    /// The restart that has become due. One that fails is tried again, and the container says why.
    pub(super) async fn start_again(&mut self) {
        self.restart_at = None;
        let Err(e) = Box::pin(self.start_once(false)).await else { return };
        if self.status() != Status::Restarting {
            return;
        }
        let code = e.command_exit_code().unwrap_or_else(|| self.record.state().exit_code);
        let state = self.record.state_mut();
        state.error = e.line();
        state.exit_code = code;
        tracing::warn!(container.id = self.record.short(), error = e.line(), "a restart failed");
        let code = if code == 0 { 128 } else { code };
        let count = self.record.container.restart_count;
        let again = (self.record.rebooting && !self.record.stopped)
            || follows(&self.record.policy(), code, self.record.stopped, count);
        if matches!(e, RuntimeError::Cut) || !again {
            "exited".clone_into(&mut self.record.state_mut().status);
            self.publish_exit();
            return;
        }
        self.restart_after(wait(self.record.backoff_ms, Duration::ZERO));
        self.publish();
    }

    /// A person starts it: what was before counts no more.
    pub(super) fn asked_to_start(&mut self) {
        self.restart_at = None;
        self.record.stopped = false;
        self.record.rebooting = false;
        self.record.backoff_ms = 0;
        self.record.container.restart_count = 0;
    }

    /// A person wants it ended: remembered before anything is done about it. Answers how often it had ended, if a program is there to end.
    pub(super) fn stopping(&mut self) -> Result<Option<u64>, RuntimeError> {
        let status = if self.record.held { Status::Running } else { self.status() };
        judge(Ask::Stop, status, &self.record.container.name).map_err(RuntimeError::WrongState)?;
        if !status.is_alive() {
            return Ok(None);
        }
        let known = std::mem::replace(&mut self.record.stopped, true);
        if !known && is_policy(&self.record.policy()) {
            self.record.save_durably(&self.directory())?;
        }
        failpoint::pass("stop.remembered");
        if status == Status::Restarting {
            self.stay_ended();
            return Ok(None);
        }
        self.publish();
        Ok(Some(self.exits))
    }

    /// Gives a restart up that is waited for.
    pub(super) fn stay_ended(&mut self) {
        self.restart_at = None;
        "exited".clone_into(&mut self.record.state_mut().status);
        self.publish_exit();
    }

    /// Takes up what a runtimed before us, or a boot, left to restart.
    pub fn resume_policy(&mut self, rebooted: bool) {
        let state = self.record.state();
        let policy = self.record.policy();
        match self.status() {
            Status::Restarting if self.restart_at.is_none() => {
                self.restart_at = Some(Instant::now() + Duration::from_millis(self.record.backoff_ms));
            }
            Status::Exited
                if rebooted
                    && state.started_unix_ns > 0
                    && boots(
                        &policy,
                        state.exit_code,
                        self.record.stopped,
                        self.record.container.restart_count,
                    ) =>
            {
                self.record.stopped = false;
                self.record.backoff_ms = 0;
                "restarting".clone_into(&mut self.record.state_mut().status);
                self.restart_at = Some(Instant::now());
                self.publish();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, max_retries: u32) -> RestartPolicy {
        RestartPolicy { name: name.into(), max_retries }
    }

    #[test]
    fn who_starts_again() {
        for (name, max, code, stopped, count, again, boot) in [
            ("", 0, 1, false, 0, false, false),
            ("no", 0, 1, false, 0, false, false),
            ("always", 0, 0, false, 9, true, true),
            ("always", 0, 0, true, 0, false, true),
            ("unless-stopped", 0, 0, false, 9, true, true),
            ("unless-stopped", 0, 0, true, 0, false, false),
            ("on-failure", 0, 0, false, 0, false, false),
            ("on-failure", 0, 3, false, 99, true, true),
            ("on-failure", 2, 3, false, 1, true, true),
            ("on-failure", 2, 3, false, 2, false, false),
            ("on-failure", 0, 137, true, 0, false, false),
        ] {
            let p = policy(name, max);
            let got = (follows(&p, code, stopped, count), boots(&p, code, stopped, count));
            assert_eq!(got, (again, boot), "{name}:{max} {code} {stopped} {count}");
        }
    }

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew_after_a_sound_run() {
        let mut waits = Vec::new();
        let mut last = 0;
        for _ in 0..12 {
            last = u64::try_from(wait(last, Duration::from_secs(9)).as_millis()).unwrap();
            waits.push(last);
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        assert_eq!(wait(60_000, Duration::from_secs(10)), SHORTEST);
    }
}
