//! `davit logs`.

use std::io::{self, Write};
use std::time::Duration;

use davit_contracts::runtime::log_entry::Stream;
use davit_contracts::runtime::{InspectRequest, LogEntry, LogsRequest};

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
    let request = LogsRequest {
        container: args.container.clone(),
        follow: args.follow,
        stdout: true,
        stderr: true,
        since_unix_ns: time(&args.since)?,
        until_unix_ns: time(&args.until)?,
        tail: tail(args.tail.as_deref())?,
    };
    let result = read(app, args, request).await;
    tell_missing(app, args).await;
    result
}

/// What is not in the log, and why: nobody should look for it.
async fn tell_missing(app: &App, args: &LogsArgs) {
    let request = InspectRequest { container: args.container.clone() };
    let Ok(mut containers) = app.containers().await else { return };
    // Without a log there is nothing that could be missing; a failure was told already.
    let Ok(answer) = containers.inspect(request).await else { return };
    let state = answer.into_inner().container.and_then(|c| c.state).unwrap_or_default();
    if state.log_dropped_bytes > 0 {
        let (bytes, why) = (state.log_dropped_bytes, &state.log_error);
        crate::output::complain!("davit: {bytes} bytes were not logged: {why}");
    }
}

async fn read(app: &App, args: &LogsArgs, mut request: LogsRequest) -> Outcome {
    let mut tries = 0;
    loop {
        let mut seen = None;
        let result = stream(app, &request, args, &mut seen).await;
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

async fn stream(app: &App, request: &LogsRequest, args: &LogsArgs, seen: &mut Option<i64>) -> Outcome {
    let mut entries = app.runtime(app.containers().await?.logs(request.clone())).await?;
    loop {
        let entry = match entries.message().await {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(()),
            Err(status) => return Err(app.refused("runtimed", status)),
        };
        *seen = Some(entry.time_unix_ns);
        if show(&entry, args).is_err() {
            // Nobody reads any more.
            return Err(Failure::Code(141));
        }
    }
}

fn show(entry: &LogEntry, args: &LogsArgs) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(entry.data.len() + 40);
    if args.timestamps {
        bytes.extend_from_slice(words::rfc3339(entry.time_unix_ns).as_bytes());
        bytes.push(b' ');
    }
    if args.details {
        let mut pairs: Vec<String> = entry.attrs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        pairs.sort_unstable();
        bytes.extend_from_slice(pairs.join(",").as_bytes());
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
