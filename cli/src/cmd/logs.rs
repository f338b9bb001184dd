//! `davit logs`.

use std::io::{self, Write};
use std::time::Duration;

use davit_contracts::runtime::log_entry::Stream;
use davit_contracts::runtime::{LogEntry, LogsRequest};

use super::lifecycle::is_interruption;
use crate::app::App;
use crate::args::container::LogsArgs;
use crate::error::{Failure, Outcome};
use crate::output::words;
use crate::parse::duration::moment;

/// Prints what a container wrote; with -f a daemon that is replaced meanwhile is asked again from the last line on.
pub async fn logs(app: &App, args: &LogsArgs) -> Outcome {
    let now = words::now();
    let time = |text: &Option<String>| text.as_deref().map_or(Ok(0), |t| moment(t, now));
    let mut request = LogsRequest {
        container: args.container.clone(),
        follow: args.follow,
        stdout: true,
        stderr: true,
        since_unix_ns: time(&args.since)?,
        until_unix_ns: time(&args.until)?,
        tail: tail(args.tail.as_deref())?,
    };
    let mut tries = 0;
    loop {
        let mut seen = None;
        let result = stream(app, &request, args.timestamps, &mut seen).await;
        if let Some(last) = seen {
            request.since_unix_ns = last + 1;
            request.tail = None;
            tries = 0;
        }
        match result {
            Err(Failure::Told(e)) if args.follow && is_interruption(&e) && tries < 100 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => return other,
        }
    }
}

fn tail(text: Option<&str>) -> Outcome<Option<u64>> {
    match text {
        None | Some("all") => Ok(None),
        // Docker's: a negative number is all.
        Some(text) if text.starts_with('-') => Ok(None),
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|_| Failure::Usage(format!("--tail wants a number of lines or all, not '{text}'"))),
    }
}

async fn stream(app: &App, request: &LogsRequest, timestamps: bool, seen: &mut Option<i64>) -> Outcome {
    let mut entries = app.runtime(app.containers().await?.logs(request.clone())).await?;
    loop {
        let entry = match entries.message().await {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(()),
            Err(status) => return Err(app.refused("runtimed", status)),
        };
        *seen = Some(entry.time_unix_ns);
        if show(&entry, timestamps).is_err() {
            // Nobody reads any more.
            return Err(Failure::Code(141));
        }
    }
}

fn show(entry: &LogEntry, timestamps: bool) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(entry.data.len() + 40);
    if timestamps {
        bytes.extend_from_slice(words::rfc3339(entry.time_unix_ns).as_bytes());
        bytes.push(b' ');
    }
    bytes.extend_from_slice(&entry.data);
    if entry.stream() == Stream::Stderr {
        io::stderr().lock().write_all(&bytes)
    } else {
        let mut out = io::stdout().lock();
        out.write_all(&bytes).and_then(|()| out.flush())
    }
}
