//! Segments: files called after the number of their first event, one JSON object a line.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use davit_contracts::runtime::Event;

/// A segment that has grown to this is followed by another.
pub const SEGMENT: u64 = 1 << 20;
/// So many are kept: some thirty thousand events.
pub const SEGMENTS: usize = 8;

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    /// First numbers, oldest first; the last one is written to.
    segments: VecDeque<u64>,
    file: Option<File>,
    size: u64,
    next: u64,
    most: u64,
    many: usize,
}

impl Journal {
    /// Opens it, drops a torn last line, and answers the newest events. A directory that cannot be used is told, and nothing is
    /// journaled.
    pub fn open(dir: &Path, most: u64, many: usize, keep: usize) -> (Self, VecDeque<Event>) {
        let mut journal = Self {
            dir: dir.to_owned(),
            segments: VecDeque::new(),
            file: None,
            size: 0,
            next: 1,
            most,
            many: many.max(1),
        };
        if let Err(error) = journal.find() {
            tracing::warn!(path = %dir.display(), %error, "events are not journaled");
        }
        let mut newest = VecDeque::new();
        for path in journal.segments().iter().rev().map(|(_, path)| path) {
            let mut events: VecDeque<Event> = events_of(path).collect();
            if let Some(last) = events.back() {
                journal.next = journal.next.max(last.seq + 1);
            }
            events.append(&mut newest);
            newest = events;
            if newest.len() >= keep {
                break;
            }
        }
        newest.drain(..newest.len().saturating_sub(keep));
        (journal, newest)
    }

    fn find(&mut self) -> io::Result<()> {
        self.take_over_old();
        fs::create_dir_all(&self.dir)?;
        let mut found: Vec<u64> = fs::read_dir(&self.dir)?
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.strip_suffix(".jsonl")?.parse().ok())
            .collect();
        found.sort_unstable();
        self.segments = found.into();
        if let Some(last) = self.segments.back().copied() {
            let path = self.path(last);
            cut_torn_line(&path)?;
            let file = OpenOptions::new().append(true).open(&path)?;
            self.size = file.metadata()?.len();
            self.next = last;
            self.file = Some(file);
        }
        Ok(())
    }

    /// Releases before 0.2 had one file beside the directory.
    fn take_over_old(&self) {
        let old = self.dir.with_extension("jsonl");
        let first = events_of(&old).next().map(|e| e.seq);
        if let Some(first) = first
            && !self.dir.exists()
            && fs::create_dir_all(&self.dir).is_ok()
        {
            let _ = fs::rename(&old, self.path(first));
        }
    }

    fn path(&self, first: u64) -> PathBuf {
        self.dir.join(format!("{first:020}.jsonl"))
    }

    /// The number after the newest journaled event.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The oldest number that is here.
    pub fn first(&self) -> Option<u64> {
        self.segments.front().copied()
    }

    /// First numbers and files, oldest first.
    pub fn segments(&self) -> Vec<(u64, PathBuf)> {
        self.segments.iter().map(|first| (*first, self.path(*first))).collect()
    }

    /// Writes one event. On a full disk it is told once and tried again with every event.
    pub fn append(&mut self, event: &Event) {
        let mut line = serde_json::to_vec(event).expect("plain structs always serialise");
        line.push(b'\n');
        let silent = self.file.is_none() && !self.segments.is_empty();
        if let Err(error) = self.write(event.seq, &line) {
            self.file = None;
            if !silent {
                tracing::warn!(path = %self.dir.display(), %error, "events are not journaled");
            }
        }
        self.next = event.seq + 1;
    }

    fn write(&mut self, seq: u64, line: &[u8]) -> io::Result<()> {
        if self.file.is_none() || self.size >= self.most {
            // After a failed write too: a torn line may end the old segment, and a number may be missing before this one.
            let path = self.path(seq);
            self.file = Some(OpenOptions::new().append(true).create(true).open(&path)?);
            self.size = 0;
            if self.segments.back() != Some(&seq) {
                self.segments.push_back(seq);
            }
            while self.segments.len() > self.many
                && let Some(oldest) = self.segments.pop_front()
            {
                let _ = fs::remove_file(self.path(oldest));
            }
        }
        if let Some(file) = &mut self.file {
            file.write_all(line)?;
        }
        self.size += line.len() as u64;
        Ok(())
    }
}

/// Events after `after` and before `before`, not older than `since`: at most `most`.
pub fn read(segments: &[(u64, PathBuf)], after: u64, before: u64, since: i64, most: usize) -> Vec<Event> {
    let mut out = Vec::new();
    for (at, (_, path)) in segments.iter().enumerate() {
        // The next segment begins where this one ends.
        if segments.get(at + 1).is_some_and(|(next, _)| *next <= after + 1) {
            continue;
        }
        for event in events_of(path) {
            if event.seq >= before || out.len() >= most {
                return out;
            }
            if event.seq > after && event.time_unix_ns >= since {
                out.push(event);
            }
        }
    }
    out
}

/// Lines that are no events are left out.
fn events_of(path: &Path) -> impl Iterator<Item = Event> + use<> {
    let lines = File::open(path).ok().map(|f| BufReader::new(f).lines());
    lines.into_iter().flatten().map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok())
}

fn cut_torn_line(path: &Path) -> io::Result<()> {
    let bytes = fs::read(path)?;
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    if whole < bytes.len() {
        OpenOptions::new().write(true).open(path)?.set_len(whole as u64)?;
    }
    Ok(())
}
