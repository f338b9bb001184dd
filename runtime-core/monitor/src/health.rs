//! The container's health: when it is tried, and what the results mean. docker's rules.
//!
//! ```text
//! due --(time)--> running --(result, or too long)--> due
//! ```
//!
//! State and time only; [`crate::monitor`] runs the probes. A program inside is an exec session that nobody is told of, a connection is in
//! [`net`]. While the container is paused nothing is due, and the time of a probe begins anew afterwards.

pub mod net;
pub mod tree;

use std::time::{Duration, Instant};

use davit_wire::{Health, HealthCheck, HealthStatus, ProbeResult};

use crate::monitor::Asker;
use net::NetProbe;

/// Results kept.
const RESULTS: usize = 5;

/// Bytes kept of what a probe wrote.
pub const OUTPUT: usize = 4096;

/// A probe under way.
#[derive(Debug)]
pub struct Running {
    /// When it began.
    pub start_ns: i64,
    /// What it is.
    pub kind: Kind,
    deadline: Instant,
}

/// What runs.
#[derive(Debug)]
pub enum Kind {
    /// This session.
    Session(u32),
    /// A connection.
    Net(NetProbe),
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Wait,
    /// Begin a probe.
    Begin,
    /// The running one has taken too long.
    GiveUp,
}

/// One container's health.
#[derive(Debug)]
pub struct Checker {
    /// As configured.
    pub check: HealthCheck,
    /// As found.
    pub health: Health,
    /// The probe under way.
    pub running: Option<Running>,
    /// Who waits for the result.
    pub askers: Vec<Asker>,
    started: Option<Instant>,
    due: Option<Instant>,
    paused: bool,
}

impl Checker {
    /// Of a program that does not run yet.
    pub fn new(check: HealthCheck) -> Self {
        let health = Health::default();
        Self { check, health, running: None, askers: Vec::new(), started: None, due: None, paused: false }
    }

    /// The program runs.
    pub fn start(&mut self, now: Instant) {
        self.started = Some(now);
        self.schedule(now);
    }

    /// The program has ended: docker calls that unhealthy.
    pub fn stop(&mut self) {
        self.started = None;
        self.due = None;
        self.running = None;
        self.health.status = HealthStatus::Unhealthy;
    }

    fn schedule(&mut self, now: Instant) {
        let ms = if self.is_starting(now) { self.check.start_interval_ms } else { self.check.interval_ms };
        self.due = Some(now + Duration::from_millis(ms.max(1)));
    }

    /// Within the start period, before the first success.
    fn is_starting(&self, now: Instant) -> bool {
        let period = Duration::from_millis(self.check.start_period_ms);
        self.health.status == HealthStatus::Starting && self.started.is_some_and(|at| now < at + period)
    }

    /// How long one probe may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.check.timeout_ms.max(1))
    }

    /// How long until there is something to do.
    pub fn patience(&self, now: Instant) -> Option<Duration> {
        if self.paused {
            return None;
        }
        let at = self.running.as_ref().map(|r| r.deadline).or(self.due)?;
        Some(at.saturating_duration_since(now))
    }

    /// What is to be done.
    pub fn step(&mut self, now: Instant, paused: bool) -> Step {
        if self.started.is_none() {
            return Step::Wait;
        }
        let was_paused = std::mem::replace(&mut self.paused, paused);
        if paused {
            return Step::Wait;
        }
        let timeout = self.timeout();
        match &mut self.running {
            Some(running) if was_paused => {
                running.deadline = now + timeout;
                Step::Wait
            }
            Some(running) if running.deadline <= now => Step::GiveUp,
            None if self.due.is_some_and(|at| at <= now) => Step::Begin,
            _ => Step::Wait,
        }
    }

    /// A probe has begun.
    pub fn begun(&mut self, kind: Kind, now: Instant, start_ns: i64) {
        self.running = Some(Running { start_ns, kind, deadline: now + self.timeout() });
    }

    /// A probe has ended, or could not be run; whether the container has just become unhealthy.
    pub fn ended(&mut self, result: ProbeResult, now: Instant) -> bool {
        self.running = None;
        let before = self.health.status;
        if result.exit_code == 0 {
            self.health.failing_streak = 0;
            self.health.status = HealthStatus::Healthy;
        } else if !self.is_starting(now) {
            self.health.failing_streak += 1;
            if self.health.failing_streak >= self.check.retries.max(1) {
                self.health.status = HealthStatus::Unhealthy;
            }
        }
        if self.health.log.len() == RESULTS {
            self.health.log.remove(0);
        }
        self.health.log.push(result);
        self.schedule(now);
        self.health.status == HealthStatus::Unhealthy && before != HealthStatus::Unhealthy
    }

    /// Whether this session is the probe under way.
    pub fn is_session(&self, id: u32) -> bool {
        self.running.as_ref().is_some_and(|r| matches!(r.kind, Kind::Session(s) if s == id))
    }
}

