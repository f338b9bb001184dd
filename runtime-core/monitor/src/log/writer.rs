//! What the log's thread does with a batch: lines out of bytes, and lines into the sink.

use std::path::Path;

use davit_wire::config::{FileLog, LogSink};

use super::file::{Format, RotatedFile};
use super::journal::Journal;
use super::lines::Lines;
use super::queue::{Record, Shared, records};
use super::{json, local};
use crate::clock;

/// One line, or a piece of one that is too long.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// With its newline, unless it is a piece.
    pub text: &'a [u8],
    /// Of standard output.
    pub stdout: bool,
    /// When its end was read.
    pub unix_ns: i64,
    /// Our own, not the program's: no drop is counted for it.
    pub own: bool,
}

impl Line<'_> {
    /// How many bytes of the program it holds.
    pub fn content(&self) -> u64 {
        if self.own { 0 } else { self.text.len() as u64 }
    }
}

#[derive(Debug)]
enum Sink {
    File(RotatedFile),
    Journal(Journal),
}

impl Sink {
    fn append(&mut self, line: Line<'_>, shared: &Shared) {
        match self {
            Self::File(file) => file.append(line, shared),
            Self::Journal(journal) => journal.send(line, shared),
        }
    }

    /// Whether everything that was appended since the last flush is written.
    fn flush(&mut self, shared: &Shared) -> bool {
        match self {
            Self::File(file) => file.flush(shared),
            Self::Journal(journal) => journal.flush(),
        }
    }
}

/// The sink and what belongs to it. Owned by the thread while there is one.
#[derive(Debug)]
pub struct Writer {
    sink: Sink,
    stdout: Lines,
    stderr: Lines,
}

impl Writer {
    /// Nothing is opened yet; none for no log.
    pub fn new(sink: &LogSink) -> Option<Self> {
        let file = |log: &FileLog, format| Sink::File(RotatedFile::new(log, format));
        let sink = match sink {
            LogSink::None => return None,
            LogSink::JsonFile(log) => file(log, Format::Json { attrs: json::attributes(&log.attrs) }),
            LogSink::Local(log) => file(log, Format::Local),
            LogSink::Journald(log) => Sink::Journal(Journal::new(log)),
        };
        Some(Self { sink, stdout: Lines::default(), stderr: Lines::default() })
    }

    /// Writes a batch of records.
    pub fn write(&mut self, batch: &[u8], shared: &Shared) {
        self.report(shared);
        for record in records(batch) {
            self.record(&record, shared);
        }
        self.sink.flush(shared);
        // At the end of the program nothing else might tell of what has just been lost.
        self.report(shared);
    }

    fn record(&mut self, record: &Record<'_>, shared: &Shared) {
        let Record { flags, unix_ns, data } = *record;
        let Self { sink, stdout, stderr } = self;
        if flags.note {
            return sink.append(Line { text: data, stdout: false, unix_ns, own: true }, shared);
        }
        let lines = if flags.stdout { stdout } else { stderr };
        if let Some(whole_line) = flags.gap {
            shared.lose(lines.gap(whole_line), "its beginning or end was dropped");
        }
        let mut append = |text: &[u8]| {
            sink.append(Line { text, stdout: flags.stdout, unix_ns, own: false }, shared);
        };
        let skipped = lines.push(data, &mut append);
        shared.lose(skipped, "its beginning or end was dropped");
        if flags.end {
            lines.finish(append);
        }
    }

    /// Says in the log what is missing there, once it takes lines again.
    fn report(&mut self, shared: &Shared) {
        let (bytes, why) = shared.unreported();
        if bytes == 0 {
            return;
        }
        let text = format!("davit: {bytes} bytes of output were not logged: {why}\n");
        let line = Line { text: text.as_bytes(), stdout: false, unix_ns: clock::unix_ns(), own: true };
        self.sink.append(line, shared);
        if self.sink.flush(shared) {
            shared.reported(bytes);
        }
    }

    /// Gives spare memory back.
    pub fn shrink(&mut self) {
        self.stdout.shrink();
        self.stderr.shrink();
        if let Sink::File(file) = &mut self.sink {
            file.shrink();
        }
    }
}

/// Encodes a line as a file has it.
pub fn encode(format: &Format, line: Line<'_>, out: &mut Vec<u8>) {
    match format {
        Format::Json { attrs } => json::write_line(line.text, line.stdout, attrs, line.unix_ns, out),
        Format::Local => local::write_entry(line.text, line.stdout, line.unix_ns, out),
    }
}

/// `PATH.N`, and with `gz` its compressed form.
pub fn numbered(path: &Path, n: u32, gz: bool) -> std::path::PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(format!(".{n}{}", if gz { ".gz" } else { "" }));
    name.into()
}
