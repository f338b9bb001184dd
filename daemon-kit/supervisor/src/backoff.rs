//! How long to wait before a dead daemon is started again. Pure.

use std::time::Duration;

/// A daemon that ran this long was healthy: the next death counts as the first.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(10);

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Counts deaths in a row.
#[derive(Debug, Default, Clone, Copy)]
pub struct Backoff {
    deaths: u32,
}

impl Backoff {
    /// Notes a death after `lived` and gives the pause before the next start: none after the first death, because a daemon that was
    /// killed should be back before anyone notices, then 100 ms doubling up to 5 s.
    pub fn died(&mut self, lived: Duration) -> Duration {
        if lived >= HEALTHY_AFTER {
            self.deaths = 0;
        }
        self.deaths = self.deaths.saturating_add(1);
        match self.deaths {
            0 | 1 => Duration::ZERO,
            n => FIRST.saturating_mul(1 << (n - 2).min(16)).min(LONGEST),
        }
    }

    /// Deaths in a row so far.
    pub fn deaths(self) -> u32 {
        self.deaths
    }

    /// Starts over (a person asked for it).
    pub fn reset(&mut self) {
        self.deaths = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_bounded() {
        let mut b = Backoff::default();
        let pauses: Vec<u128> = (0..9).map(|_| b.died(Duration::from_millis(1)).as_millis()).collect();
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        for _ in 0..100 {
            assert!(b.died(Duration::ZERO) <= LONGEST);
        }
    }

    #[test]
    fn ten_seconds_of_life_are_forgiven() {
        let mut b = Backoff::default();
        for _ in 0..5 {
            b.died(Duration::ZERO);
        }
        assert_eq!(b.died(Duration::from_secs(10)), Duration::ZERO);
        assert_eq!(b.deaths(), 1);
    }
}