/// What a probe wrote, as far as it is kept.
pub fn text(output: &[u8]) -> String {
    let kept = &output[..output.len().min(OUTPUT)];
    String::from_utf8_lossy(kept).into_owned()
}

/// What is said of one that took too long; docker's words.
pub fn too_long(timeout: Duration, output: &str) -> String {
    let ms = timeout.as_millis();
    let time = match ms {
        0..1000 => format!("{ms}ms"),
        1000..60_000 => format!("{}s", timeout.as_secs_f64()),
        _ => format!("{}m{}s", ms / 60_000, timeout.as_secs_f64() % 60.0),
    };
    let colon = if output.is_empty() { "" } else { ": " };
    format!("Health check exceeded timeout ({time}){colon}{output}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn checker(start_period_ms: u64) -> (Checker, Instant) {
        let check = HealthCheck {
            interval_ms: 10_000,
            timeout_ms: 2000,
            start_period_ms,
            start_interval_ms: 1000,
            retries: 2,
            ..HealthCheck::default()
        };
        let now = Instant::now();
        let mut checker = Checker::new(check);
        assert_eq!(checker.step(now, false), Step::Wait, "it does not run yet");
        checker.start(now);
        (checker, now)
    }

    fn result(code: i32) -> ProbeResult {
        ProbeResult { exit_code: code, ..ProbeResult::default() }
    }

    #[test]
    fn probes_are_due_an_interval_after_the_last_has_ended() {
        let (mut c, now) = checker(0);
        assert_eq!(c.patience(now), Some(10 * SECOND));
        assert_eq!(c.step(now + 9 * SECOND, false), Step::Wait);
        assert_eq!(c.step(now + 10 * SECOND, false), Step::Begin);
        c.begun(Kind::Session(7), now + 10 * SECOND, 1);
        assert!(c.is_session(7) && !c.is_session(8));
        assert_eq!(c.step(now + 11 * SECOND, false), Step::Wait);
        assert_eq!(c.step(now + 12 * SECOND, false), Step::GiveUp);
        c.ended(result(-1), now + 12 * SECOND);
        assert_eq!(c.patience(now + 12 * SECOND), Some(10 * SECOND));
    }

    #[test]
    fn failures_count_in_a_row_and_a_success_forgives_all() {
        let (mut c, now) = checker(0);
        assert!(!c.ended(result(1), now) && c.health.status == HealthStatus::Starting);
        assert!(c.ended(result(2), now) && c.health.status == HealthStatus::Unhealthy);
        assert!(!c.ended(result(1), now), "it was already");
        assert_eq!(c.health.failing_streak, 3);
        c.ended(result(0), now);
        assert_eq!((c.health.status, c.health.failing_streak), (HealthStatus::Healthy, 0));
        assert!(!c.ended(result(1), now) && c.health.status == HealthStatus::Healthy);
        for _ in 0..9 {
            c.ended(result(0), now);
        }
        assert_eq!(c.health.log.len(), RESULTS);
    }

    #[test]
    fn in_the_start_period_failures_do_not_count_until_the_first_success() {
        let (mut c, now) = checker(5000);
        assert_eq!(c.patience(now), Some(SECOND), "the start interval");
        for _ in 0..5 {
            assert!(!c.ended(result(1), now + SECOND));
        }
        assert_eq!((c.health.failing_streak, c.health.status), (0, HealthStatus::Starting));
        c.ended(result(0), now + SECOND);
        assert_eq!(c.patience(now + SECOND), Some(10 * SECOND));
        c.ended(result(1), now + 2 * SECOND);
        assert_eq!(c.health.failing_streak, 1);
        let (mut c, now) = checker(5000);
        c.ended(result(1), now + 6 * SECOND);
        assert_eq!(c.health.failing_streak, 1, "the period is over");
    }

    #[test]
    fn a_paused_container_is_not_tried_and_a_probe_gets_its_time_back() {
        let (mut c, now) = checker(0);
        assert_eq!(c.step(now + 20 * SECOND, true), Step::Wait);
        assert_eq!(c.patience(now + 20 * SECOND), None);
        assert_eq!(c.step(now + 21 * SECOND, false), Step::Begin);
        c.begun(Kind::Session(1), now + 21 * SECOND, 1);
        assert_eq!(c.step(now + 22 * SECOND, true), Step::Wait);
        assert_eq!(c.step(now + 60 * SECOND, false), Step::Wait);
        assert_eq!(c.patience(now + 60 * SECOND), Some(2 * SECOND));
        c.stop();
        assert_eq!((c.patience(now), c.health.status), (None, HealthStatus::Unhealthy));
    }

    #[test]
    fn what_is_said_of_a_probe_that_hangs() {
        let of = |ms| too_long(Duration::from_millis(ms), "");
        assert_eq!(of(30_000), "Health check exceeded timeout (30s)");
        assert_eq!(
            [of(100), of(1500), of(90_000)].map(|t| t[31..t.len() - 1].to_owned()),
            ["100ms", "1.5s", "1m30s"]
        );
        assert!(too_long(SECOND, "x").ends_with("(1s): x"));
    }
}
