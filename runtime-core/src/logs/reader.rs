//! Entries of a log and its rotated predecessors, oldest first.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use davit_contracts::runtime::LogEntry;

use super::part::{Format, Part};

/// How often files that are rotated while they are opened are opened again.
const TRIES: u32 = 10;

/// A position in a log. Blocking reads.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    format: Format,
    /// Oldest first; the first one is being read.
    files: VecDeque<Part>,
}

impl Reader {
    /// Opens a log at its beginning, or so that `tail` entries are left. A missing file is an empty log.
    pub fn open(path: &Path, format: Format, tail: Option<u64>) -> io::Result<Self> {
        let mut me = Self { path: path.to_owned(), format, files: VecDeque::new() };
        me.take_newer()?;
        if let Some(n) = tail {
            me.seek_tail(n)?;
        }
        Ok(me)
    }

    /// The next entries; none at the end, where more may come later.
    pub fn read(&mut self) -> io::Result<Vec<LogEntry>> {
        loop {
            let Some(part) = self.files.front_mut() else {
                self.take_newer()?;
                if self.files.is_empty() {
                    return Ok(Vec::new());
                }
                continue;
            };
            let entries = part.read(self.format)?;
            if !entries.is_empty() {
                return Ok(entries);
            }
            if self.files.len() == 1 {
                if !self.take_newer()? {
                    return Ok(Vec::new());
                }
                // It was rotated: what came in between the last read and the renaming is read once more.
                let entries = self.files[0].read(self.format)?;
                if !entries.is_empty() {
                    return Ok(entries);
                }
            }
            self.files.pop_front();
        }
    }

    /// Opens the files that are newer than the one that is being read (all without one). False: there is none.
    fn take_newer(&mut self) -> io::Result<bool> {
        let mut newer = Vec::new();
        for _ in 0..TRIES {
            newer = self.newer_than(self.files.back())?;
            // Rotated meanwhile: a file may be among them twice, or not at all.
            let now = Part::open(&self.path, 0)?;
            if now.is_none_or(|now| newer.first().or(self.files.back()).is_some_and(|first| now.is(first))) {
                break;
            }
        }
        let any = !newer.is_empty();
        self.files.extend(newer.into_iter().rev());
        Ok(any)
    }

    fn newer_than(&self, last: Option<&Part>) -> io::Result<Vec<Part>> {
        let mut newer: Vec<Part> = Vec::new();
        let mut missing = 0;
        for n in 0.. {
            let Some(part) = Part::open(&self.path, n)? else {
                // In the middle of a rotation one of them is not there for a moment.
                missing += 1;
                if missing > 2 {
                    break;
                }
                continue;
            };
            if last.is_some_and(|last| part.is(last)) {
                break;
            }
            if newer.iter().all(|p| !p.is(&part)) {
                newer.push(part);
            }
        }
        Ok(newer)
    }

    /// Counts entries from the end until `n` of them are found.
    fn seek_tail(&mut self, n: u64) -> io::Result<()> {
        let mut wanted = n;
        let mut keep = self.files.len();
        while keep > 0 {
            keep -= 1;
            wanted = self.files[keep].seek_tail(wanted, self.format)?;
            if wanted == 0 {
                break;
            }
        }
        self.files.drain(..keep);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;

    fn gzip(path: &Path) {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&fs::read(path).unwrap()).unwrap();
        let mut name = path.as_os_str().to_owned();
        name.push(".gz");
        fs::write(PathBuf::from(name), encoder.finish().unwrap()).unwrap();
        fs::remove_file(path).unwrap();
    }

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
        let got = |tail| all(&mut Reader::open(&path, Format::Json, tail).unwrap());
        assert_eq!(got(None), (0..7).collect::<Vec<_>>());
        for n in 0..10usize {
            assert_eq!(got(Some(n as u64)), (7usize.saturating_sub(n)..7).collect::<Vec<_>>(), "tail {n}");
        }
    }

    #[test]
    fn a_line_is_given_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut reader = Reader::open(&path, Format::Json, None).unwrap();
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
        let mut reader = Reader::open(&path, Format::Json, None).unwrap();
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
    fn files_that_are_compressed_meanwhile_are_neither_repeated_nor_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let at = |name: &str| dir.path().join(name);
        append(&path, &text(0..2));
        let mut reader = Reader::open(&path, Format::Json, None).unwrap();
        assert_eq!(all(&mut reader), [0, 1]);
        append(&path, &line(2));
        fs::rename(&path, at("log.1")).unwrap();
        gzip(&at("log.1"));
        append(&path, &line(3));
        assert_eq!(all(&mut reader), [2, 3]);
        append(&path, &line(4));
        fs::rename(at("log.1.gz"), at("log.2.gz")).unwrap();
        fs::rename(&path, at("log.1")).unwrap();
        gzip(&at("log.1"));
        append(&path, &text(5..7));
        assert_eq!(all(&mut reader), [4, 5, 6]);
        for n in 0..9usize {
            let mut reader = Reader::open(&path, Format::Json, Some(n as u64)).unwrap();
            assert_eq!(all(&mut reader), (7usize.saturating_sub(n)..7).collect::<Vec<_>>(), "tail {n}");
        }
    }

    #[test]
    fn tails_of_large_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, text(0..5000)).unwrap();
        assert_eq!(
            all(&mut Reader::open(&path, Format::Json, Some(2000)).unwrap()),
            (3000..5000).collect::<Vec<_>>()
        );
    }
}
