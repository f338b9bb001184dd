//! A few UDP sockets to each server, each with a random port and for a bounded number of questions. Which of them a
//! question goes out on, and its id, are random: who wants to forge a reply must guess both.
//!
//! A sandbox's own server has one, or two while answers are waited for on one that is worn: with three servers six a sandbox.

use std::collections::HashMap;
use std::io;
use std::net::UdpSocket;

use nix::sys::socket::SockType;
use rand::Rng as _;
use slab::Slab;

use super::inside::{Insides, Origin, Upstream};
use crate::dns::poll::{Interest, Poll, Source};

/// Sockets to one server of the host's.
const POOL: usize = 4;
/// Questions of one socket before another port takes its place.
const WORN: u32 = 500;
/// Questions of one socket that may be under way.
const UNDER_WAY: usize = 2048;
/// Milliseconds after which an unused socket goes.
const IDLE: u64 = 15_000;

#[derive(Debug)]
struct Socket {
    server: Upstream,
    udp: UdpSocket,
    /// Whether it is connected: there was a way to the server.
    connected: bool,
    waiting: HashMap<u16, usize>,
    asked: u32,
    used: u64,
    /// Its place was given to another: it goes when nothing is under way.
    retired: bool,
}

/// All sockets.
#[derive(Debug)]
pub struct Datagrams {
    sockets: Slab<Socket>,
    pools: HashMap<Upstream, [Option<usize>; POOL]>,
    /// Sockets inside of sandboxes.
    most_inside: usize,
}

impl Datagrams {
    /// None yet; of those inside of sandboxes there are never more than `most_inside`.
    pub fn new(most_inside: usize) -> Self {
        Self { sockets: Slab::new(), pools: HashMap::new(), most_inside }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Sends a question for an ask; answers on which socket, and the id.
    pub fn send(
        &mut self,
        poll: &Poll,
        insides: &mut Insides,
        server: Upstream,
        mut message: Vec<u8>,
        ask: usize,
        now: u64,
    ) -> io::Result<(usize, u16)> {
        let place = if server.is_inside() { 0 } else { rand::rng().random_range(0..POOL) };
        let at = match self.pools.get(&server).and_then(|pool| pool[place]) {
            Some(at) => at,
            None => self.open(poll, insides, server, place, now)?,
        };
        let socket = &mut self.sockets[at];
        if socket.waiting.len() >= UNDER_WAY {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let id = loop {
            let id = rand::random();
            if !socket.waiting.contains_key(&id) {
                break id;
            }
        };
        message[..2].copy_from_slice(&id.to_be_bytes());
        socket.send(&message)?;
        socket.waiting.insert(id, ask);
        socket.asked += 1;
        socket.used = now;
        if socket.asked >= WORN {
            self.wear(at, place);
        }
        Ok((at, id))
    }

    fn open(
        &mut self,
        poll: &Poll,
        insides: &mut Insides,
        server: Upstream,
        place: usize,
        now: u64,
    ) -> io::Result<usize> {
        if server.is_inside() {
            self.make_room()?;
        }
        let udp = UdpSocket::from(insides.open(server, SockType::Datagram, now)?);
        let entry = self.sockets.vacant_entry();
        let at = entry.key();
        poll.add(&udp, Source::Datagrams(at), Interest::Read)?;
        let waiting = HashMap::new();
        entry.insert(Socket { server, udp, connected: false, waiting, asked: 0, used: now, retired: false });
        self.pools.entry(server).or_default()[place] = Some(at);
        Ok(at)
    }

    /// Of the sockets in sandboxes the longest unused one makes room.
    fn make_room(&mut self) -> io::Result<()> {
        let inside = || self.sockets.iter().filter(|(_, s)| s.server.is_inside());
        if inside().count() < self.most_inside {
            return Ok(());
        }
        let idle = inside().filter(|(_, s)| s.waiting.is_empty()).min_by_key(|(_, s)| s.used);
        let at = idle.map(|(at, _)| at).ok_or_else(|| io::Error::other("too many sockets in sandboxes"))?;
        self.remove(at);
        Ok(())
    }

    /// Has another socket take the next questions; a sandbox's, only when none that it wore out is there still.
    fn wear(&mut self, at: usize, place: usize) {
        let server = self.sockets[at].server;
        if server.is_inside() && self.sockets.iter().any(|(_, s)| s.server == server && s.retired) {
            return;
        }
        self.sockets[at].retired = true;
        if let Some(pool) = self.pools.get_mut(&server) {
            pool[place] = None;
        }
    }

    /// Takes one datagram: its length and the ask that it is for, `None` when nobody waits for it. An error is `Err` with the
    /// asks that it is an answer to: none when there was nothing to read.
    pub fn receive(&mut self, at: usize, buffer: &mut [u8]) -> Result<Option<(usize, usize)>, Vec<usize>> {
        let Some(socket) = self.sockets.get_mut(at) else { return Err(Vec::new()) };
        match socket.udp.recv(buffer) {
            // Before it is connected it may take what anybody sends.
            Ok(_) if !socket.connected => Ok(None),
            Ok(len) if len >= 2 => {
                let id = u16::from_be_bytes([buffer[0], buffer[1]]);
                Ok(socket.waiting.get(&id).map(|ask| (len, *ask)))
            }
            Ok(_) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(Vec::new()),
            // ICMP: nobody listens there, or there is no way.
            Err(_) => Err(socket.waiting.values().copied().collect()),
        }
    }

    /// Nobody waits for a reply with this id any more.
    pub fn forget(&mut self, at: usize, id: u16) {
        if let Some(socket) = self.sockets.get_mut(at) {
            socket.waiting.remove(&id);
            if socket.retired && socket.waiting.is_empty() {
                self.sockets.remove(at);
            }
        }
    }

    /// Sends nothing more on the sockets that are there.
    pub fn retire(&mut self, from: Origin) {
        self.pools.retain(|server, _| server.from != from);
        self.sockets.retain(|_, socket| {
            let its = socket.server.from == from;
            socket.retired |= its;
            !its || !socket.waiting.is_empty()
        });
    }

    /// Closes all sockets there.
    pub fn close(&mut self, from: Origin) {
        self.pools.retain(|server, _| server.from != from);
        self.sockets.retain(|_, socket| socket.server.from != from);
    }

    /// Closes sockets that nobody used for a while.
    pub fn sweep(&mut self, now: u64) {
        let old = |s: &Socket| s.waiting.is_empty() && s.used + IDLE <= now;
        let old: Vec<_> = self.sockets.iter().filter(|(_, s)| old(s)).map(|(at, _)| at).collect();
        for at in old {
            self.remove(at);
        }
    }

    fn remove(&mut self, at: usize) {
        let server = self.sockets.remove(at).server;
        if let Some(pool) = self.pools.get_mut(&server) {
            pool.iter_mut().filter(|p| **p == Some(at)).for_each(|p| *p = None);
            if pool.iter().all(Option::is_none) {
                self.pools.remove(&server);
            }
        }
    }
}

impl Socket {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        if !self.connected {
            // Where there is no way yet, there may be one for the next question.
            self.udp.connect(self.server.at())?;
            self.connected = true;
        }
        // What an earlier datagram met is told to the next caller, once.
        if self.udp.send(message).is_err() {
            self.udp.send(message)?;
        }
        Ok(())
    }
}
