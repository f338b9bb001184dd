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
    let mut seen = Seen::default();
    loop {
        let before = (seen.last, seen.count);
        let result = stream(app, &request, args, &mut seen).await;
        if (seen.last, seen.count) != before {
            request.since_unix_ns = seen.last;
            request.tail = None;
            tries = 0;
        }
        seen.again = seen.count;
        match result {
            Err(Failure::Told(e)) if args.follow && is_interruption(&e) && tries < 100 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => return other,
        }
    }
}

/// The last moment of which lines were shown, and how many: what is read at once has the same time, and none of it may be missing or twice
/// when the log is asked for again.
#[derive(Default)]
struct Seen {
    last: i64,
    count: u64,
    /// Lines of that moment that are about to come again.
    again: u64,
}

impl Seen {
    /// Whether a line is new.
    fn takes(&mut self, entry: &LogEntry) -> bool {
        if entry.time_unix_ns != self.last {
            (self.last, self.count, self.again) = (entry.time_unix_ns, 1, 0);
            return true;
        }
        if self.again > 0 {
            self.again -= 1;
            return false;
        }
        self.count += 1;
        true
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

async fn stream(app: &App, request: &LogsRequest, args: &LogsArgs, seen: &mut Seen) -> Outcome {
    let mut entries = app.runtime(app.containers().await?.logs(request.clone())).await?;
    loop {
        let entry = match entries.message().await {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(()),
            Err(status) => return Err(app.refused("runtimed", status)),
        };
        if seen.takes(&entry) && show(&entry, args).is_err() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_moment_are_shown_once_each_over_an_interruption() {
        let entry = |time_unix_ns| LogEntry { time_unix_ns, ..LogEntry::default() };
        let mut seen = Seen::default();
        let shown = |seen: &mut Seen, times: &[i64]| times.iter().filter(|t| seen.takes(&entry(**t))).count();
        assert_eq!(shown(&mut seen, &[1, 2, 2]), 3);
        seen.again = seen.count;
        // Asked again from 2 on: two of four are known.
        assert_eq!(shown(&mut seen, &[2, 2, 2, 2, 3]), 3);
        seen.again = seen.count;
        assert_eq!(shown(&mut seen, &[3, 4]), 1);
    }
}
