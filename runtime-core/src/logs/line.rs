//! One line of a json-file log.

use std::borrow::Cow;
use std::collections::HashMap;

use davit_contracts::runtime::LogEntry;
use davit_contracts::runtime::log_entry::Stream;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow, default)]
    time: Cow<'a, str>,
    #[serde(default)]
    attrs: HashMap<String, String>,
}

/// Reads one line without its newline; none when it is not an entry (a crash may tear a line).
pub fn parse(bytes: &[u8]) -> Option<LogEntry> {
    let line: Line<'_> = serde_json::from_slice(bytes).ok()?;
    let time = OffsetDateTime::parse(&line.time, &Rfc3339).ok()?;
    let stream = match line.stream.as_ref() {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => return None,
    };
    Some(LogEntry {
        stream: stream as i32,
        time_unix_ns: i64::try_from(time.unix_timestamp_nanos()).ok()?,
        data: line.log.into_owned().into_bytes(),
        attrs: line.attrs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_what_is_none() {
        let e = parse(br#"{"log":"a \u00e9\n","stream":"stderr","time":"2024-01-02T03:04:05.000000006Z"}"#)
            .unwrap();
        assert_eq!((e.stream, e.data.as_slice()), (Stream::Stderr as i32, "a é\n".as_bytes()));
        assert_eq!(e.time_unix_ns % 1_000_000_000, 6);
        for bad in ["", "{", "{}", r#"{"log":"x","stream":"stdin","time":"2024-01-02T03:04:05Z"}"#, "null"] {
            assert!(parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
