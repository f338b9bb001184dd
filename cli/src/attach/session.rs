//! The loop of an attached client: one poll over the monitor's socket, signals, our input and our outputs. Nothing in it blocks but
//! that poll: a reader of ours that is slow must not keep signals or input from the program, nor the other way round.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use davit_wire::{Attach, Decoder, Frame, Hello, PROTOCOL_VERSION, Role, encode};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, fstat};

use super::{Ended, Options, refused, terminal};
use crate::error::{Failure, Outcome};
use crate::parse::keys::Matcher;

/// Above this much unsent data its source is not read.
const FULL: usize = 256 << 10;
/// poll(2) promises that this much can be written to a pipe without blocking (PIPE_BUF).
const PIPE_BUF: usize = 4096;

/// One of our outputs, with what it has not taken yet.
struct Sink<'a> {
    fd: BorrowedFd<'a>,
    pending: Vec<u8>,
    regular: bool,
    closed: bool,
}

impl<'a> Sink<'a> {
    fn new(fd: BorrowedFd<'a>) -> Self {
        let regular = fstat(fd).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile);
        Self { fd, pending: Vec::new(), regular, closed: false }
    }

    fn take(&mut self, data: &[u8]) {
        if !self.closed {
            self.pending.extend_from_slice(data);
        }
    }

    /// Writes a piece; true when its reader has just gone away.
    fn write(&mut self) -> bool {
        let most = if self.regular { self.pending.len() } else { self.pending.len().min(PIPE_BUF) };
        match rustix::io::write(self.fd, &self.pending[..most]) {
            Ok(n) => {
                self.pending.drain(..n);
                false
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => false,
            Err(_) => {
                self.closed = true;
                self.pending = Vec::new();
                true
            }
        }
    }
}

/// What poll(2) found.
#[derive(Default)]
struct Ready {
    signal: bool,
    readable: bool,
    writable: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

/// The state of an attachment.
pub struct Session<'a> {
    stream: UnixStream,
    signals: &'a SignalFd,
    options: &'a Options,
    decoder: Decoder,
    /// Bytes for the monitor.
    outgoing: Vec<u8>,
    reading_stdin: bool,
    welcome: bool,
    keys: Matcher,
    eof: bool,
    ended: Option<Ended>,
}

impl<'a> Session<'a> {
    /// Prepares the Hello.
    pub fn new(stream: UnixStream, options: &'a Options, signals: &'a SignalFd) -> Outcome<Self> {
        stream.set_nonblocking(true).map_err(|e| Failure::io("cannot use the monitor's socket", &e))?;
        let mut outgoing = Vec::new();
        let attach = Attach {
            exec_id: options.exec_id.clone(),
            stdin: options.stdin,
            stdout: true,
            stderr: true,
            replay: options.replay,
            size: if options.tty { terminal::size() } else { None },
        };
        encode(&Frame::Hello(Hello { version: PROTOCOL_VERSION, role: Role::Attach(attach) }), &mut outgoing);
        Ok(Self {
            stream,
            signals,
            options,
            decoder: Decoder::default(),
            outgoing,
            reading_stdin: options.stdin,
            welcome: false,
            keys: Matcher::new(options.detach_keys.clone()),
            eof: false,
            ended: None,
        })
    }

    /// Runs until the end.
    pub fn run(mut self) -> Outcome<Ended> {
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let mut out = Sink::new(stdout.as_fd());
        let mut err = Sink::new(stderr.as_fd());
        loop {
            // Without this the Hello would cost a turn of the loop.
            self.send();
            if self.finished(&out, &err) {
                return Ok(self.ended.unwrap_or(Ended::Lost));
            }
            let ready = self.wait(stdin.as_fd(), &out, &err)?;
            if ready.signal {
                self.take_signals()?;
            }
            if ready.readable {
                self.receive(&mut out, &mut err)?;
            }
            if ready.stdin {
                self.take_input(stdin.as_fd());
            }
            let gone = (ready.stdout && out.write()) | (ready.stderr && err.write());
            if gone {
                // As in a shell's pipeline: whoever writes to a reader that is gone gets SIGPIPE.
                self.push(&Frame::Signal(Signal::SIGPIPE as i32));
                self.ended.get_or_insert(Ended::Unread);
            }
            if ready.writable {
                self.send();
            }
        }
    }

    /// Whether all is said. A person who detaches waits for nothing.
    fn finished(&self, out: &Sink<'_>, err: &Sink<'_>) -> bool {
        match self.ended {
            Some(Ended::Detached | Ended::Unread) => self.outgoing.is_empty() || self.eof,
            Some(_) => out.pending.is_empty() && err.pending.is_empty(),
            None => self.eof && out.pending.is_empty() && err.pending.is_empty(),
        }
    }

