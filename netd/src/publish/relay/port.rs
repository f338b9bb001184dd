//! A port that is answered, and what is said of it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Key;

/// How long something that was said must not have been so for it to be said again.
const QUIET: Duration = Duration::from_secs(60);

/// One port.
#[derive(Debug)]
pub struct Port {
    pub key: Key,
    pub socket: Arc<OwnedFd>,
    /// Who answers; without it who comes is reset.
    pub to: Option<SocketAddr>,
    /// It has more connections than it may have.
    pub crowded: Said,
}

/// What is said once, and again only when it was not so for a while.
#[derive(Debug, Default)]
pub struct Said(Option<Instant>);

impl Said {
    /// It is so: whether that is news.
    pub fn is_news(&mut self, now: Instant) -> bool {
        let before = self.0.replace(now);
        before.is_none_or(|before| now.saturating_duration_since(before) >= QUIET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_said_once() {
        let (mut said, start) = (Said::default(), Instant::now());
        for (at, is_news) in [(0, true), (1, false), (60, false), (119, false), (180, true)] {
            assert_eq!(said.is_news(start + Duration::from_secs(at)), is_news, "{at}");
        }
    }
}
