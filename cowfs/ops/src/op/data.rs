//! Reading and writing of one large file, and of a log.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;

use anyhow::Result;
use davit_sys::pages::Pages;

use crate::stage::{Measured, Stage, shuffled};
use crate::tree::BIG;

const APPENDS: usize = 20_000;
const SYNCS: usize = 4000;
const PAGE: usize = 4096;

/// Offsets of the blocks to touch: all in order, or half of them in no order.
fn offsets(len: usize, block: usize, random: bool) -> Vec<u64> {
    let mut order = if random { shuffled(len / block) } else { (0..len / block).collect() };
    if random {
        order.truncate((len / block / 2).max(1));
    }
    order.into_iter().map(|n| (n * block) as u64).collect()
}

pub fn read(stage: &Stage, block: usize, random: bool, hot: bool) -> Result<Measured> {
    let offsets = offsets(BIG / stage.part, block, random);
    let mut buffer = vec![0; block];
    if hot {
        std::io::copy(&mut File::open("big/file")?, &mut std::io::sink())?;
    }
    stage.time(|| {
        let file = File::open("big/file")?;
        offsets.iter().try_for_each(|at| file.read_exact_at(&mut buffer, *at))?;
        Ok(offsets.len())
    })
}

pub fn write(stage: &Stage, block: usize, random: bool) -> Result<Measured> {
    let len = BIG / stage.part;
    let offsets = offsets(len, block, random);
    let buffer = vec![b'w'; block];
    fs::create_dir("work")?;
    if random {
        fs::write("work/file", vec![b'o'; len])?;
    }
    stage.time(|| {
        let file = File::options().write(true).create(true).truncate(false).open("work/file")?;
        offsets.iter().try_for_each(|at| file.write_all_at(&buffer, *at))?;
        // Closing hands what a cache still holds to the server, or lets the next reader wait for it.
        drop(file);
        Ok(offsets.len())
    })
}

pub fn append(stage: &Stage) -> Result<Measured> {
    let times = stage.amount(APPENDS);
    fs::create_dir("work")?;
    fs::write("work/log", b"begin\n")?;
    stage.time(|| {
        let mut file = File::options().append(true).open("work/log")?;
        (0..times).try_for_each(|_| file.write_all(b"sixteen bytes..\n"))?;
        drop(file);
        Ok(times)
    })
}

pub fn write_fdatasync(stage: &Stage) -> Result<Measured> {
    let times = stage.amount(SYNCS);
    fs::create_dir("work")?;
    let file = File::create("work/journal")?;
    stage.time(|| {
        for n in 0..times {
            file.write_all_at(&[b'j'; PAGE], (n % 256 * PAGE) as u64)?;
            file.sync_data()?;
        }
        Ok(times)
    })
}

pub fn mmap_read(stage: &Stage) -> Result<Measured> {
    let len = BIG / stage.part;
    stage.time(|| {
        let file = File::open("big/file")?;
        let pages = Pages::new(file.as_fd(), len, false)?;
        let sum: u64 = (0..len).step_by(PAGE).map(|at| u64::from(pages.get(at))).sum();
        anyhow::ensure!(sum == (len.div_ceil(PAGE) as u64) * u64::from(b'b'), "other bytes were mapped");
        Ok(len / PAGE)
    })
}

pub fn mmap_write(stage: &Stage) -> Result<Measured> {
    let len = BIG / stage.part / 2;
    fs::create_dir("work")?;
    fs::write("work/file", vec![b'o'; len])?;
    stage.time(|| {
        let file = File::options().read(true).write(true).open("work/file")?;
        let pages = Pages::new(file.as_fd(), len, true)?;
        (0..len).step_by(PAGE).for_each(|at| pages.set(at, b'm'));
        pages.sync()?;
        Ok(len / PAGE)
    })
}
