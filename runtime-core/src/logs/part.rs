//! One file of a log, plain or compressed, and the entries in it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use davit_contracts::runtime::LogEntry;
use flate2::read::GzDecoder;

use super::{line, local};

const CHUNK: usize = 64 << 10;
/// A line longer than this is no entry of ours (the monitor cuts at 16 KiB of text).
const MAX_LINE: usize = 1 << 20;
/// So much of the beginning of a file tells it from any other: its entries have time stamps.
const FACE: usize = 4096;

/// How entries look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// docker's json-file.
    Json,
    /// docker's local.
    Local,
}

/// A file and a position in it. Blocking reads.
#[derive(Debug)]
pub struct Part {
    file: File,
    /// While it is read; a plain file needs none.
    unpacking: Option<GzDecoder<At>>,
    compressed: bool,
    inode: u64,
    offset: u64,
    /// Bytes of an entry whose end has not been read.
    partial: Vec<u8>,
    /// Entries to leave out.
    skip: u64,
}

impl Part {
    /// Opens `PATH`, or `PATH.N` in whichever form it is; none where there is neither.
    pub fn open(path: &Path, n: u32) -> io::Result<Option<Self>> {
        let plain = if n == 0 { path.to_owned() } else { with(path, &format!(".{n}")) };
        for (path, compressed) in [(plain.clone(), false), (with(&plain, ".gz"), true)] {
            if compressed && n == 0 {
                break;
            }
            match File::open(&path) {
                Ok(file) => return Self::new(file, compressed).map(Some),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    fn new(file: File, compressed: bool) -> io::Result<Self> {
        let inode = file.metadata()?.ino();
        let unpacking = if compressed { Some(unpack(&file)?) } else { None };
        Ok(Self { file, unpacking, compressed, inode, offset: 0, partial: Vec::new(), skip: 0 })
    }

    /// Whether it is the same file as another, or the same before it was compressed.
    pub fn is(&self, other: &Self) -> bool {
        if self.inode == other.inode {
            return true;
        }
        self.compressed != other.compressed
            && self.face().is_ok_and(|f| !f.is_empty() && other.face().is_ok_and(|o| o == f))
    }

    fn face(&self) -> io::Result<Vec<u8>> {
        let mut face = vec![0; FACE];
        let mut have = 0;
        let mut unpacking = if self.compressed { Some(unpack(&self.file)?) } else { None };
        while have < FACE {
            let n = match &mut unpacking {
                Some(decoder) => decoder.read(&mut face[have..])?,
                None => self.file.read_at(&mut face[have..], have as u64)?,
            };
            if n == 0 {
                break;
            }
            have += n;
        }
        face.truncate(have);
        Ok(face)
    }

    /// The next entries; none at its end, where more may come later.
    pub fn read(&mut self, format: Format) -> io::Result<Vec<LogEntry>> {
        let mut buffer = vec![0u8; CHUNK];
        loop {
            let n = self.fill(&mut buffer)?;
            if n == 0 {
                return Ok(Vec::new());
            }
            let mut entries = Vec::new();
            self.split(&buffer[..n], format, |bytes| {
                entries.extend(match format {
                    Format::Json => line::parse(bytes),
                    Format::Local => local::parse(bytes),
                });
            });
            let skipped = entries.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.skip -= skipped as u64;
            entries.drain(..skipped);
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(decoder) = &mut self.unpacking {
            return decoder.read(buffer);
        }
        let n = self.file.read_at(buffer, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }

    /// Cuts bytes into entries.
    fn split(&mut self, bytes: &[u8], format: Format, mut emit: impl FnMut(&[u8])) {
        match format {
            Format::Json => self.split_lines(bytes, emit),
            Format::Local => {
                self.partial.extend_from_slice(bytes);
                let mut used = 0;
                loop {
                    match local::frame(&self.partial[used..]) {
                        Ok(Some((body, length))) => {
                            emit(body);
                            used += length;
                        }
                        Ok(None) => break,
                        // What follows cannot be told apart any more.
                        Err(()) => {
                            used = self.partial.len();
                            break;
                        }
                    }
                }
                self.partial.drain(..used);
            }
        }
    }

    fn split_lines(&mut self, bytes: &[u8], mut emit: impl FnMut(&[u8])) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            if self.partial.is_empty() {
                emit(&rest[..end]);
            } else {
                self.partial.extend_from_slice(&rest[..end]);
                emit(&self.partial);
                self.partial.clear();
            }
            rest = &rest[end + 1..];
        }
        if self.partial.len() + rest.len() <= MAX_LINE {
            self.partial.extend_from_slice(rest);
        }
    }

    /// Goes to the last `wanted` entries; answers how many are missing for that.
    pub fn seek_tail(&mut self, wanted: u64, format: Format) -> io::Result<u64> {
        if format == Format::Json && !self.compressed {
            return Ok(match tail_offset(&self.file, wanted)? {
                Ok(offset) => {
                    self.offset = offset;
                    0
                }
                Err(found) => wanted - found,
            });
        }
        let mut count = 0u64;
        let mut buffer = vec![0u8; CHUNK];
        loop {
            let n = self.fill(&mut buffer)?;
            if n == 0 {
                break;
            }
            self.split(&buffer[..n], format, |_| count += 1);
        }
        *self = Self::new(self.file.try_clone()?, self.compressed)?;
        self.skip = count.saturating_sub(wanted);
        Ok(wanted.saturating_sub(count))
    }
}

/// A file read from a position of one's own: that of a descriptor is shared with its copies.
#[derive(Debug)]
struct At {
    file: File,
    offset: u64,
}

impl io::Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

fn unpack(file: &File) -> io::Result<GzDecoder<At>> {
    Ok(GzDecoder::new(At { file: file.try_clone()?, offset: 0 }))
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Where the last `n` whole lines begin, or how many lines there are when fewer.
fn tail_offset(file: &File, n: u64) -> io::Result<Result<u64, u64>> {
    let mut end = file.metadata()?.len();
    let mut buffer = vec![0u8; CHUNK];
    let mut newlines = 0u64;
    while end > 0 {
        let begin = end.saturating_sub(CHUNK as u64);
        let chunk = &mut buffer[..(end - begin) as usize];
        file.read_exact_at(chunk, begin)?;
        for (i, _) in chunk.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            newlines += 1;
            // The newline before the wanted lines.
            if newlines == n + 1 {
                return Ok(Ok(begin + i as u64 + 1));
            }
        }
        end = begin;
    }
    Ok(if newlines == n { Ok(0) } else { Err(newlines) })
}
