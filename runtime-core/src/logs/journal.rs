//! Reading back what the monitor sent to the journal: journalctl does it, as nobody else can read all of the journal's format.

use std::collections::HashMap;
use std::process::Stdio;

use davit_contracts::runtime::log_entry::Stream;
use davit_contracts::runtime::{LogEntry, LogsRequest};
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};

use super::follow::{lives, reached, wanted};
use crate::container::handle::View;
use crate::error::RuntimeError;

/// What journalctl says of one entry.
#[derive(Deserialize)]
struct Entry {
    /// Text, or numbers where it is none.
    #[serde(rename = "MESSAGE", default)]
    message: Value,
    #[serde(rename = "PRIORITY", default)]
    priority: String,
    #[serde(rename = "SYSLOG_TIMESTAMP", default)]
    time: String,
    #[serde(rename = "CONTAINER_PARTIAL_MESSAGE", default)]
    partial: String,
    #[serde(rename = "__CURSOR", default)]
    cursor: String,
}

/// Sends entries, first what is there, then what comes.
pub async fn follow(
    request: &LogsRequest,
    id: &str,
    view: &mut watch::Receiver<View>,
    out: &mpsc::Sender<Result<LogEntry, RuntimeError>>,
) -> Result<(), RuntimeError> {
    let alive = request.follow && lives(&view.borrow_and_update());
    let mut reading = Reading { request, out, cursor: String::new() };
    if !alive {
        return reading.all(id, request.tail).await.map(drop);
    }
    if !reading.all(id, request.tail).await? {
        return Ok(());
    }
    // Of no lines asked for none that are there already.
    let none = request.tail.filter(|n| *n == 0);
    let mut child = start(&reading.arguments(id, none, true))?;
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => match line {
                Ok(Some(line)) => if !reading.take(&line).await { return Ok(()) },
                _ => break,
            },
            () = ended(view) => break,
            () = out.closed() => return Ok(()),
            () = reached(request.until_unix_ns) => break,
        }
    }
    drop(child);
    // What came last, and what came between the two journalctls.
    reading.all(id, none).await.map(drop)
}

async fn ended(view: &mut watch::Receiver<View>) {
    let _ = view.wait_for(|v| !lives(v)).await;
}

struct Reading<'a> {
    request: &'a LogsRequest,
    out: &'a mpsc::Sender<Result<LogEntry, RuntimeError>>,
    /// The last entry that was taken.
    cursor: String,
}

impl Reading<'_> {
    fn arguments(&self, id: &str, tail: Option<u64>, follow: bool) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["--quiet", "--no-pager", "--all", "--output=json"].map(str::to_owned).into();
        if follow {
            arguments.push("--follow".into());
        }
        if self.cursor.is_empty() {
            if self.request.since_unix_ns > 0 {
                // The journal's own time is that of arrival, later than ours; what is too early is left out by ours.
                arguments.push(format!("--since=@{}", self.request.since_unix_ns / 1_000_000_000));
            }
            if follow || tail.is_some() {
                arguments.push(format!("--lines={}", tail.map_or("all".into(), |n| n.to_string())));
            }
        } else {
            arguments.push(format!("--after-cursor={}", self.cursor));
            if follow {
                arguments.push("--lines=all".into());
            }
        }
        arguments.push(format!("CONTAINER_ID_FULL={id}"));
        arguments
    }

    /// Everything that is there; false when nothing more is wanted.
    async fn all(&mut self, id: &str, tail: Option<u64>) -> Result<bool, RuntimeError> {
        if tail == Some(0) && self.cursor.is_empty() {
            return Ok(true);
        }
        let mut child = start(&self.arguments(id, tail, false))?;
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if !self.take(&line).await {
                return Ok(false);
            }
        }
        let mut errors = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            let _ = stderr.read_to_string(&mut errors).await;
        }
        match child.wait().await {
            Ok(status) if !status.success() && !errors.trim().is_empty() => {
                Err(RuntimeError::Unsupported(format!("journalctl cannot read the log: {}", errors.trim())))
            }
            _ => Ok(true),
        }
    }

    async fn take(&mut self, line: &str) -> bool {
        let Some((entry, cursor)) = parse(line) else { return true };
        self.cursor = cursor;
        if self.request.until_unix_ns > 0 && entry.time_unix_ns > self.request.until_unix_ns {
            return false;
        }
        !wanted(self.request, &entry) || self.out.send(Ok(entry)).await.is_ok()
    }
}

fn start(arguments: &[String]) -> Result<Child, RuntimeError> {
    let mut command = Command::new("journalctl");
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command.spawn().map_err(|e| {
        RuntimeError::Unsupported(format!("the log is in the journal, and reading it needs journalctl: {e}"))
    })
}

fn parse(line: &str) -> Option<(LogEntry, String)> {
    let entry: Entry = serde_json::from_str(line).ok()?;
    let mut data = match entry.message {
        Value::String(text) => text.into_bytes(),
        Value::Array(bytes) => bytes.iter().filter_map(|b| b.as_u64().map(|b| b as u8)).collect(),
        _ => Vec::new(),
    };
    if entry.partial != "true" {
        data.push(b'\n');
    }
    let time = OffsetDateTime::parse(&entry.time, &Rfc3339).ok()?;
    let stream = if entry.priority == "3" { Stream::Stderr } else { Stream::Stdout };
    let time_unix_ns = i64::try_from(time.unix_timestamp_nanos()).ok()?;
    Some((LogEntry { stream: stream as i32, time_unix_ns, data, attrs: HashMap::new() }, entry.cursor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_journalctl() {
        let line =
            r#"{"MESSAGE":"hi","PRIORITY":"3","SYSLOG_TIMESTAMP":"1970-01-01T00:00:01.5Z","__CURSOR":"c"}"#;
        let (entry, cursor) = parse(line).unwrap();
        assert_eq!(
            (entry.data.as_slice(), entry.stream(), entry.time_unix_ns),
            (&b"hi\n"[..], Stream::Stderr, 1_500_000_000)
        );
        assert_eq!(cursor, "c");
        let line = r#"{"MESSAGE":[255,65],"PRIORITY":"6","CONTAINER_PARTIAL_MESSAGE":"true","SYSLOG_TIMESTAMP":"1970-01-01T00:00:00Z"}"#;
        let (entry, _) = parse(line).unwrap();
        assert_eq!((entry.data.as_slice(), entry.stream()), (&[255, 65][..], Stream::Stdout));
        assert!(parse("-- No entries --").is_none());
    }
}
