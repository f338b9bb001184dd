//! Where an attach's time goes.

use std::collections::BTreeMap;
use std::time::Instant;

/// A stop watch that is pressed at the end of each stage.
#[derive(Debug)]
pub(super) struct Stages {
    last: Instant,
    spent: BTreeMap<&'static str, u32>,
}

impl Stages {
    pub(super) fn start() -> Self {
        Self { last: Instant::now(), spent: BTreeMap::new() }
    }

    /// Ends a stage; a stage that happens again adds up.
    pub(super) fn end(&mut self, stage: &'static str) {
        let micros = u32::try_from(self.last.elapsed().as_micros()).unwrap_or(u32::MAX);
        *self.spent.entry(stage).or_default() += micros;
        self.last = Instant::now();
    }

    pub(super) fn finish(self) -> BTreeMap<&'static str, u32> {
        self.spent
    }
}
