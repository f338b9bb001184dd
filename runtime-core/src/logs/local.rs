//! One entry of a log of the local driver: a protobuf message with its length (u32, big endian) before and after it.

use davit_contracts::runtime::LogEntry;
use davit_contracts::runtime::log_entry::Stream;
use prost::Message as _;

/// An entry longer than this is no entry of ours (the monitor cuts at 16 KiB of text).
const LONGEST: usize = 1 << 20;

/// docker's message.
#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(string, tag = "1")]
    source: String,
    #[prost(int64, tag = "2")]
    time_nano: i64,
    #[prost(bytes = "vec", tag = "3")]
    line: Vec<u8>,
    #[prost(bool, tag = "4")]
    partial: bool,
}

/// The body of the first entry, and how many bytes it takes; none: it is not whole yet. An error: this is no such file.
pub fn frame(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, ()> {
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    if length == 0 || length > LONGEST {
        return Err(());
    }
    let Some((body, rest)) = rest.split_at_checked(length) else { return Ok(None) };
    match rest.first_chunk::<4>() {
        None => Ok(None),
        Some(tail) if tail == head => Ok(Some((body, length + 8))),
        Some(_) => Err(()),
    }
}

/// Reads a body; none when it is no entry.
pub fn parse(body: &[u8]) -> Option<LogEntry> {
    let mut entry = Entry::decode(body).ok()?;
    let stream = match entry.source.as_str() {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => return None,
    };
    if !entry.partial {
        entry.line.push(b'\n');
    }
    let attrs = std::collections::HashMap::new();
    Some(LogEntry { stream: stream as i32, time_unix_ns: entry.time_nano, data: entry.line, attrs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_monitor_writes_is_understood() {
        // As in the monitor's own test.
        let body = [&[0x0a, 6][..], b"stderr", &[0x10, 0xac, 0x02, 0x1a, 2], b"hi"].concat();
        let length = (body.len() as u32).to_be_bytes();
        let framed = [&length[..], &body, &length].concat();
        assert_eq!(frame(&framed), Ok(Some((&body[..], framed.len()))));
        assert_eq!(frame(&framed[..framed.len() - 1]), Ok(None));
        let mut torn = framed.clone();
        *torn.last_mut().unwrap() += 1;
        assert!(frame(&torn).is_err() && frame(&[0; 8]).is_err());
        let entry = parse(&body).unwrap();
        assert_eq!((entry.data.as_slice(), entry.time_unix_ns), (&b"hi\n"[..], 300));
        assert_eq!(entry.stream(), Stream::Stderr);
        assert_eq!(parse(&[&body[..], &[0x20, 1]].concat()).unwrap().data, b"hi");
    }
}
