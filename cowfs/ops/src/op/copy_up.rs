//! The first change of a file of a lower layer.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::Result;

use crate::stage::{Measured, Stage};
use crate::tree;

const FILES: usize = 2000;

/// Files spread over the tree.
fn spread(stage: &Stage) -> Vec<String> {
    let files = tree::files(stage.part);
    let step = (files.len() / stage.amount(FILES)).max(1);
    files.into_iter().step_by(step).collect()
}

/// Times one thing for each file; all of them were looked at before, and their directories changed, so that the clock sees the files alone.
fn each(stage: &Stage, mut one: impl FnMut(&str) -> std::io::Result<()>) -> Result<Measured> {
    let files = spread(stage);
    files.iter().try_for_each(|f| fs::metadata(f).map(drop))?;
    tree::directories(stage.part).try_for_each(|d| File::create_new(format!("{d}/first")).map(drop))?;
    stage.time(|| {
        files.iter().try_for_each(|f| one(f))?;
        Ok(files.len())
    })
}

pub fn append(stage: &Stage) -> Result<Measured> {
    each(stage, |f| File::options().append(true).open(f)?.write_all(b"sixteen bytes..\n"))
}

pub fn chmod(stage: &Stage) -> Result<Measured> {
    each(stage, |f| fs::set_permissions(f, Permissions::from_mode(0o600)))
}

pub fn unlink(stage: &Stage) -> Result<Measured> {
    each(stage, |f| fs::remove_file(f))
}
