//! A client of a monitor's streams.

use std::path::Path;

use davit_wire::{Attach, Decoder, ExitRecord, Frame, Hello, PROTOCOL_VERSION, Role, encode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// What came out, and how it ended.
pub struct Output {
    pub stdout: String,
    pub stderr: String,
    pub exit: ExitRecord,
}

/// Attaches with some input and reads to the end.
pub async fn attach(socket: &str, exec_id: Option<&str>, input: &[u8]) -> Output {
    let mut stream = UnixStream::connect(Path::new(socket)).await.unwrap();
    let role = Attach {
        exec_id: exec_id.map(str::to_owned),
        stdin: true,
        stdout: true,
        stderr: true,
        replay: true,
        size: None,
    };
    let mut bytes = Vec::new();
    encode(&Frame::Hello(Hello { version: PROTOCOL_VERSION, role: Role::Attach(role) }), &mut bytes);
    if !input.is_empty() {
        encode(&Frame::Stdin(input.to_vec()), &mut bytes);
    }
    encode(&Frame::StdinEof, &mut bytes);
    stream.write_all(&bytes).await.unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut decoder = Decoder::default();
    let mut buffer = [0u8; 4096];
    loop {
        while let Some(frame) = decoder.next_frame().unwrap() {
            match frame {
                Frame::Stdout(b) => out.extend(b),
                Frame::Stderr(b) => err.extend(b),
                Frame::Exit(exit) => {
                    let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
                    return Output { stdout: text(out), stderr: text(err), exit };
                }
                Frame::Failed { failure, .. } => panic!("refused: {failure:?}"),
                _ => {}
            }
        }
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(n > 0, "the monitor closed the connection before the exit");
        decoder.push(&buffer[..n]);
    }
}
