//! The log sink: output bytes to lines of docker's json-file format, rotated by size.
//!
//! Writing never stops the program: where the file cannot be written (full disk), the bytes are counted and forgotten, and a line is
//! either whole in the file or absent.

mod json;
mod lines;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use davit_wire::config::LogSink;

use crate::clock;
use crate::note::note;
use lines::Lines;

/// Where the main program's output is recorded.
#[derive(Debug, Default)]
pub struct Log {
    file: Option<JsonFile>,
    stdout: Lines,
    stderr: Lines,
    /// Program bytes that could not be written.
    pub dropped: u64,
}

impl Log {
    /// Opens the configured sink. A log file that cannot be opened is reported and everything counted as dropped until it can.
    pub fn open(sink: &LogSink) -> Self {
        let file = match sink {
            LogSink::None => None,
            LogSink::JsonFile { path, max_size, max_files } => {
                Some(JsonFile::new(path, *max_size, *max_files))
            }
        };
        Self { file, ..Self::default() }
    }

    /// Records output; whole lines are written at once, a line's beginning is kept until the rest comes.
    pub fn write(&mut self, stdout: bool, data: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let lines = if stdout { &mut self.stdout } else { &mut self.stderr };
        let now = clock::unix_ns();
        let dropped = &mut self.dropped;
        lines.push(data, |line| file.append(line, stdout, now, dropped));
        file.flush(dropped);
    }

    /// A stream has ended: what is left of its last line is written.
    pub fn end(&mut self, stdout: bool) {
        let Some(file) = &mut self.file else { return };
        let lines = if stdout { &mut self.stdout } else { &mut self.stderr };
        let dropped = &mut self.dropped;
        let now = clock::unix_ns();
        lines.finish(|line| file.append(line, stdout, now, dropped));
        file.flush(dropped);
    }

    /// Gives spare memory back.
    pub fn shrink(&mut self) {
        self.stdout.shrink();
        self.stderr.shrink();
        if let Some(file) = &mut self.file {
            file.batch = Vec::new();
        }
    }
}

/// Written in batches of about this size.
const BATCH: usize = 64 << 10;

#[derive(Debug)]
struct JsonFile {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    max_size: u64,
    max_files: u32,
    /// Encoded lines not written yet, and how many bytes of the program they hold.
    batch: Vec<u8>,
    batch_content: u64,
}

impl JsonFile {
    fn new(path: &Path, max_size: u64, max_files: u32) -> Self {
        let mut this = Self {
            path: path.to_owned(),
            file: None,
            size: 0,
            max_size,
            max_files: max_files.max(1),
            batch: Vec::new(),
            batch_content: 0,
        };
        if let Err(e) = this.reopen() {
            note(format_args!("cannot open the log {}: {e}", path.display()));
        }
        this
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn append(&mut self, line: &[u8], stdout: bool, now: i64, dropped: &mut u64) {
        let full = self.max_size > 0 && self.size + self.batch.len() as u64 >= self.max_size;
        if full || self.batch.len() >= BATCH {
            self.flush(dropped);
        }
        if full
            && self.size >= self.max_size
            && let Err(e) = self.rotate()
        {
            note(format_args!("cannot rotate {}: {e}", self.path.display()));
        }
        json::write_line(line, stdout, now, &mut self.batch);
        self.batch_content += line.len() as u64;
    }

    fn flush(&mut self, dropped: &mut u64) {
        if self.batch.is_empty() {
            return;
        }
        if self.write_batch().is_err() {
            *dropped += self.batch_content;
        }
        self.batch.clear();
        self.batch_content = 0;
    }

    fn write_batch(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.reopen()?;
        }
        let file = self.file.as_mut().expect("reopened just now");
        match file.write_all(&self.batch) {
            Ok(()) => {
                self.size += self.batch.len() as u64;
                Ok(())
            }
            Err(e) => {
                // Half a line would make every reader fail from here on.
                let _ = file.set_len(self.size);
                Err(e)
            }
        }
    }

    /// `log` to `log.1`, `log.1` to `log.2`, ...; with one file only it begins anew.
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        if self.max_files > 1 {
            for n in (1..self.max_files - 1).rev() {
                ignore_missing(std::fs::rename(self.numbered(n), self.numbered(n + 1)))?;
            }
            ignore_missing(std::fs::rename(&self.path, self.numbered(1)))?;
        } else {
            ignore_missing(std::fs::remove_file(&self.path))?;
        }
        self.reopen()
    }

    fn numbered(&self, n: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{n}"));
        name.into()
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("davit-log-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn content(path: &Path) -> String {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .lines()
            .map(|l| {
                let v: serde_json::Value = serde_json::from_str(l).unwrap();
                v["log"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let dir = directory("same");
        let path = dir.join("a.log");
        let mut log = Log::open(&LogSink::JsonFile { path: path.clone(), max_size: 0, max_files: 1 });
        log.write(true, b"one\ntw");
        log.write(false, b"err\n");
        log.write(true, b"o\nrest");
        log.end(true);
        assert_eq!(content(&path), "one\nerr\ntwo\nrest");
        assert_eq!(log.dropped, 0);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn rotation_keeps_the_newest_files_and_loses_nothing_between_them() {
        let dir = directory("rotate");
        let path = dir.join("a.log");
        let mut log = Log::open(&LogSink::JsonFile { path: path.clone(), max_size: 1000, max_files: 3 });
        let mut all = String::new();
        for n in 0..100 {
            let line = format!("line {n}\n");
            log.write(true, line.as_bytes());
            all += &line;
        }
        let files = [path.with_extension("log.2"), path.with_extension("log.1"), path.clone()];
        let kept: String = files.iter().map(|p| content(p)).collect();
        assert!(all.ends_with(&kept) && kept.len() > 200, "{kept}");
        assert!(!path.with_extension("log.3").exists());
        for f in &files {
            assert!(std::fs::metadata(f).unwrap().len() < 1100);
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_full_disk_is_counted_and_the_file_stays_readable() {
        // Every write to /dev/full fails with ENOSPC (full(4)).
        let path = PathBuf::from("/dev/full");
        let mut log = Log::open(&LogSink::JsonFile { path, max_size: 0, max_files: 1 });
        log.write(true, b"12345\n");
        assert_eq!(log.dropped, 6);
    }
}
