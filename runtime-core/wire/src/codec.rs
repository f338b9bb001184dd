//! Frames to bytes and back, without any I/O.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::message::Frame;

/// Longest frame accepted: bulk data travels in pieces of at most 64 KiB, requests are small JSON.
pub const MAX_FRAME: usize = 1 << 20;

const HEADER: usize = 5;

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length field is zero or over [`MAX_FRAME`].
    #[error("a frame of {0} bytes is outside 1..={MAX_FRAME}")]
    Length(usize),
    /// The type byte is none that this version knows.
    #[error("unknown frame type {0}")]
    Type(u8),
    /// A JSON payload does not parse.
    #[error("malformed payload in a frame of type {kind}")]
    Payload {
        /// The frame's type byte.
        kind: u8,
        /// What serde says.
        #[source]
        source: serde_json::Error,
    },
}

mod kind {
    pub const HELLO: u8 = 1;
    pub const WELCOME: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const REPLY: u8 = 4;
    pub const FAILED: u8 = 5;
    pub const EVENT: u8 = 6;
    pub const STDIN: u8 = 16;
    pub const STDOUT: u8 = 17;
    pub const STDERR: u8 = 18;
    pub const STDIN_EOF: u8 = 19;
    pub const RESIZE: u8 = 20;
    pub const SIGNAL: u8 = 21;
    pub const EXIT: u8 = 22;
    pub const STARTED: u8 = 23;
    pub const DETACH: u8 = 24;
}

/// Appends the frame's bytes to `out`.
pub fn encode(frame: &Frame, out: &mut Vec<u8>) {
    match frame {
        Frame::Hello(v) => json(kind::HELLO, v, out),
        Frame::Welcome(v) => json(kind::WELCOME, v, out),
        Frame::Request { id, request } => json(kind::REQUEST, &(id, request), out),
        Frame::Reply { id, reply } => json(kind::REPLY, &(id, reply), out),
        Frame::Failed { id, failure } => json(kind::FAILED, &(id, failure), out),
        Frame::Event(v) => json(kind::EVENT, v, out),
        Frame::Stdin(b) => raw(kind::STDIN, b, out),
        Frame::Stdout(b) => raw(kind::STDOUT, b, out),
        Frame::Stderr(b) => raw(kind::STDERR, b, out),
        Frame::StdinEof => raw(kind::STDIN_EOF, &[], out),
        Frame::Resize { rows, cols } => json(kind::RESIZE, &(rows, cols), out),
        Frame::Signal(n) => json(kind::SIGNAL, n, out),
        Frame::Exit(v) => json(kind::EXIT, v, out),
        Frame::Started { pid } => json(kind::STARTED, pid, out),
        Frame::Detach => raw(kind::DETACH, &[], out),
    }
}

/// Appends a bulk frame without copying its data into a [`Frame`] first. `stdout` false means stderr.
pub fn encode_output(stdout: bool, data: &[u8], out: &mut Vec<u8>) {
    raw(if stdout { kind::STDOUT } else { kind::STDERR }, data, out);
}

/// The bytes that go before `length` bytes of output, for writing both without a copy. `stdout` false means stderr.
pub fn output_header(stdout: bool, length: usize) -> [u8; 5] {
    let [a, b, c, d] = (length as u32 + 1).to_le_bytes();
    [a, b, c, d, if stdout { kind::STDOUT } else { kind::STDERR }]
}

fn raw(kind: u8, data: &[u8], out: &mut Vec<u8>) {
    out.reserve(HEADER + data.len());
    out.extend_from_slice(&(data.len() as u32 + 1).to_le_bytes());
    out.push(kind);
    out.extend_from_slice(data);
}

fn json<T: Serialize>(kind: u8, value: &T, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    serde_json::to_writer(&mut *out, value)
        .expect("messages are plain structs; writing to a Vec cannot fail");
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Takes bytes as they arrive and gives whole frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    consumed: usize,
}

impl Decoder {
    /// Adds bytes read from the socket.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.consumed > 0 {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or none yet. After an error the connection is of no more use.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = &self.buffer[self.consumed..];
        let Some(header) = rest.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*header) as usize;
        if length == 0 || length > MAX_FRAME {
            return Err(FrameError::Length(length));
        }
        if rest.len() < 4 + length {
            return Ok(None);
        }
        let frame = decode(rest[4], &rest[HEADER..4 + length])?;
        self.consumed += 4 + length;
        if self.consumed == self.buffer.len() {
            self.buffer.clear();
            self.consumed = 0;
            // A single large frame must not keep its memory for the life of a monitor.
            self.buffer.shrink_to(4096);
        }
        Ok(Some(frame))
    }
}

