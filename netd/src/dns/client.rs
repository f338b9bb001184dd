//! One TCP client of a sandbox: many queries on a connection, each answered as soon as it can be (RFC 7766, 6.2.1.1).

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use super::poll::Interest;

/// The longest query; more is no honest question.
const QUERY: usize = 4096;
/// Bytes of replies that a client may leave unread before its queries are left unanswered too. With the connections that a
/// sandbox may have this bounds what it can make netd hold.
const UNREAD: usize = 64 << 10;
/// Bytes of replies beyond which a client is given up: answers from outside came to it though it reads none.
const TOO_MUCH: usize = 4 * UNREAD;

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

    /// Reads what there is, up to what one turn allows; nothing while a whole query is still to be answered.
    pub fn read(&mut self) -> io::Result<()> {
        self.inbox.drain(..self.taken);
        self.taken = 0;
        if self.inbox.len() >= QUERY + 2 {
            return Ok(());
        }
        let mut buffer = [0; QUERY];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(n) => self.inbox.extend(&buffer[..n]),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Whether it has to take replies before more of its queries are answered.
    pub fn is_full(&self) -> bool {
        self.out.len() > UNREAD
    }

    /// Whether it takes no replies at all.
    pub fn is_hopeless(&self) -> bool {
        self.out.len() > TOO_MUCH
    }

    /// Moves the next whole query into `query`; false when there is none, or none is to be answered for now. A query that is
    /// too long is an error.
    pub fn next_query(&mut self, query: &mut Vec<u8>) -> io::Result<bool> {
        if self.is_full() {
            return Ok(false);
        }
        let [high, low, ..] = self.inbox[self.taken..] else { return Ok(false) };
        if usize::from(u16::from_be_bytes([high, low])) > QUERY {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some(found) = self.whole_query() else { return Ok(false) };
        query.clear();
        query.extend_from_slice(found);
        self.taken += found.len() + 2;
        Ok(true)
    }

    fn whole_query(&self) -> Option<&[u8]> {
        let [high, low, rest @ ..] = &self.inbox[self.taken..] else { return None };
        rest.get(..usize::from(u16::from_be_bytes([*high, *low])))
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
        if self.ended && self.out.is_empty() && self.waiting == 0 && self.whole_query().is_none() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let interest = match (self.out.is_empty(), self.ended || self.is_full()) {
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    /// A client of netd's and the program at its other end.
    fn pair() -> (Client, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        (Client::new(stream, 0, 1, 0), far)
    }

    #[test]
    fn who_reads_no_replies_is_not_answered_until_they_do() {
        let (mut client, mut far) = pair();
        // As many as fit into one turn, all with long answers.
        far.write_all(&[0, 2, 7, 7].repeat(QUERY / 4)).unwrap();
        while client.inbox.len() < QUERY {
            client.read().unwrap();
        }
        let (reply, mut query) = ([9; 30_000], Vec::new());
        let mut asked = 0;
        while client.next_query(&mut query).unwrap() {
            asked += 1;
            client.reply(&reply);
        }
        assert_eq!(asked, 3);
        assert!(client.is_full() && !client.is_hopeless());
        // What it asks besides stays in the socket.
        far.write_all(&[0, 2, 7, 7].repeat(QUERY)).unwrap();
        for _ in 0..10 {
            client.read().unwrap();
        }
        assert!(client.inbox.len() <= 2 * QUERY + 2, "{}", client.inbox.len());
        let mut taken = vec![0; asked * (reply.len() + 2)];
        let reading = std::thread::spawn(move || far.read_exact(&mut taken));
        while client.is_full() {
            client.write().unwrap();
        }
        assert!(client.next_query(&mut query).unwrap(), "it goes on after a write");
        while !client.out.is_empty() {
            client.write().unwrap();
        }
        reading.join().unwrap().unwrap();
        for _ in 0..10 {
            client.reply(&reply);
        }
        assert!(client.is_hopeless());
    }
}
