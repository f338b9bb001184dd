//! A blocking client of a monitor's socket.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use davit_wire::{
    Attach, Decoder, Event, ExitRecord, Failure, Frame, Hello, MonitorState, PROTOCOL_VERSION, Reply,
    Request, Role, Welcome,
};

pub struct Client {
    pub stream: UnixStream,
    decoder: Decoder,
    pub welcome: Option<Welcome>,
    events: VecDeque<Event>,
    number: u64,
}

/// Everything an attached client has got until its end.
#[derive(Debug, Default)]
pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit: Option<ExitRecord>,
    pub failure: Option<Failure>,
    pub started: bool,
}

impl Output {
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    pub fn code(&self) -> i32 {
        self.exit.as_ref().expect("an Exit frame").code
    }
}

pub fn streams() -> Attach {
    Attach { stdin: true, stdout: true, stderr: true, ..Attach::default() }
}

impl Client {
    /// Connects without a word.
    pub fn raw(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stream, decoder: Decoder::default(), welcome: None, events: VecDeque::new(), number: 0 }
    }

    /// In the place of one that is dropped.
    pub fn unconnected() -> Self {
        let stream = UnixStream::pair().unwrap().0;
        Self { stream, decoder: Decoder::default(), welcome: None, events: VecDeque::new(), number: 0 }
    }

    pub fn hello(socket: &Path, role: Role) -> Self {
        let mut client = Self::raw(socket);
        client.send(&Frame::Hello(Hello { version: PROTOCOL_VERSION, role }));
        match client.frame() {
            Some(Frame::Welcome(welcome)) => client.welcome = Some(welcome),
            other => panic!("no Welcome but {other:?}"),
        }
        client
    }

    pub fn send(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        davit_wire::encode(frame, &mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next frame; none when the monitor has closed the connection.
    pub fn frame(&mut self) -> Option<Frame> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            match self.stream.read(&mut buffer).unwrap() {
                0 => return None,
                n => self.decoder.push(&buffer[..n]),
            }
        }
    }

    pub fn request(&mut self, request: Request) -> Result<Reply, Failure> {
        self.number += 1;
        let id = self.number;
        self.send(&Frame::Request { id, request });
        loop {
            match self.frame().expect("an answer") {
                Frame::Reply { id: n, reply } if n == id => return Ok(reply),
                Frame::Failed { id: n, failure } if n == id => return Err(failure),
                Frame::Event(event) => self.events.push_back(event),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    pub fn event(&mut self) -> Event {
        if let Some(event) = self.events.pop_front() {
            return event;
        }
        match self.frame() {
            Some(Frame::Event(event)) => event,
            other => panic!("no event but {other:?}"),
        }
    }

    pub fn exited(&mut self) -> ExitRecord {
        loop {
            if let Event::Exited(record) = self.event() {
                return record;
            }
        }
    }

    pub fn state(&mut self) -> MonitorState {
        match self.request(Request::State).unwrap() {
            Reply::State(state) => *state,
            other => panic!("{other:?}"),
        }
    }

    /// Reads until stdout holds `text`; gives what came so far.
    pub fn read_until(&mut self, text: &str) -> String {
        let mut got = Output::default();
        while !got.out().contains(text) {
            let frame = self.frame();
            let more = take(&mut got, frame);
            assert!(more, "the stream ended before {text:?}: {got:?}");
        }
        got.out()
    }

    /// Reads until the monitor closes the connection.
    pub fn finish(&mut self) -> Output {
        let mut got = Output::default();
        loop {
            let frame = self.frame();
            if !take(&mut got, frame) {
                return got;
            }
        }
    }
}

fn take(got: &mut Output, frame: Option<Frame>) -> bool {
    match frame {
        Some(Frame::Stdout(d)) => got.stdout.extend(d),
        Some(Frame::Stderr(d)) => got.stderr.extend(d),
        Some(Frame::Exit(record)) => got.exit = Some(record),
        Some(Frame::Failed { failure, .. }) => got.failure = Some(failure),
        Some(Frame::Started { .. }) => got.started = true,
        Some(other) => panic!("unexpected {other:?}"),
        None => return false,
    }
    true
}
