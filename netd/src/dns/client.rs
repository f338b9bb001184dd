//! One TCP client of a sandbox: many queries on a connection, each answered as soon as it can be (RFC 7766, 6.2.1.1).

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use super::poll::Interest;

/// The longest query; more is no honest question.
const QUERY: usize = 4096;
/// Bytes of replies that a client may leave unread before its queries are left unread too.
const UNREAD: usize = 256 << 10;

/// A connection.
#[derive(Debug)]
pub struct Client {
    /// The connection itself, not blocking.
    pub stream: TcpStream,
    /// The sandbox's server.
    pub server: usize,
    /// Tells it from another that has its place later.
    pub serial: u64,
    /// When it last said something.
    pub active: u64,
    /// Queries whose answers come later.
    pub waiting: usize,
    interest: Interest,
    inbox: Vec<u8>,
    taken: usize,
    out: Vec<u8>,
    ended: bool,
}

impl Client {
    /// A connection that was accepted.
    pub fn new(stream: TcpStream, server: usize, serial: u64, now: u64) -> Self {
        Self {
            stream,
            server,
            serial,
            active: now,
            waiting: 0,
            interest: Interest::Read,
            inbox: Vec::new(),
            taken: 0,
            out: Vec::new(),
            ended: false,
        }
    }

    /// Reads what there is, up to what one turn allows.
    pub fn read(&mut self) -> io::Result<()> {
        self.inbox.drain(..self.taken);
        self.taken = 0;
        let mut buffer = [0; QUERY];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(n) => self.inbox.extend(&buffer[..n]),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Moves the next whole query into `query`; false when there is none. A query that is too long is an error.
    pub fn next_query(&mut self, query: &mut Vec<u8>) -> io::Result<bool> {
        let [high, low, rest @ ..] = &self.inbox[self.taken..] else { return Ok(false) };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        if len > QUERY {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some(found) = rest.get(..len) else { return Ok(false) };
        query.clear();
        query.extend_from_slice(found);
        self.taken += len + 2;
        Ok(true)
    }

    /// Adds a reply to what goes out.
    pub fn reply(&mut self, reply: &[u8]) {
        let Ok(len) = u16::try_from(reply.len()) else { return };
        self.out.extend(len.to_be_bytes());
        self.out.extend_from_slice(reply);
    }

    /// Writes what the client takes; answers what is to be waited for when that has changed. An error, also for a client that
    /// has said all and been told all: it is to be closed.
    pub fn write(&mut self) -> io::Result<Option<Interest>> {
        let mut sent = 0;
        while sent < self.out.len() {
            match self.stream.write(&self.out[sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.out.drain(..sent);
        if self.ended && self.out.is_empty() && self.waiting == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let interest = match (self.out.is_empty(), self.ended || self.out.len() > UNREAD) {
            (true, _) => Interest::Read,
            (false, true) => Interest::Write,
            (false, false) => Interest::Both,
        };
        let interest = if self.ended && self.out.is_empty() { Interest::Nothing } else { interest };
        let changed = interest != self.interest;
        self.interest = interest;
        Ok(changed.then_some(interest))
    }
}
