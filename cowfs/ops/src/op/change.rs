//! Changes of names in the upper layer.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::Result;

use crate::stage::{Measured, Stage};
use crate::tree::{self, SMALL};

const FILES: usize = 4000;
/// Files made in each merged directory.
const EACH: usize = 10;

fn names(stage: &Stage, prefix: &str) -> Vec<String> {
    (0..stage.amount(FILES)).map(|n| format!("work/{prefix}{n:04}")).collect()
}

/// A new directory, with files in it if asked for.
fn prepare(with: &[String]) -> Result<()> {
    fs::create_dir("work")?;
    with.iter().try_for_each(|f| fs::write(f, [b'f'; 64]))?;
    Ok(())
}

/// Does one thing with each name.
fn each(
    stage: &Stage,
    names: &[String],
    mut one: impl FnMut(&str) -> std::io::Result<()>,
) -> Result<Measured> {
    stage.time(|| {
        names.iter().try_for_each(|n| one(n))?;
        Ok(names.len())
    })
}

pub fn create(stage: &Stage) -> Result<Measured> {
    prepare(&[])?;
    each(stage, &names(stage, "f"), |n| File::create_new(n).map(drop))
}

pub fn create_merged(stage: &Stage) -> Result<Measured> {
    let names: Vec<String> =
        tree::directories(stage.part).flat_map(|d| (0..EACH).map(move |n| format!("{d}/made{n}"))).collect();
    // The directories are known and their copy-up is done, so that only creation is timed.
    tree::directories(stage.part).try_for_each(|d| File::create_new(format!("{d}/first")).map(drop))?;
    each(stage, &names, |n| File::create_new(n).map(drop))
}

pub fn create_4k(stage: &Stage) -> Result<Measured> {
    prepare(&[])?;
    each(stage, &names(stage, "f"), |n| fs::write(n, [b'c'; SMALL]))
}

pub fn mkdir(stage: &Stage) -> Result<Measured> {
    prepare(&[])?;
    each(stage, &names(stage, "d"), |n| fs::create_dir(n))
}

pub fn rename(stage: &Stage) -> Result<Measured> {
    let names = names(stage, "f");
    prepare(&names)?;
    let new: Vec<String> = names.iter().map(|n| format!("{n}-renamed")).collect();
    stage.time(|| {
        names.iter().zip(&new).try_for_each(|(from, to)| fs::rename(from, to))?;
        Ok(names.len())
    })
}

pub fn replace(stage: &Stage) -> Result<Measured> {
    let names = names(stage, "f");
    prepare(&names)?;
    each(stage, &names, |n| {
        fs::write("work/saving", [b'n'; SMALL])?;
        fs::rename("work/saving", n)
    })
}

pub fn symlink(stage: &Stage) -> Result<Measured> {
    prepare(&[])?;
    each(stage, &names(stage, "s"), |n| std::os::unix::fs::symlink("somewhere/else", n))
}

pub fn link(stage: &Stage) -> Result<Measured> {
    let files = names(stage, "f");
    prepare(&files)?;
    let links = names(stage, "l");
    stage.time(|| {
        files.iter().zip(&links).try_for_each(|(from, to)| fs::hard_link(from, to))?;
        Ok(files.len())
    })
}

pub fn chmod(stage: &Stage) -> Result<Measured> {
    let names = names(stage, "f");
    prepare(&names)?;
    each(stage, &names, |n| fs::set_permissions(n, Permissions::from_mode(0o600)))
}

pub fn unlink(stage: &Stage) -> Result<Measured> {
    let names = names(stage, "f");
    prepare(&names)?;
    each(stage, &names, |n| fs::remove_file(n))
}
