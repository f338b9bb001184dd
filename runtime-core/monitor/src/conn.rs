//! One client's connection: frames in, and a bounded queue of bytes out. Never blocks.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use davit_wire::{Attach, Decoder, Frame};
use rustix::io::Errno;

use crate::reactor::{Interest, Reactor, Token, Watched};

/// A client with this much unread output is full: its program's output is not read on until it takes some.
pub const FULL: usize = 256 << 10;

/// A control connection that reads nothing is given up at this much.
const CONTROL_LIMIT: usize = 1 << 20;

/// A full client that takes nothing for this long is dropped, unless it is the only one and the program was started for it.
pub const STALL: Duration = Duration::from_secs(10);

/// Whom the client is.
#[derive(Debug)]
pub enum Party {
    /// Has not said Hello yet.
    Unknown,
    /// Requests and events.
    Control,
    /// Streams of the session with this number.
    Attached {
        /// Which session.
        session: u32,
        /// What it asked for.
        attach: Attach,
        /// The program was held for it.
        foreground: bool,
    },
}

/// A connection.
#[derive(Debug)]
pub struct Conn {
    /// Never used twice in one monitor's life.
    pub id: u32,
    /// Whom the client is.
    pub party: Party,
    /// Frames that have come.
    pub decoder: Decoder,
    /// Nothing more is to be said: close once the queue is empty.
    pub closing: bool,
    /// Its session takes no more input for now: frames wait.
    pub held_back: bool,
    /// Said that it leaves on purpose.
    pub detached: bool,
    socket: Watched,
    queue: Vec<u8>,
    /// Bytes of the queue that are sent.
    sent: usize,
    /// The client will send nothing more.
    read_closed: bool,
    /// The client takes nothing more; what it has sent still counts.
    gone: bool,
    /// Of no more use at all.
    dead: bool,
    progress: Instant,
}

impl Conn {
    /// Of an accepted socket that does not block.
    pub fn new(id: u32, socket: OwnedFd) -> Self {
        Self {
            id,
            party: Party::Unknown,
            decoder: Decoder::default(),
            closing: false,
            held_back: false,
            detached: false,
            socket: Watched::new(socket, Token::Conn(id)),
            queue: Vec::new(),
            sent: 0,
            read_closed: false,
            gone: false,
            dead: false,
            progress: Instant::now(),
        }
    }

    /// Queues a frame.
    pub fn send(&mut self, frame: &Frame) {
        if !self.gone {
            self.begin_waiting();
            davit_wire::encode(frame, &mut self.queue);
            self.flush();
        }
    }

    /// Queues output, without a copy where the socket takes it at once.
    pub fn send_output(&mut self, stdout: bool, data: &[u8]) {
        if self.gone {
            return;
        }
        if self.pending() > 0 {
            davit_wire::codec::encode_output(stdout, data, &mut self.queue);
            return;
        }
        self.begin_waiting();
        let header = davit_wire::codec::output_header(stdout, data.len());
        let taken = match rustix::io::writev(&self.socket, &[IoSlice::new(&header), IoSlice::new(data)]) {
            Ok(n) => n,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => return self.forget_output(),
        };
        if taken < header.len() {
            self.queue.extend_from_slice(&header[taken..]);
            self.queue.extend_from_slice(data);
        } else {
            self.queue.extend_from_slice(&data[taken - header.len()..]);
        }
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self) {
        while self.pending() > 0 {
            match rustix::io::write(&self.socket, &self.queue[self.sent..]) {
                Ok(n) => {
                    self.sent += n;
                    self.progress = Instant::now();
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => self.forget_output(),
            }
        }
        if self.pending() == 0 {
            self.sent = 0;
            if self.queue.capacity() > 4096 {
                self.queue = Vec::new();
            } else {
                self.queue.clear();
            }
        } else if self.sent > FULL {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Reads what has come into the decoder. `gone`: epoll says that the client has closed its socket.
    pub fn receive(&mut self, scratch: &mut [u8], gone: bool) {
        if gone {
            self.forget_output();
        }
        let mut rounds = 4;
        while !self.read_closed && !self.held_back && rounds > 0 {
            match rustix::io::read(&self.socket, &mut *scratch) {
                Ok(0) => self.read_closed = true,
                Ok(n) => {
                    self.decoder.push(&scratch[..n]);
                    rounds -= 1;
                    if n < scratch.len() && !gone {
                        break;
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => self.read_closed = true,
            }
        }
    }

    /// Bytes that wait to be sent.
    pub fn pending(&self) -> usize {
        self.queue.len() - self.sent
    }

    /// No more frames will come from it.
    pub fn has_ended(&self) -> bool {
        (self.read_closed && !self.held_back) || self.dead
    }

    /// To be removed now.
    pub fn is_over(&self) -> bool {
        // A client that has only shut down its writing side still gets output.
        let waits_for_nothing = self.gone || !matches!(self.party, Party::Attached { .. });
        self.dead
            || (self.closing && self.pending() == 0)
            || (self.has_ended() && waits_for_nothing)
            || (matches!(self.party, Party::Control) && self.pending() > CONTROL_LIMIT)
    }

    /// Whether it is attached to this session for input or output, not just to send signals.
    pub fn wants_streams_of(&self, id: u32) -> bool {
        match &self.party {
            Party::Attached { session, attach, .. } => {
                *session == id && (attach.stdin || attach.stdout || attach.stderr)
            }
            _ => false,
        }
    }

    /// How long until it counts as stalled; none: it is not full.
    pub fn stalls_in(&self, now: Instant) -> Option<Duration> {
        (self.pending() >= FULL || (self.closing && self.pending() > 0))
            .then(|| (self.progress + STALL).saturating_duration_since(now))
    }

    /// Ends it without another byte.
    pub fn die(&mut self) {
        self.forget_output();
        self.dead = true;
    }

    /// Ends it so that the client, after what was sent, reads an orderly end: closing with unread input in the socket would give it
    /// ECONNRESET (unix(7) sockets do as TCP does).
    pub fn hang_up(&mut self) {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let mut unread = [0u8; 4096];
        while matches!(rustix::io::read(&self.socket, &mut unread), Ok(n) if n > 0) {}
    }

    /// Tells epoll what it waits for.
    pub fn watch(&mut self, reactor: &Reactor) {
        let read = !self.read_closed && !self.held_back;
        let interest = match (self.gone, read) {
            // Its going has been reported already and would be for ever.
            (true, false) => Interest::None,
            _ => Interest::of(read, self.pending() > 0),
        };
        if self.socket.want(reactor, interest).is_err() {
            self.die();
        }
    }

    fn begin_waiting(&mut self) {
        if self.pending() == 0 {
            self.progress = Instant::now();
        }
    }

    fn forget_output(&mut self) {
        self.gone = true;
        self.queue = Vec::new();
        self.sent = 0;
    }
}
