//! How long to wait before asking again: twice as long each time, with jitter, and not for ever. Pure but for the dice.

use std::time::Duration;

/// The first pause.
const BASE: Duration = Duration::from_millis(250);
/// The longest of our own.
const CAP: Duration = Duration::from_secs(8);
/// The longest that a registry may ask for; beyond it the person is told instead.
const PATIENCE: Duration = Duration::from_secs(60);
/// All pauses of one request together.
const BUDGET: Duration = Duration::from_secs(120);

/// The pauses of one request.
#[derive(Debug)]
pub(super) struct Backoff {
    left: u32,
    made: u32,
    waited: Duration,
}

impl Backoff {
    /// For so many further attempts.
    pub(super) fn new(attempts: u32) -> Self {
        Self { left: attempts, made: 0, waited: Duration::ZERO }
    }

    /// How long to wait before the next attempt; `asked` is what the registry wants. None is answered when it is enough.
    pub(super) fn next(&mut self, asked: Duration) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let own = BASE.saturating_mul(1 << self.made.min(10)).min(CAP);
        self.made += 1;
        // Many clients that were cut at one moment shall not come back at one moment.
        let jittered = own.mul_f64(rand::random_range(0.5..1.0));
        if asked > PATIENCE {
            return None;
        }
        let pause = asked.max(jittered);
        self.waited += pause;
        (self.waited <= BUDGET).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let mut backoff = Backoff::new(8);
        let mut pauses = Vec::new();
        while let Some(pause) = backoff.next(Duration::ZERO) {
            pauses.push(pause);
        }
        assert_eq!(pauses.len(), 8);
        for (i, pause) in pauses.iter().enumerate() {
            let whole = BASE.saturating_mul(1 << i).min(CAP);
            assert!(*pause <= whole && *pause >= whole / 2, "{i}: {pause:?}");
        }
    }

    #[test]
    fn a_registry_is_obeyed_within_reason() {
        let mut backoff = Backoff::new(100);
        assert_eq!(backoff.next(Duration::from_secs(50)), Some(Duration::from_secs(50)));
        assert_eq!(backoff.next(Duration::from_secs(3600)), None);
        assert_eq!(backoff.next(Duration::from_secs(59)), Some(Duration::from_secs(59)));
        assert_eq!(backoff.next(Duration::from_secs(59)), None, "over the budget");
    }
}
