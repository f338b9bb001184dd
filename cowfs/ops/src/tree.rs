//! The layers that are measured: the shape of an image in which each layer changed a little of the one below.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{FileType, Mode};

/// Directories in `tree`, twenty in each of its branches.
const DIRECTORIES: usize = 400;
/// Files in each directory that every layer leaves in place.
const FILES: usize = 24;
/// Size of a small file.
pub const SMALL: usize = 4096;
/// Size of `big/file`.
pub const BIG: usize = 64 << 20;
/// Entries of `many`.
const MANY: usize = 100_000;

/// The directories of `tree`.
pub fn directories(part: usize) -> impl Iterator<Item = String> {
    (0..DIRECTORIES / part).map(|d| format!("tree/a{:02}/d{d:03}", d / 20))
}

/// The files of `tree` that no layer deletes.
pub fn files(part: usize) -> Vec<String> {
    directories(part).flat_map(|dir| (0..FILES).map(move |f| format!("{dir}/file{f:02}"))).collect()
}

/// Names that no layer has, in directories that are there.
pub fn missing(part: usize) -> Vec<String> {
    directories(part).flat_map(|dir| (0..FILES).map(move |f| format!("{dir}/nothing{f:02}"))).collect()
}

/// Makes the layers `0` (topmost) to `3`: `3` has everything; `2` replaces five files in every second directory; `1` deletes one in
/// every tenth; `0` adds one to every fourth.
pub fn make_lowers(at: &Path, part: usize) -> Result<()> {
    fs::create_dir_all(at)?;
    std::env::set_current_dir(at).with_context(|| format!("cannot enter {}", at.display()))?;
    let text = vec![b'x'; SMALL];
    for (d, dir) in directories(part).enumerate() {
        let make = |layer: usize, name: &str, text: &[u8]| -> Result<()> {
            let dir = format!("{layer}/{dir}");
            fs::create_dir_all(&dir)?;
            Ok(fs::write(format!("{dir}/{name}"), text)?)
        };
        for f in 0..=FILES {
            make(3, &format!("file{f:02}"), &text)?;
        }
        if d % 2 == 0 {
            (0..5).try_for_each(|f| make(2, &format!("file{f:02}"), &text))?;
        }
        if d % 10 == 0 {
            let dir = format!("1/{dir}");
            fs::create_dir_all(&dir)?;
            let whiteout = format!("{dir}/file{FILES:02}");
            rustix::fs::mknodat(rustix::fs::CWD, whiteout, FileType::CharacterDevice, Mode::empty(), 0)?;
        }
        if d % 4 == 0 {
            make(0, "new", &text)?;
        }
    }
    fs::create_dir_all("3/big")?;
    fs::write("3/big/file", vec![b'b'; BIG / part])?;
    fs::create_dir_all("3/many")?;
    (0..MANY / part).try_for_each(|n| fs::File::create(format!("3/many/entry{n:06}")).map(drop))?;
    Ok(())
}

/// Makes layer `0` with this many empty files, a thousand in each directory.
pub fn make_million(at: &Path, files: usize) -> Result<()> {
    for d in 0..files.div_ceil(1000) {
        let dir = at.join(format!("0/d{d:04}"));
        fs::create_dir_all(&dir)?;
        let here = 1000.min(files - d * 1000);
        (0..here).try_for_each(|f| fs::File::create(dir.join(format!("f{f:03}"))).map(drop))?;
    }
    Ok(())
}
