//! One line of docker's json-file format, byte for byte as its daemon writes it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::clock;

/// `"attrs":{"name":"value"},` for [`write_line`], or nothing.
pub fn attributes(attrs: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in attrs {
        out.extend_from_slice(if out.is_empty() { b"\"attrs\":{\"" } else { b",\"" });
        escape(name, &mut out);
        out.extend_from_slice(b"\":\"");
        escape(value, &mut out);
        out.push(b'"');
    }
    if !out.is_empty() {
        out.extend_from_slice(b"},");
    }
    out
}

/// Appends `{"log":"...","stream":"stdout","time":"..."}` and a newline.
pub fn write_line(line: &[u8], stdout: bool, attrs: &[u8], unix_ns: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"log\":\"");
    for chunk in line.utf8_chunks() {
        escape(chunk.valid(), out);
        // Like Go's decoder, one replacement a bad byte.
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(if stdout { b"stdout" } else { b"stderr" });
    out.extend_from_slice(b"\",");
    out.extend_from_slice(attrs);
    out.extend_from_slice(b"\"time\":\"");
    clock::write_rfc3339(unix_ns, out);
    out.extend_from_slice(b"\"}\n");
}

/// How much of a file of `size` bytes is whole lines. Lines are far shorter than what is looked at.
pub fn whole(file: &File, size: u64) -> io::Result<u64> {
    let mut tail = vec![0; usize::try_from(size.min(256 << 10)).unwrap_or(0)];
    let begin = size - tail.len() as u64;
    file.read_exact_at(&mut tail, begin)?;
    let end = tail.iter().rposition(|b| *b == b'\n').map_or(0, |at| at as u64 + 1);
    Ok(if end == 0 && begin > 0 { size } else { begin + end })
}

fn escape(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    let mut start = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let plain = match byte {
            b'"' | b'\\' | b'<' | b'>' | b'&' | 0..=0x1f => false,
            // U+2028 and U+2029 are e2 80 a8 and e2 80 a9.
            0xe2 => !matches!(bytes[at..], [_, 0x80, 0xa8 | 0xa9, ..]),
            _ => true,
        };
        if plain || at < start {
            continue;
        }
        out.extend_from_slice(&bytes[start..at]);
        start = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0xe2 => {
                out.extend_from_slice(if bytes[at + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                start = at + 3;
            }
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(&bytes[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &[u8]) -> String {
        let mut out = Vec::new();
        write_line(line, false, &[], 1_500_000_000, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_docker_s() {
        assert_eq!(
            text(b"a \"q\" \\ \t<b>&\r\n"),
            "{\"log\":\"a \\\"q\\\" \\\\ \\u0009\\u003cb\\u003e\\u0026\\r\\n\",\"stream\":\"stderr\",\
             \"time\":\"1970-01-01T00:00:01.5Z\"}\n"
        );
    }

    #[test]
    fn attributes_stand_between_stream_and_time() {
        let attrs = [("a", "1"), ("b\"", "<2>")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let mut out = Vec::new();
        write_line(b"x\n", true, &attributes(&attrs.into()), 0, &mut out);
        let v: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&v["attrs"]["a"], &v["attrs"]["b\""]), (&"1".into(), &"<2>".into()));
        assert!(out.starts_with(b"{\"log\":\"x\\n\",\"stream\":\"stdout\",\"attrs\":{\"a\""));
        assert!(attributes(&BTreeMap::new()).is_empty());
    }

    #[test]
    fn any_text_comes_back_and_bad_bytes_are_replaced() {
        let original = "é \u{2028}x\u{2029} 日本 \u{7f}\u{0}end";
        let v: serde_json::Value = serde_json::from_str(&text(original.as_bytes())).unwrap();
        assert_eq!(v["log"], original);
        assert!(text(original.as_bytes()).contains("\\u2028x\\u2029"));
        let v: serde_json::Value = serde_json::from_str(&text(b"a\xff\xfeb")).unwrap();
        assert_eq!(v["log"], "a\u{fffd}\u{fffd}b");
    }
}
