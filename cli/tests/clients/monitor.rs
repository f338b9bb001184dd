//! A stand-in for a container's monitor: one attached client, frame by frame.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::JoinHandle;

use davit_wire::{
    Attach, Decoder, ExitRecord, Failure, FailureKind, Frame, Hello, MonitorState, PROTOCOL_VERSION, Phase,
    Role, Welcome, encode,
};

/// The monitor's end of an attachment.
pub struct Client {
    stream: UnixStream,
    decoder: Decoder,
    /// What the client asked for.
    pub attach: Attach,
}

/// Listens in `run` and plays `part` for the first client.
pub fn monitor<T: Send + 'static>(
    run: &Path,
    part: impl FnOnce(Client) -> T + Send + 'static,
) -> JoinHandle<T> {
    let listener = UnixListener::bind(run.join("monitor.sock")).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        part(Client::greet(stream))
    })
}

impl Client {
    fn greet(stream: UnixStream) -> Self {
        let mut me = Self { stream, decoder: Decoder::default(), attach: Attach::default() };
        match me.next() {
            Some(Frame::Hello(Hello { version: PROTOCOL_VERSION, role: Role::Attach(attach) })) => {
                me.attach = attach;
            }
            other => panic!("no hello but {other:?}"),
        }
        me
    }

    /// Says Welcome and Started.
    pub fn welcome(mut self) -> Self {
        let state = MonitorState {
            container_id: "a".repeat(64),
            monitor_pid: 1,
            monitor_start_time: 1,
            phase: Phase::Running,
            pid: 2,
            started_unix_ns: 1,
            exit: None,
            execs: Vec::new(),
            exec_exits: Vec::new(),
            features: Vec::new(),
            log_dropped_bytes: 0,
            log_error: String::new(),
            health: None,
            oom_killed: false,
        };
        self.send(&Frame::Welcome(Welcome { version: PROTOCOL_VERSION, state, tty: false }));
        self.send(&Frame::Started { pid: 2 });
        self
    }

    pub fn send(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        encode(frame, &mut bytes);
        // A client that has left is no error of the monitor's.
        let _ = self.stream.write_all(&bytes);
    }

    pub fn exit(&mut self, code: i32) {
        self.send(&Frame::Exit(ExitRecord { code, ..ExitRecord::default() }));
    }

    pub fn refuse(&mut self, kind: FailureKind, message: &str) {
        self.send(&Frame::Failed { id: 0, failure: Failure { kind, message: message.to_owned() } });
    }

    /// The client's next frame; none when it has left.
    pub fn next(&mut self) -> Option<Frame> {
        let mut bytes = [0u8; 4096];
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            match self.stream.read(&mut bytes) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.decoder.push(&bytes[..n]),
            }
        }
    }

    /// A second handle for sending while another thread receives.
    pub fn sender(&self) -> UnixStream {
        self.stream.try_clone().unwrap()
    }
}
