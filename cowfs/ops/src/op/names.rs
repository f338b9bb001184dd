//! Names and attributes.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use crate::stage::{Measured, Stage};
use crate::tree;

/// Reads every directory below `at`; answers how many entries there were.
pub fn walk(at: impl Into<PathBuf>, stat: bool) -> Result<usize> {
    let mut left: Vec<PathBuf> = vec![at.into()];
    let mut found = 0;
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            found += 1;
            if stat {
                // `metadata` of an entry is fstatat(dirfd, name, AT_SYMLINK_NOFOLLOW), as find(1) and du(1) do it.
                entry.metadata()?;
            }
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(found)
}

pub fn walk_tree(stage: &Stage, stat: bool) -> Result<Measured> {
    stage.time(|| walk("tree", stat))
}

pub fn stats(stage: &Stage, hot: bool) -> Result<Measured> {
    let files = tree::files(stage.part);
    let all = || files.iter().try_for_each(|f| fs::metadata(f).map(drop));
    let times = if hot {
        all()?;
        3
    } else {
        1
    };
    stage.time(|| {
        (0..times).try_for_each(|_| all())?;
        Ok(times * files.len())
    })
}

pub fn missing(stage: &Stage, hot: bool) -> Result<Measured> {
    let names = tree::missing(stage.part);
    let all = || names.iter().try_for_each(|n| absent(Path::new(n)));
    let times = if hot {
        all()?;
        3
    } else {
        1
    };
    ensure!(!names.is_empty(), "there is no directory to look in");
    stage.time(|| {
        (0..times).try_for_each(|_| all())?;
        Ok(times * names.len())
    })
}

fn absent(name: &Path) -> Result<()> {
    match fs::metadata(name) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e.into()),
        Ok(_) => bail!("{} exists", name.display()),
    }
}
