//! Entries of a log and its rotated predecessors, oldest first.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use davit_contracts::runtime::LogEntry;

use super::line::parse;

const CHUNK: usize = 64 << 10;
/// A line longer than this is no entry of ours (the monitor cuts at 16 KiB of text).
const MAX_LINE: usize = 1 << 20;

/// A position in a log. Blocking reads.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    /// Oldest first; the first one is being read.
    files: VecDeque<Part>,
    /// What was read after the last newline.
    partial: Vec<u8>,
}

#[derive(Debug)]
struct Part {
    file: File,
    inode: u64,
    offset: u64,
}

impl Reader {
    /// Opens a log at its beginning, or so that `tail` entries are left. A missing file is an empty log.
    pub fn open(path: &Path, tail: Option<u64>) -> io::Result<Self> {
        let mut me = Self { path: path.to_owned(), files: VecDeque::new(), partial: Vec::new() };
        me.take_newer_than(None)?;
        if let Some(n) = tail {
            me.seek_tail(n)?;
        }
        Ok(me)
    }

    /// The next entries; none at the end, where more may come later.
    pub fn read(&mut self) -> io::Result<Vec<LogEntry>> {
        let mut buffer = vec![0u8; CHUNK];
        loop {
            let Some(part) = self.files.front_mut() else {
                self.take_newer_than(None)?;
                if self.files.is_empty() {
                    return Ok(Vec::new());
                }
                continue;
            };
            let n = part.file.read_at(&mut buffer, part.offset)?;
            part.offset += n as u64;
            if n > 0 {
                let entries = self.split(&buffer[..n]);
                if !entries.is_empty() {
                    return Ok(entries);
                }
                continue;
            }
            if self.files.len() == 1 {
                let inode = self.files[0].inode;
                if !self.take_newer_than(Some(inode))? {
                    return Ok(Vec::new());
                }
                // It was rotated: what came in between the last read and the renaming is read once more.
                let part = &mut self.files[0];
                let n = part.file.read_at(&mut buffer, part.offset)?;
                part.offset += n as u64;
                if n > 0 {
                    let entries = self.split(&buffer[..n]);
                    if !entries.is_empty() {
                        return Ok(entries);
                    }
                    continue;
                }
            }
            self.partial.clear();
            self.files.pop_front();
        }
    }

    fn split(&mut self, bytes: &[u8]) -> Vec<LogEntry> {
        let mut entries = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            if self.partial.is_empty() {
                entries.extend(parse(&rest[..end]));
            } else {
                self.partial.extend_from_slice(&rest[..end]);
                entries.extend(parse(&self.partial));
                self.partial.clear();
            }
            rest = &rest[end + 1..];
        }
        if self.partial.len() + rest.len() <= MAX_LINE {
            self.partial.extend_from_slice(rest);
        }
        entries
    }

    /// Opens the files that are newer than the one with this inode (all without one). False: there is none.
    fn take_newer_than(&mut self, last: Option<u64>) -> io::Result<bool> {
        let mut newer: Vec<Part> = Vec::new();
        for n in 0.. {
            let path = if n == 0 { self.path.clone() } else { numbered(&self.path, n) };
            let file = match File::open(&path) {
                Ok(file) => file,
                // Between the renaming and the new file there is no current one for a moment.
                Err(e) if e.kind() == io::ErrorKind::NotFound && n == 0 => continue,
                Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                Err(e) => return Err(e),
            };
            let inode = file.metadata()?.ino();
            if Some(inode) == last {
                break;
            }
            if newer.iter().all(|p| p.inode != inode) {
                newer.push(Part { file, inode, offset: 0 });
            }
        }
        let any = !newer.is_empty();
        self.files.extend(newer.into_iter().rev());
        Ok(any)
    }

    /// Counts lines from the end until `n` of them are found.
    fn seek_tail(&mut self, n: u64) -> io::Result<()> {
        let mut wanted = n;
        let mut keep = self.files.len();
        while keep > 0 {
            let part = &mut self.files[keep - 1];
            match tail_offset(&part.file, wanted)? {
                Ok(offset) => {
                    part.offset = offset;
                    keep -= 1;
                    break;
                }
                Err(found) => wanted -= found,
            }
            keep -= 1;
        }
        self.files.drain(..keep);
        Ok(())
    }
}

fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;

    fn line(n: usize) -> String {
        format!("{{\"log\":\"{n}\\n\",\"stream\":\"stdout\",\"time\":\"2024-01-02T03:04:05.{n:09}Z\"}}\n")
    }

    fn text(range: std::ops::Range<usize>) -> String {
        range.map(line).collect()
    }

    fn all(reader: &mut Reader) -> Vec<usize> {
        let mut got = Vec::new();
        loop {
            let batch = reader.read().unwrap();
            if batch.is_empty() {
                return got;
            }
            got.extend(
                batch.iter().map(|e| String::from_utf8_lossy(&e.data).trim().parse::<usize>().unwrap()),
            );
        }
    }

    fn append(path: &Path, text: &str) {
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    #[test]
    fn rotated_files_come_first_and_tail_counts_over_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(dir.path().join("log.2"), text(0..3)).unwrap();
        fs::write(dir.path().join("log.1"), text(3..5)).unwrap();
        fs::write(&path, text(5..7)).unwrap();
        let got = |tail| all(&mut Reader::open(&path, tail).unwrap());
        assert_eq!(got(None), (0..7).collect::<Vec<_>>());
        for n in 0..10usize {
            assert_eq!(got(Some(n as u64)), (7usize.saturating_sub(n)..7).collect::<Vec<_>>(), "tail {n}");
        }
    }

    #[test]
    fn a_line_is_given_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut reader = Reader::open(&path, None).unwrap();
        assert!(reader.read().unwrap().is_empty(), "no file yet");
        let second = line(1);
        append(&path, &line(0));
        append(&path, &second[..10]);
        assert_eq!(all(&mut reader), [0]);
        append(&path, &second[10..]);
        assert_eq!(all(&mut reader), [1]);
        append(&path, "garbage\n");
        append(&path, &line(2));
        assert_eq!(all(&mut reader), [2]);
    }

    #[test]
    fn rotations_while_reading_lose_and_repeat_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, &text(0..2));
        let mut reader = Reader::open(&path, None).unwrap();
        assert_eq!(all(&mut reader), [0, 1]);
        append(&path, &line(2));
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        assert_eq!(all(&mut reader), [2], "between renaming and the new file");
        append(&path, &line(3));
        assert_eq!(all(&mut reader), [3]);
        // Two rotations at once.
        append(&path, &line(4));
        fs::rename(dir.path().join("log.1"), dir.path().join("log.2")).unwrap();
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        append(&path, &line(5));
        fs::rename(dir.path().join("log.1"), dir.path().join("log.2")).unwrap();
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        append(&path, &line(6));
        assert_eq!(all(&mut reader), [4, 5, 6]);
    }

    #[test]
    fn tails_of_large_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, text(0..5000)).unwrap();
        assert_eq!(all(&mut Reader::open(&path, Some(2000)).unwrap()), (3000..5000).collect::<Vec<_>>());
    }
}
