//! One directory with very many entries.

use anyhow::Result;

use super::names::walk;
use crate::stage::{Measured, Stage};

pub fn list(stage: &Stage, stat: bool) -> Result<Measured> {
    stage.time(|| walk("many", stat))
}