fn decode(kind: u8, payload: &[u8]) -> Result<Frame, FrameError> {
    Ok(match kind {
        kind::HELLO => Frame::Hello(parse(kind, payload)?),
        kind::WELCOME => Frame::Welcome(parse(kind, payload)?),
        kind::REQUEST => {
            let (id, request) = parse(kind, payload)?;
            Frame::Request { id, request }
        }
        kind::REPLY => {
            let (id, reply) = parse(kind, payload)?;
            Frame::Reply { id, reply }
        }
        kind::FAILED => {
            let (id, failure) = parse(kind, payload)?;
            Frame::Failed { id, failure }
        }
        kind::EVENT => Frame::Event(parse(kind, payload)?),
        kind::STDIN => Frame::Stdin(payload.to_vec()),
        kind::STDOUT => Frame::Stdout(payload.to_vec()),
        kind::STDERR => Frame::Stderr(payload.to_vec()),
        kind::STDIN_EOF => Frame::StdinEof,
        kind::RESIZE => {
            let (rows, cols) = parse(kind, payload)?;
            Frame::Resize { rows, cols }
        }
        kind::SIGNAL => Frame::Signal(parse(kind, payload)?),
        kind::EXIT => Frame::Exit(parse(kind, payload)?),
        kind::STARTED => Frame::Started { pid: parse(kind, payload)? },
        kind::DETACH => Frame::Detach,
        other => return Err(FrameError::Type(other)),
    })
}

fn parse<T: DeserializeOwned>(kind: u8, payload: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(payload).map_err(|source| FrameError::Payload { kind, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Hello, Role};

    fn round(frame: &Frame) -> Frame {
        let mut bytes = Vec::new();
        encode(frame, &mut bytes);
        let mut d = Decoder::default();
        // One byte at a time: a frame is given exactly when its last byte has come.
        for (i, b) in bytes.iter().enumerate() {
            d.push(&[*b]);
            let got = d.next_frame().unwrap();
            if i + 1 == bytes.len() {
                return got.unwrap();
            }
            assert!(got.is_none());
        }
        unreachable!()
    }

    #[test]
    fn frames_survive_byte_by_byte() {
        for f in [
            Frame::Hello(Hello { version: 1, role: Role::Control }),
            Frame::Stdout(vec![0, 255, 10]),
            Frame::StdinEof,
            Frame::Resize { rows: 24, cols: 80 },
            Frame::Signal(15),
            Frame::Started { pid: 7 },
        ] {
            assert_eq!(round(&f), f);
        }
    }

    #[test]
    fn lengths_outside_the_bound_are_refused() {
        let mut d = Decoder::default();
        d.push(&[0xff, 0xff, 0xff, 0xff, 1]);
        assert!(matches!(d.next_frame(), Err(FrameError::Length(_))));
        let mut d = Decoder::default();
        d.push(&[0, 0, 0, 0, 1]);
        assert!(matches!(d.next_frame(), Err(FrameError::Length(0))));
    }

    #[test]
    fn unknown_types_and_bad_json_are_errors() {
        let mut d = Decoder::default();
        d.push(&[1, 0, 0, 0, 200]);
        assert!(matches!(d.next_frame(), Err(FrameError::Type(200))));
        let mut d = Decoder::default();
        d.push(&[2, 0, 0, 0, 1, b'{']);
        assert!(matches!(d.next_frame(), Err(FrameError::Payload { .. })));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_frames_or_an_error_and_never_a_panic(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2000),
            piece in 1usize..300,
        ) {
            let mut d = Decoder::default();
            'all: for chunk in bytes.chunks(piece) {
                d.push(chunk);
                loop {
                    match d.next_frame() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => break 'all,
                    }
                }
            }
        }

        #[test]
        fn output_survives_however_it_is_cut(
            parts in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 0..500), 1..20),
            piece in 1usize..700,
        ) {
            let mut bytes = Vec::new();
            for (n, part) in parts.iter().enumerate() {
                let header = output_header(n % 2 == 0, part.len());
                bytes.extend_from_slice(&header);
                bytes.extend_from_slice(part);
            }
            let mut d = Decoder::default();
            let mut got = Vec::new();
            for chunk in bytes.chunks(piece) {
                d.push(chunk);
                while let Some(frame) = d.next_frame().unwrap() {
                    got.push(frame);
                }
            }
            let expected: Vec<Frame> = parts
                .into_iter()
                .enumerate()
                .map(|(n, part)| if n % 2 == 0 { Frame::Stdout(part) } else { Frame::Stderr(part) })
                .collect();
            proptest::prop_assert_eq!(got, expected);
        }
    }
}
