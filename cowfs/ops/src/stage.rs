//! How an operation is timed.

use std::io::BufRead as _;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

/// How much to do.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    /// Amounts are divided by it.
    pub part: usize,
    /// Wait for a line on standard input before the clock starts.
    pub wait: bool,
}

/// What it took.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Wall time.
    pub nanos: u64,
    /// Processor time of this process, kernel included: what a busy machine does not change. A server's is not in it.
    pub cpu: u64,
    /// How often the thing was done.
    pub units: usize,
}

impl Stage {
    /// `full`, or the part of it that was asked for.
    pub fn amount(&self, full: usize) -> usize {
        (full / self.part).max(1)
    }

    /// Runs `work`, which answers how many units it did.
    pub fn time(&self, work: impl FnOnce() -> Result<usize>) -> Result<Measured> {
        if self.wait {
            eprintln!("ready");
            std::io::stdin().lock().read_line(&mut String::new())?;
        }
        let (begin, cpu) = (Instant::now(), processor_time());
        let units = work()?;
        let nanos = begin.elapsed().as_nanos().try_into()?;
        Ok(Measured { nanos, cpu: processor_time() - cpu, units })
    }
}

/// Nanoseconds of all threads of this process.
fn processor_time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    (time.tv_sec * 1_000_000_000 + time.tv_nsec).unsigned_abs()
}

/// A permutation of `0..n` that is the same in every run.
pub fn shuffled(n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for i in (1..n).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(i, usize::try_from(state >> 33).expect("31 bits fit") % (i + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_loses_nothing_and_keeps_no_order() {
        let mut order = shuffled(1000);
        assert!(order.windows(2).filter(|w| w[0] < w[1]).count() < 600);
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }
}
