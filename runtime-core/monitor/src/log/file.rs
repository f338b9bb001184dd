//! A log in files, rotated by size: `log`, `log.1`, `log.2`, ..., the older ones with `.gz` at the end where they are compressed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use davit_wire::config::FileLog;

use super::compress::Compressor;
use super::queue::Shared;
use super::writer::{Line, encode, numbered};
use super::{json, local};
use crate::note::note;

/// Written in batches of about this size.
const BATCH: usize = 64 << 10;

/// How lines look in the file.
#[derive(Debug)]
pub enum Format {
    /// docker's json-file, with these attributes, encoded already.
    Json {
        /// `"attrs":{...},` or nothing.
        attrs: Vec<u8>,
    },
    /// docker's local.
    Local,
}

/// The file that is being written, and its predecessors.
#[derive(Debug)]
pub struct RotatedFile {
    path: PathBuf,
    format: Format,
    file: Option<File>,
    size: u64,
    max_size: u64,
    max_files: u32,
    compress: bool,
    compressor: Option<Compressor>,
    /// Encoded lines not written yet, and how many bytes of the program they hold.
    batch: Vec<u8>,
    content: u64,
    /// Since the last flush something was lost.
    lost: bool,
}

impl RotatedFile {
    /// Opened with the first line: where the log is may be stuck already.
    pub fn new(log: &FileLog, format: Format) -> Self {
        Self {
            path: log.path.clone(),
            format,
            file: None,
            size: 0,
            max_size: log.max_size,
            max_files: log.max_files.max(1),
            compress: log.compress && log.max_files > 1,
            compressor: None,
            batch: Vec::new(),
            content: 0,
            lost: false,
        }
    }

    /// Adds a line.
    pub fn append(&mut self, line: Line<'_>, shared: &Shared) {
        let full = self.max_size > 0 && self.size + self.batch.len() as u64 >= self.max_size;
        if full || self.batch.len() >= BATCH {
            self.write(shared);
        }
        if full
            && self.size >= self.max_size
            && let Err(e) = self.rotate(shared)
        {
            note(format_args!("cannot rotate {}: {e}", self.path.display()));
        }
        encode(&self.format, line, &mut self.batch);
        self.content += line.content();
    }

    /// Writes what has been added; whether all since the last flush is in the file.
    pub fn flush(&mut self, shared: &Shared) -> bool {
        self.write(shared);
        !std::mem::take(&mut self.lost)
    }

    fn write(&mut self, shared: &Shared) {
        if self.batch.is_empty() {
            return;
        }
        match self.write_batch() {
            Ok(()) => shared.progressed(),
            Err(e) => {
                self.lost = true;
                shared.lose(self.content, reason(&e));
            }
        }
        self.batch.clear();
        self.content = 0;
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

    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
        let metadata = file.metadata()?;
        self.size = metadata.len();
        if metadata.is_file() && self.size > 0 {
            self.size = self.mend(&file)?;
        }
        self.file = Some(file);
        Ok(())
    }

    /// A monitor that was killed, or a power cut, may have left the beginning of an entry at the end: it goes, or what follows could not be
    /// read. Answers the size.
    fn mend(&self, file: &File) -> io::Result<u64> {
        let reader = File::open(&self.path)?;
        let whole = match self.format {
            Format::Json { .. } => json::whole(&reader, self.size)?,
            Format::Local => local::whole(&reader, self.size)?,
        };
        if whole < self.size {
            file.set_len(whole)?;
        }
        Ok(whole)
    }

    /// `log` to `log.1`, `log.1` to `log.2`, ...; with one file only it begins anew.
    fn rotate(&mut self, shared: &Shared) -> io::Result<()> {
        if let Some(compressor) = self.compressor.take() {
            compressor.wait(shared);
        }
        self.file = None;
        if self.max_files > 1 {
            for n in (1..self.max_files - 1).rev() {
                self.shift(n)?;
            }
            for gz in [true, false] {
                ignore_missing(fs::remove_file(numbered(&self.path, self.max_files, gz)))?;
            }
            // A compressed predecessor that is one file too old must not stand beside a plain one.
            ignore_missing(fs::remove_file(numbered(&self.path, 1, true)))?;
            ignore_missing(fs::rename(&self.path, numbered(&self.path, 1, false)))?;
            if self.compress {
                self.compressor = Compressor::start(&numbered(&self.path, 1, false))
                    .map_err(|e| note(format_args!("cannot compress {}.1: {e}", self.path.display())))
                    .ok();
            }
        } else {
            ignore_missing(fs::remove_file(&self.path))?;
        }
        shared.progressed();
        self.reopen()
    }

    /// One predecessor becomes older by one, in whichever form it is.
    fn shift(&self, n: u32) -> io::Result<()> {
        let (from, to) =
            ([true, false].map(|gz| numbered(&self.path, n, gz)), |gz| numbered(&self.path, n + 1, gz));
        let compressed = from[0].exists();
        if compressed {
            ignore_missing(fs::remove_file(to(false)))?;
            fs::rename(&from[0], to(true))?;
            // Left where compressing was cut off between its last two steps.
            return ignore_missing(fs::remove_file(&from[1]));
        }
        if from[1].exists() {
            fs::rename(&from[1], to(false))?;
            ignore_missing(fs::remove_file(to(true)))?;
        }
        Ok(())
    }

    /// Gives spare memory back.
    pub fn shrink(&mut self) {
        self.batch = Vec::new();
    }
}

fn reason(e: &io::Error) -> &'static str {
    match e.kind() {
        io::ErrorKind::StorageFull => "the disk was full",
        io::ErrorKind::QuotaExceeded => "the disk quota was exceeded",
        io::ErrorKind::ReadOnlyFilesystem => "the file system was read-only",
        _ => "the log could not be written",
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
