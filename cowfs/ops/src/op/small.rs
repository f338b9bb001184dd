//! Many small files.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::thread;

use anyhow::{Result, ensure};

use crate::stage::{Measured, Stage};
use crate::tree::{self, SMALL};

/// How many files of the upper layer are rewritten.
const REWRITTEN: usize = 4000;

pub fn read(stage: &Stage, threads: usize, hot: bool) -> Result<Measured> {
    let files = tree::files(stage.part);
    if hot {
        read_all(&files)?;
    }
    stage.time(|| {
        thread::scope(|scope| {
            let parts: Vec<_> = files.chunks(files.len().div_ceil(threads)).collect();
            let running: Vec<_> = parts[1..].iter().map(|part| scope.spawn(|| read_all(part))).collect();
            read_all(parts[0])?;
            running.into_iter().try_for_each(|r| r.join().expect("a reader does not panic"))
        })?;
        Ok(files.len())
    })
}

fn read_all(files: &[String]) -> Result<()> {
    let mut buffer = vec![0; 2 * SMALL];
    for file in files {
        let mut file = File::open(file)?;
        let mut len = 0;
        loop {
            match file.read(&mut buffer[len..])? {
                0 => break,
                n => len += n,
            }
        }
        ensure!(len == SMALL, "a small file has {len} bytes");
    }
    Ok(())
}

pub fn rewrite(stage: &Stage) -> Result<Measured> {
    let files: Vec<String> = (0..stage.amount(REWRITTEN)).map(|n| format!("work/f{n:04}")).collect();
    fs::create_dir("work")?;
    files.iter().try_for_each(|f| fs::write(f, [b'1'; SMALL]))?;
    stage.time(|| {
        for file in &files {
            File::options().write(true).open(file)?.write_all(&[b'2'; SMALL])?;
        }
        Ok(files.len())
    })
}