    fn wait(&self, stdin: BorrowedFd<'_>, out: &Sink<'_>, err: &Sink<'_>) -> Outcome<Ready> {
        let flag = |on: bool, flags| if on { flags } else { PollFlags::empty() };
        let room = out.pending.len() < FULL && err.pending.len() < FULL;
        let over = self.eof || self.ended.is_some();
        let socket =
            flag(!over && room, PollFlags::IN) | flag(!over && !self.outgoing.is_empty(), PollFlags::OUT);
        let signals = self.signals.as_fd();
        let mut fds = vec![PollFd::new(&signals, PollFlags::IN)];
        // Only what is wanted may be in the set: poll(2) reports a hangup unasked, and the loop would spin.
        let socket_at = (!socket.is_empty()).then(|| push(&mut fds, PollFd::new(&self.stream, socket)));
        let input = self.reading_stdin && self.welcome && !over && self.outgoing.len() < FULL;
        let stdin_at = input.then(|| push(&mut fds, PollFd::from_borrowed_fd(stdin, PollFlags::IN)));
        let out_at = (!out.pending.is_empty())
            .then(|| push(&mut fds, PollFd::from_borrowed_fd(out.fd, PollFlags::OUT)));
        let err_at = (!err.pending.is_empty())
            .then(|| push(&mut fds, PollFd::from_borrowed_fd(err.fd, PollFlags::OUT)));
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
            Err(e) => return Err(Failure::io("cannot wait for input and output", &e.into())),
        }
        let at = |index: Option<usize>| index.map_or(PollFlags::empty(), |i| fds[i].revents());
        let error = PollFlags::HUP | PollFlags::ERR;
        Ok(Ready {
            signal: !fds[0].revents().is_empty(),
            readable: at(socket_at).intersects(PollFlags::IN | error),
            writable: at(socket_at).contains(PollFlags::OUT),
            stdin: !at(stdin_at).is_empty(),
            stdout: !at(out_at).is_empty(),
            stderr: !at(err_at).is_empty(),
        })
    }

    fn push(&mut self, frame: &Frame) {
        encode(frame, &mut self.outgoing);
    }

    fn send(&mut self) {
        while !self.outgoing.is_empty() && !self.eof {
            match self.stream.write(&self.outgoing) {
                Ok(n) => {
                    self.outgoing.drain(..n);
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                // The monitor is going: what it said before is still to be read.
                Err(_) => self.outgoing.clear(),
            }
        }
    }

    fn receive(&mut self, out: &mut Sink<'_>, err: &mut Sink<'_>) -> Outcome {
        let mut bytes = vec![0u8; 64 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.eof = true,
            Ok(n) => self.decoder.push(&bytes[..n]),
            Err(e)
                if matches!(e.kind(), std::io::ErrorKind::Interrupted | std::io::ErrorKind::WouldBlock) => {}
            Err(_) => self.eof = true,
        }
        let strange = |e: davit_wire::FrameError| {
            Failure::new(
                davit_contracts::Kind::Unsupported,
                format!("the container's monitor speaks strangely: {e}"),
            )
        };
        while let Some(frame) = self.decoder.next_frame().map_err(strange)? {
            match frame {
                Frame::Stdout(data) => out.take(&data),
                Frame::Stderr(data) => err.take(&data),
                Frame::Welcome(_) => self.welcome = true,
                Frame::Failed { failure, .. } => return Err(refused(failure)),
                Frame::Exit(record) => self.ended = Some(Ended::Exited(record)),
                _ => {}
            }
        }
        Ok(())
    }

    fn take_input(&mut self, stdin: BorrowedFd<'_>) {
        let mut bytes = vec![0u8; 32 << 10];
        match rustix::io::read(stdin, &mut bytes) {
            Ok(0) => self.end_input(),
            Ok(n) => {
                let mut passed = Vec::new();
                let escaped = bytes[..n].iter().position(|b| Some(*b) == self.options.escape);
                let detach = self.keys.feed(&bytes[..escaped.unwrap_or(n)], &mut passed) || escaped.is_some();
                if !passed.is_empty() {
                    self.push(&Frame::Stdin(passed));
                }
                if detach {
                    self.push(&Frame::Detach);
                    self.ended = Some(Ended::Detached);
                }
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => self.end_input(),
        }
    }

    fn end_input(&mut self) {
        self.reading_stdin = false;
        self.push(&Frame::StdinEof);
    }

    fn take_signals(&mut self) -> Outcome {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let Ok(signal) = Signal::try_from(info.ssi_signo as i32) else { continue };
            if signal == Signal::SIGWINCH {
                if let Some((rows, cols)) = terminal::size().filter(|_| self.options.tty) {
                    self.push(&Frame::Resize { rows, cols });
                }
            } else if self.options.sig_proxy {
                self.push(&Frame::Signal(signal as i32));
            } else {
                return Err(Failure::Code(128 + signal as i32));
            }
        }
        Ok(())
    }
}

fn push<'a>(fds: &mut Vec<PollFd<'a>>, fd: PollFd<'a>) -> usize {
    fds.push(fd);
    fds.len() - 1
}
