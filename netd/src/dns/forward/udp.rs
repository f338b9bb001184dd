//! A few UDP sockets to each server, each with a random port and for a bounded number of questions. Which of them a
//! question goes out on, and its id, are random: who wants to forge a reply must guess both.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rand::Rng as _;
use slab::Slab;

use crate::dns::poll::{Interest, Poll, Source};

/// Sockets to one server.
const POOL: usize = 4;
/// Questions of one socket before another port takes its place.
const WORN: u32 = 500;
/// Questions of one socket that may be under way.
const UNDER_WAY: usize = 2048;
/// Milliseconds after which an unused socket goes.
const IDLE: u64 = 15_000;

#[derive(Debug)]
struct Socket {
    server: SocketAddr,
    udp: UdpSocket,
    waiting: HashMap<u16, usize>,
    asked: u32,
    used: u64,
    /// Its place was given to another: it goes when nothing is under way.
    retired: bool,
}

/// All sockets.
#[derive(Debug, Default)]
pub struct Datagrams {
    sockets: Slab<Socket>,
    pools: HashMap<SocketAddr, [Option<usize>; POOL]>,
}

impl Datagrams {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Sends a question for an ask; answers on which socket, and the id.
    pub fn send(
        &mut self,
        poll: &Poll,
        server: SocketAddr,
        mut message: Vec<u8>,
        ask: usize,
        now: u64,
    ) -> io::Result<(usize, u16)> {
        let place = rand::rng().random_range(0..POOL);
        let pool = self.pools.entry(server).or_default();
        let at = if let Some(at) = pool[place] { at } else { open(poll, &mut self.sockets, server)? };
        pool[place] = Some(at);
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
        // What an earlier datagram met is told to the next caller, once.
        if socket.udp.send(&message).is_err() {
            socket.udp.send(&message)?;
        }
        socket.waiting.insert(id, ask);
        socket.asked += 1;
        socket.used = now;
        if socket.asked >= WORN {
            socket.retired = true;
            pool[place] = None;
        }
        Ok((at, id))
    }

    /// Takes one datagram: its length and the ask that it is for, `None` when nobody waits for it. An error is `Err` with the
    /// asks that it is an answer to: none when there was nothing to read.
    pub fn receive(&mut self, at: usize, buffer: &mut [u8]) -> Result<Option<(usize, usize)>, Vec<usize>> {
        let Some(socket) = self.sockets.get_mut(at) else { return Err(Vec::new()) };
        match socket.udp.recv(buffer) {
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

    /// Closes sockets that nobody used for a while.
    pub fn sweep(&mut self, now: u64) {
        let Self { sockets, pools } = self;
        sockets.retain(|at, socket| {
            let keep = !socket.waiting.is_empty() || now < socket.used + IDLE;
            if !keep && let Some(pool) = pools.get_mut(&socket.server) {
                pool.iter_mut().filter(|p| **p == Some(at)).for_each(|p| *p = None);
            }
            keep
        });
        pools.retain(|_, pool| pool.iter().any(Option::is_some));
    }
}

fn open(poll: &Poll, sockets: &mut Slab<Socket>, server: SocketAddr) -> io::Result<usize> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    let entry = sockets.vacant_entry();
    let at = entry.key();
    poll.add(&socket, Source::Datagrams(at), Interest::Read)?;
    entry.insert(Socket { server, udp: socket, waiting: HashMap::new(), asked: 0, used: 0, retired: false });
    Ok(at)
}
