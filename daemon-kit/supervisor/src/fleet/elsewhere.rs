//! Daemons that somebody else has started: left to them for as long as they are there.

use std::time::{Duration, Instant};

use super::Fleet;
use crate::place;
use crate::service::State;

/// How often one is looked after.
const LOOK: Duration = Duration::from_secs(1);
/// How long one may be away before ours takes its place: whoever started it may be starting it again.
const AWAY: Duration = Duration::from_secs(5);

/// Where a daemon stands that was found to be served by this process.
pub(super) fn seen(pid: i32) -> State {
    State::Elsewhere { pid, look: Instant::now() + LOOK, gone: None }
}

impl Fleet {
    /// Takes the place of a daemon that somebody else started when it is gone for good.
    pub(super) fn look_after(&mut self, n: usize, pid: i32, gone: Option<Instant>) {
        let (now, name) = (Instant::now(), self.services[n].name);
        let path = self.layout.socket(name);
        let there = if place::is_alive(pid) { Some(pid) } else { place::server(&path) };
        let gone = there.is_none().then(|| gone.unwrap_or(now));
        self.services[n].state = State::Elsewhere { pid: there.unwrap_or(pid), look: now + LOOK, gone };
        if self.ending.is_some() || gone.is_none_or(|since| now.duration_since(since) < AWAY) {
            return;
        }
        match self.place.daemon_listener(&path) {
            Ok(listener) => {
                self.log.line(format!("process {pid} no longer serves {name}: starting ours"));
                self.services[n].listener = Some(listener);
                self.start(n);
            }
            Err(e) => self.log.line(format!("{name}: {e:#}")),
        }
    }
}
