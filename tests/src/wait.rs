//! Waiting for something that another process does, without asserting how long it takes.

use std::time::{Duration, Instant};

/// How long [`eventually`] goes on: generous, because it is a guard against hanging and not a measurement.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls `attempt` until it answers `Some`; panics with `what` and the last reason when patience ends.
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(reason) if Instant::now() > deadline => panic!("never happened: {what}: {reason}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
