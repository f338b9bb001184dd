//! The line protocol of `run/supervisor.sock`.
//!
//! A client sends one line and gets an answer that ends with a line `ok` or `error TEXT`; then the connection closes.
//!
//! | line | answer |
//! |---|---|
//! | `status` | one `supervisor` line, one `daemon` line each, `limit` lines: tab-separated `key=value` fields |
//! | `ready` | when all daemons serve, or one does not start |
//! | `ready NAME` | when that one serves, or does not start, however the others do |
//! | `restart NAME` | when it serves again |
//! | `swap NAME PATH` | when PATH serves in its place; otherwise the old binary is back |
//! | `down` | when all daemons have ended; the supervisor ends with it |

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use crate::fleet::Fleet;

/// Longest request taken.
const LONGEST: usize = 8192;

/// A request, parsed.
#[derive(Debug, PartialEq, Eq)]
enum Request<'a> {
    Status,
    Ready,
    ReadyOne(&'a str),
    Restart(&'a str),
    Swap(&'a str, &'a str),
    Down,
}

fn parse(line: &str) -> Result<Request<'_>, String> {
    let mut words = line.splitn(3, ' ').filter(|w| !w.is_empty());
    match (words.next(), words.next(), words.next()) {
        (Some("status"), None, None) => Ok(Request::Status),
        (Some("ready"), None, None) => Ok(Request::Ready),
        (Some("ready"), Some(name), None) => Ok(Request::ReadyOne(name)),
        (Some("down"), None, None) => Ok(Request::Down),
        (Some("restart"), Some(name), None) => Ok(Request::Restart(name)),
        (Some("swap"), Some(name), Some(path)) => Ok(Request::Swap(name, path)),
        _ => Err(format!(
            "unknown request '{line}': status, ready [NAME], restart NAME, swap NAME PATH or down"
        )),
    }
}

/// What a connection waits for.
#[derive(Debug)]
enum Pending {
    Line,
    Ready,
    Serving(&'static str),
    Over,
}

/// One client.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
    pending: Pending,
}

impl Connection {
    /// Takes an accepted connection.
    pub fn new(stream: UnixStream) -> Self {
        let _ = stream.set_nonblocking(true);
        Self { stream, buffer: Vec::new(), pending: Pending::Line }
    }

    /// For polling.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Reads what has come; false when the client is gone or was answered.
    pub fn readable(&mut self, fleet: &mut Fleet) -> bool {
        let mut bytes = [0u8; 1024];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return false,
                Ok(n) => self.buffer.extend_from_slice(&bytes[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
            if self.buffer.len() > LONGEST {
                return false;
            }
        }
        if !matches!(self.pending, Pending::Line) {
            return true;
        }
        let Some(end) = self.buffer.iter().position(|b| *b == b'\n') else { return true };
        let line = String::from_utf8_lossy(&self.buffer[..end]).trim_end().to_owned();
        match self.obey(&line, fleet) {
            Ok(()) => self.settle(fleet),
            Err(why) => self.answer(&Err(why)),
        }
    }

    fn obey(&mut self, line: &str, fleet: &mut Fleet) -> Result<(), String> {
        let text = |e: anyhow::Error| format!("{e:#}");
        self.pending = match parse(line)? {
            Request::Status => {
                let report = fleet.status();
                let _ = self.stream.write_all(report.as_bytes());
                self.answer(&Ok(()));
                return Ok(());
            }
            Request::Ready => Pending::Ready,
            Request::ReadyOne(name) => Pending::Serving(fleet.known(name).map_err(text)?),
            Request::Restart(name) => Pending::Serving(fleet.restart(name, None).map_err(text)?),
            Request::Swap(name, path) => {
                Pending::Serving(fleet.restart(name, Some(path.into())).map_err(text)?)
            }
            Request::Down => {
                fleet.end();
                Pending::Over
            }
        };
        Ok(())
    }

    /// Answers if what was asked for has come about; false when the connection is done with. Whoever waits for the end is answered by the
    /// connection's close, which is ours.
    pub fn settle(&mut self, fleet: &Fleet) -> bool {
        let outcome = match self.pending {
            Pending::Line => return true,
            Pending::Ready => fleet.all_ready(),
            Pending::Serving(name) => fleet.restarted(name),
            Pending::Over => fleet.is_over().then_some(Ok(())),
        };
        match outcome {
            Some(outcome) => self.answer(&outcome),
            None => true,
        }
    }

    fn answer(&mut self, outcome: &Result<(), String>) -> bool {
        let line = match outcome {
            Ok(()) => "ok\n".to_owned(),
            Err(why) => format!("error {}\n", why.replace('\n', " ")),
        };
        let _ = self.stream.write_all(line.as_bytes());
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        assert_eq!(parse("status"), Ok(Request::Status));
        assert_eq!(parse("ready netd"), Ok(Request::ReadyOne("netd")));
        assert_eq!(parse("restart netd"), Ok(Request::Restart("netd")));
        assert_eq!(parse("swap netd /a b/c"), Ok(Request::Swap("netd", "/a b/c")));
        for bad in ["", "status x", "restart", "swap netd", "DOWN"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
