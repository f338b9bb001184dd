//! The journal of systemd: one datagram a line, in the native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).
//!
//! A line is at most 16 KiB, so that no datagram comes near the size that would have to be passed as a file. A journald that is stopped
//! makes sending wait, as a disk would; one that is gone refuses, and is tried again with the next line.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use davit_wire::config::JournalLog;

use super::queue::Shared;
use super::writer::Line;
use crate::clock;

/// The connection to journald.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// The fields that are the same for each line, encoded.
    fields: Vec<u8>,
    socket: Option<UnixDatagram>,
    message: Vec<u8>,
    lost: bool,
}

impl Journal {
    /// Connected with the first line.
    pub fn new(log: &JournalLog) -> Self {
        let mut fields = Vec::new();
        for (name, value) in &log.fields {
            field(name, value.as_bytes(), &mut fields);
        }
        Self { path: log.socket.clone(), fields, socket: None, message: Vec::new(), lost: false }
    }

    /// Sends a line.
    pub fn send(&mut self, line: Line<'_>, shared: &Shared) {
        encode(&self.fields, line, &mut self.message);
        // A socket that was connected to a journald before says that it is gone once; the next one may listen already.
        for _ in 0..2 {
            if self.socket.is_none() {
                self.socket = UnixDatagram::unbound().and_then(|s| s.connect(&self.path).map(|()| s)).ok();
            }
            let Some(socket) = &self.socket else { break };
            match socket.send(&self.message) {
                Ok(_) => return shared.progressed(),
                Err(_) => self.socket = None,
            }
        }
        self.lost = true;
        shared.lose(line.content(), "journald did not take it");
    }

    /// Whether everything since the last time was taken.
    pub fn flush(&mut self) -> bool {
        !std::mem::take(&mut self.lost)
    }
}

fn encode(fields: &[u8], line: Line<'_>, out: &mut Vec<u8>) {
    out.clear();
    let whole = line.text.strip_suffix(b"\n");
    field("MESSAGE", whole.unwrap_or(line.text), out);
    field("PRIORITY", if line.stdout { b"6" } else { b"3" }, out);
    if whole.is_none() {
        field("CONTAINER_PARTIAL_MESSAGE", b"true", out);
    }
    out.extend_from_slice(b"SYSLOG_TIMESTAMP=");
    clock::write_rfc3339(line.unix_ns, out);
    out.push(b'\n');
    out.extend_from_slice(fields);
}

/// `NAME=value`, or for a value of several lines its length (u64, little endian) before it.
fn field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_datagram_of_fields() {
        let mut fields = Vec::new();
        field("CONTAINER_NAME", b"web", &mut fields);
        field("L", b"a\nb", &mut fields);
        let mut out = Vec::new();
        let line = Line { text: b"hello\n", stdout: false, unix_ns: 0, own: false };
        encode(&fields, line, &mut out);
        let expected = [
            &b"MESSAGE=hello\nPRIORITY=3\nSYSLOG_TIMESTAMP=1970-01-01T00:00:00Z\nCONTAINER_NAME=web\nL\n"[..],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            b"a\nb\n",
        ];
        assert_eq!(out, expected.concat());
        encode(&[], Line { text: b"piece", stdout: true, ..line }, &mut out);
        assert!(out.starts_with(b"MESSAGE=piece\nPRIORITY=6\nCONTAINER_PARTIAL_MESSAGE=true\n"));
    }
}
