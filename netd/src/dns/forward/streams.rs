//! TCP connections to servers, used for many questions at a time (RFC 7766).

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
use slab::Slab;

use crate::dns::poll::{Interest, Poll, Source};

/// Questions of one connection that may be under way.
const UNDER_WAY: usize = 256;
/// Milliseconds after which an unused connection goes.
const IDLE: u64 = 10_000;

#[derive(Debug)]
struct Stream {
    server: SocketAddr,
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
#[derive(Debug, Default)]
pub struct Streams {
    streams: Slab<Stream>,
    by_server: HashMap<SocketAddr, usize>,
}

impl Streams {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Sends a question for an ask on the connection to its server, made when there is none; answers on which, and the id.
    pub fn send(
        &mut self,
        poll: &Poll,
        server: SocketAddr,
        mut message: Vec<u8>,
        ask: usize,
        now: u64,
    ) -> io::Result<(usize, u16)> {
        let at = match self.by_server.get(&server) {
            Some(at) => *at,
            None => self.open(poll, server)?,
        };
        let stream = &mut self.streams[at];
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

    fn open(&mut self, poll: &Poll, server: SocketAddr) -> io::Result<usize> {
        let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(family, SockType::Stream, flags, None)?;
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(server)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(e) => return Err(e.into()),
        }
        let stream = TcpStream::from(fd);
        let entry = self.streams.vacant_entry();
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

    /// Nobody waits for a reply with this id any more.
    pub fn forget(&mut self, at: usize, id: u16) {
        if let Some(stream) = self.streams.get_mut(at) {
            stream.waiting.remove(&id);
        }
    }

    /// Writes and reads what is possible.
    pub fn ready(&mut self, poll: &Poll, at: usize, now: u64) -> News {
        let mut news = News::default();
        let Some(stream) = self.streams.get_mut(at) else { return news };
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
        self.close(at);
        news
    }

    fn close(&mut self, at: usize) {
        let stream = self.streams.remove(at);
        if self.by_server.get(&stream.server) == Some(&at) {
            self.by_server.remove(&stream.server);
        }
    }

    /// Closes connections that nobody used for a while.
    pub fn sweep(&mut self, now: u64) {
        let idle = |s: &Stream| s.waiting.is_empty() && s.used + IDLE <= now;
        let old: Vec<_> = self.streams.iter().filter(|(_, s)| idle(s)).map(|(at, _)| at).collect();
        for at in old {
            self.close(at);
        }
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
        let ended = loop {
            match self.tcp.read(&mut buffer) {
                Ok(0) => break Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.inbox.extend(&buffer[..n]),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                    break Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
            self.unpack(replies, now);
        };
        self.unpack(replies, now);
        ended
    }

    fn unpack(&mut self, replies: &mut Vec<(usize, Vec<u8>)>, now: u64) {
        while let [high, low, rest @ ..] = self.inbox.as_slice() {
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            let Some(reply) = rest.get(..len) else { return };
            if let [a, b, ..] = reply
                && let Some(ask) = self.waiting.get(&u16::from_be_bytes([*a, *b]))
            {
                replies.push((*ask, reply.to_vec()));
                self.served = true;
                self.used = now;
            }
            self.inbox.drain(..len + 2);
        }
    }
}
