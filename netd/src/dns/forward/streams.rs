//! TCP connections to servers, used for many questions at a time (RFC 7766).

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{SockType, SockaddrStorage, connect, setsockopt, sockopt};
use slab::Slab;

use super::inside::{Insides, Origin, Upstream};
use crate::dns::poll::{Interest, Poll, Source};

/// Questions of one connection that may be under way.
const UNDER_WAY: usize = 256;
/// Milliseconds after which an unused connection goes.
const IDLE: u64 = 10_000;
/// Reads from one connection before others get a turn.
const TURN: usize = 16;

#[derive(Debug)]
struct Stream {
    server: Upstream,
    tcp: TcpStream,
    waiting: HashMap<u16, usize>,
    out: Vec<u8>,
    inbox: Vec<u8>,
    served: bool,
    used: u64,
}

/// What a connection brought.
#[derive(Debug, Default)]
pub struct News {
    /// Replies with the asks that they are for.
    pub replies: Vec<(usize, Vec<u8>)>,
    /// Asks whose connection is gone.
    pub lost: Vec<usize>,
    /// Whether it had brought a reply before.
    pub had_served: bool,
}

/// All connections.
#[derive(Debug)]
pub struct Streams {
    all: Slab<Stream>,
    by_server: HashMap<Upstream, usize>,
    /// Connections from inside of sandboxes.
    most_inside: usize,
}

impl Streams {
    /// None yet; from inside of sandboxes there are never more than `most_inside`.
    pub fn new(most_inside: usize) -> Self {
        Self { all: Slab::new(), by_server: HashMap::new(), most_inside }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Sends a question for an ask on the connection to its server, made when there is none; answers on which, and the id.
    pub fn send(
        &mut self,
        poll: &Poll,
        insides: &mut Insides,
        server: Upstream,
        mut message: Vec<u8>,
        ask: usize,
        now: u64,
    ) -> io::Result<(usize, u16)> {
        let at = match self.by_server.get(&server) {
            Some(at) => *at,
            None => self.open(poll, insides, server, now)?,
        };
        let stream = &mut self.all[at];
        if stream.waiting.len() >= UNDER_WAY {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let id = loop {
            let id = rand::random();
            if !stream.waiting.contains_key(&id) {
                break id;
            }
        };
        message[..2].copy_from_slice(&id.to_be_bytes());
        stream.out.extend((message.len() as u16).to_be_bytes());
        stream.out.extend(message);
        stream.waiting.insert(id, ask);
        stream.used = now;
        poll.modify(&stream.tcp, Source::Stream(at), Interest::Both)?;
        Ok((at, id))
    }

    fn open(&mut self, poll: &Poll, insides: &mut Insides, server: Upstream, now: u64) -> io::Result<usize> {
        if server.is_inside() {
            self.make_room()?;
        }
        let fd = insides.open(server, SockType::Stream, now)?;
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(server.at())) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(e) => return Err(e.into()),
        }
        let stream = TcpStream::from(fd);
        let entry = self.all.vacant_entry();
        let at = entry.key();
        poll.add(&stream, Source::Stream(at), Interest::Both)?;
        entry.insert(Stream {
            server,
            tcp: stream,
            waiting: HashMap::new(),
            out: Vec::new(),
            inbox: Vec::new(),
            served: false,
            used: 0,
        });
        self.by_server.insert(server, at);
        Ok(at)
    }

    /// Of the connections from sandboxes the longest unused one makes room.
    fn make_room(&mut self) -> io::Result<()> {
        let inside = || self.all.iter().filter(|(_, s)| s.server.is_inside());
        if inside().count() < self.most_inside {
            return Ok(());
        }
        let idle = inside().filter(|(_, s)| s.waiting.is_empty()).min_by_key(|(_, s)| s.used);
        let at =
            idle.map(|(at, _)| at).ok_or_else(|| io::Error::other("too many connections in sandboxes"))?;
        self.close_one(at);
        Ok(())
    }

    /// Sends nothing more on the connections that are there.
    pub fn retire(&mut self, from: Origin) {
        self.by_server.retain(|server, _| server.from != from);
        self.close_where(|s| s.server.from == from && s.waiting.is_empty());
    }

    /// Ends all connections there, at once.
    pub fn close(&mut self, from: Origin) {
        for (_, stream) in self.all.iter().filter(|(_, s)| s.server.from == from) {
            // The kernel would go on saying good-bye, and keep the namespace for it, when nobody is there to hear.
            let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
            let _ = setsockopt(&stream.tcp, sockopt::Linger, &at_once);
        }
        self.close_where(|s| s.server.from == from);
    }

    /// Nobody waits for a reply with this id any more.
    pub fn forget(&mut self, at: usize, id: u16) {
        if let Some(stream) = self.all.get_mut(at) {
            stream.waiting.remove(&id);
        }
    }

    /// Writes and reads what is possible.
    pub fn ready(&mut self, poll: &Poll, at: usize, now: u64) -> News {
        let mut news = News::default();
        let Some(stream) = self.all.get_mut(at) else { return news };
        news.had_served = stream.served;
        let open = stream.write().is_ok() && stream.read(&mut news.replies, now).is_ok();
        if open {
            let interest = if stream.out.is_empty() { Interest::Read } else { Interest::Both };
            if poll.modify(&stream.tcp, Source::Stream(at), interest).is_ok() {
                return news;
            }
        }
        let answered: Vec<usize> = news.replies.iter().map(|(ask, _)| *ask).collect();
        news.lost = stream.waiting.values().copied().filter(|ask| !answered.contains(ask)).collect();
        self.close_one(at);
        news
    }

    fn close_where(&mut self, wanted: impl Fn(&Stream) -> bool) {
        let all: Vec<_> = self.all.iter().filter(|(_, s)| wanted(s)).map(|(at, _)| at).collect();
        for at in all {
            self.close_one(at);
        }
    }

    fn close_one(&mut self, at: usize) {
        let stream = self.all.remove(at);
        if self.by_server.get(&stream.server) == Some(&at) {
            self.by_server.remove(&stream.server);
        }
    }

    /// Closes connections that nobody used for a while.
    pub fn sweep(&mut self, now: u64) {
        self.close_where(|s| s.waiting.is_empty() && s.used + IDLE <= now);
    }
}

impl Stream {
    fn write(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.tcp.write(&self.out) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => drop(self.out.drain(..n)),
                // Not connected yet, or full.
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn read(&mut self, replies: &mut Vec<(usize, Vec<u8>)>, now: u64) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let mut ended = Ok(());
        for _ in 0..TURN {
            match self.tcp.read(&mut buffer) {
                Ok(0) => ended = Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.inbox.extend(&buffer[..n]),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => ended = Err(e),
            }
            if ended.is_err() {
                break;
            }
        }
        self.unpack(replies, now);
        ended
    }

    fn unpack(&mut self, replies: &mut Vec<(usize, Vec<u8>)>, now: u64) {
        let mut taken = 0;
        while let [high, low, rest @ ..] = &self.inbox[taken..] {
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            let Some(reply) = rest.get(..len) else { break };
            if let [a, b, ..] = reply
                && let Some(ask) = self.waiting.get(&u16::from_be_bytes([*a, *b]))
            {
                replies.push((*ask, reply.to_vec()));
                self.served = true;
                self.used = now;
            }
            taken += len + 2;
        }
        self.inbox.drain(..taken);
    }
}
