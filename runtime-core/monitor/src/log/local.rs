//! Entries of docker's local driver: a protobuf message with its length (u32, big endian) before and after it, so that a reader can go
//! either way.
//!
//! ```text
//! message LogEntry { string source = 1; int64 time_nano = 2; bytes line = 3; bool partial = 4; }
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Appends one entry. A piece without a newline is `partial`.
pub fn write_entry(text: &[u8], stdout: bool, unix_ns: i64, out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend_from_slice(&[0; 4]);
    let source: &[u8] = if stdout { b"stdout" } else { b"stderr" };
    bytes(1, source, out);
    out.push(2 << 3);
    varint(unix_ns as u64, out);
    let line = text.strip_suffix(b"\n");
    bytes(3, line.unwrap_or(text), out);
    if line.is_none() {
        out.extend_from_slice(&[4 << 3, 1]);
    }
    let length = ((out.len() - begin - 4) as u32).to_be_bytes();
    out[begin..begin + 4].copy_from_slice(&length);
    out.extend_from_slice(&length);
}

/// How much of a file of `size` bytes is whole entries.
pub fn whole(file: &File, size: u64) -> io::Result<u64> {
    let number = |at: u64| {
        let mut four = [0; 4];
        file.read_exact_at(&mut four, at).map(|()| u64::from(u32::from_be_bytes(four)))
    };
    if size >= 8 {
        let last = number(size - 4)?;
        if last > 0 && size >= last + 8 && number(size - last - 8)? == last {
            return Ok(size);
        }
    }
    let mut end = 0;
    while size - end >= 8 {
        let length = number(end)?;
        let next = end + length + 8;
        if length == 0 || next > size || number(next - 4)? != length {
            break;
        }
        end = next;
    }
    Ok(end)
}

fn bytes(field: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(field << 3 | 2);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_framed_on_both_sides() {
        let mut out = Vec::new();
        write_entry(b"hi\n", true, 300, &mut out);
        let body = [&[0x0a, 6][..], b"stdout", &[0x10, 0xac, 0x02, 0x1a, 2], b"hi"].concat();
        let length = (body.len() as u32).to_be_bytes();
        assert_eq!(out, [&length[..], &body, &length].concat());
        out.clear();
        write_entry(b"piece", false, 0, &mut out);
        assert_eq!(out[out.len() - 6..out.len() - 4], [0x20, 1]);
    }
}
