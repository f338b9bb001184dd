//! The thread: waits for whatever is ready, and never for one connection alone.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::errno::Errno as NixErrno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::resource::{Resource, getrlimit};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use slab::Slab;

use super::datagrams::Flows;
use super::port::{Port, Said};
use super::ready::Ready;
use super::stream::{Pipes, State, Stream, reset};
use super::{Key, Order, Refused};
use crate::firewall::Transport;

/// Connections, and as many clients over UDP, whatever the limit of descriptors.
const MOST: usize = 1024;
/// One port has at most this part of the connections, so that its clients do not keep those of others out.
const SHARE: usize = 4;
/// Connections or datagrams that are taken from one socket, and connections that are ended, before others have their turn.
const BATCH: usize = 32;
/// Streams that have more to move and have their turn before others are looked at.
const TURNS: usize = 32;
/// The port of connections whose port is answered no more.
const LEFT: usize = usize::MAX;
/// Between two looks for clients that are silent.
const SWEEP: Duration = Duration::from_secs(10);
/// How long connections wait when there are no descriptors for them.
const STALL: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub struct Worker {
    epoll: Epoll,
    orders: mpsc::Receiver<Order>,
    wake: Arc<EventFd>,
    ports: Slab<Port>,
    by_key: HashMap<Key, usize>,
    streams: Slab<Stream>,
    pipes: Pipes,
    flows: Flows,
    refused: Refused,
    most: usize,
    /// Streams that have more to move at once, who waits for longest first.
    busy: VecDeque<usize>,
    /// There are connections of ports that are left.
    leaving: bool,
    /// Ports that are not listened to until then: there are no descriptors.
    stalled: Option<Instant>,
    starved: Said,
    swept: Instant,
}

impl Worker {
    pub fn new(orders: mpsc::Receiver<Order>, wake: Arc<EventFd>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, Ready::Orders.data()))?;
        // A stream has two descriptors, and four more while both of its ends are slow: attaching comes first.
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        let most = MOST.min(descriptors as usize / 16).max(16);
        Ok(Self {
            epoll,
            orders,
            wake,
            ports: Slab::new(),
            by_key: HashMap::new(),
            streams: Slab::new(),
            pipes: Pipes::default(),
            flows: Flows::new(most),
            refused: Refused::default(),
            most,
            busy: VecDeque::new(),
            leaving: false,
            stalled: None,
            starved: Said::default(),
            swept: Instant::now(),
        })
    }

    /// Works until nobody can order anything any more.
    pub fn run(&mut self) {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let n = match self.epoll.wait(&mut events, self.patience()) {
                Ok(n) => n,
                Err(NixErrno::EINTR) => 0,
                Err(error) => {
                    tracing::error!(%error, "published ports are not answered at ::1 any more");
                    return;
                }
            };
            let ready = events[..n].iter().map(|e| Ready::of(e.data()));
            if !self.turn(ready) {
                return;
            }
        }
    }

    /// Works once at what is ready and at some of what is busy; false when nobody orders any more. The engine waits for its
    /// orders, and so they are looked at before everything else, however much there is to do.
    fn turn(&mut self, ready: impl Iterator<Item = Ready>) -> bool {
        for ready in ready {
            if ready == Ready::Orders {
                let _ = self.wake.read();
            }
            if !self.obey() {
                return false;
            }
            match ready {
                Ready::Orders => {}
                Ready::Port(at) => self.arrive(at),
                Ready::Stream(at) => self.queue(at),
                Ready::Flow(at) => self.answer(at),
            }
        }
        if self.leaving {
            self.end_left();
        }
        for _ in 0..TURNS.min(self.busy.len()) {
            if !self.obey() {
                return false;
            }
            if let Some(at) = self.busy.pop_front() {
                self.pump(at);
            }
        }
        self.tidy();
        true
    }

    fn patience(&self) -> EpollTimeout {
        let now = Instant::now();
        let wait = if self.leaving || !self.busy.is_empty() {
            Some(Duration::ZERO)
        } else if let Some(until) = self.stalled {
            Some(until.saturating_duration_since(now) + Duration::from_millis(1))
        } else {
            (!self.flows.is_empty()).then_some(SWEEP)
        };
        wait.map_or(EpollTimeout::NONE, |w| EpollTimeout::try_from(w).unwrap_or(EpollTimeout::ZERO))
    }

    fn tidy(&mut self) {
        let now = Instant::now();
        if !self.flows.is_empty() && now.saturating_duration_since(self.swept) >= SWEEP {
            self.swept = now;
            self.flows.expire(now);
        }
        if self.stalled.is_some_and(|until| until <= now) {
            self.stalled = None;
            self.listen(EpollFlags::EPOLLIN);
        }
    }

    /// Has epoll tell of all TCP ports, or of none.
    fn listen(&self, flags: EpollFlags) {
        for (at, port) in self.ports.iter().filter(|(_, p)| p.key.0 == Transport::Tcp) {
            let mut event = EpollEvent::new(flags, Ready::Port(at).data());
            if let Err(error) = self.epoll.modify(port.socket.as_fd(), &mut event) {
                tracing::warn!(host = %port.key.1, %error, "a published port is not answered at ::1");
            }
        }
    }

    /// Does what is ordered; false when nobody orders any more.
    fn obey(&mut self) -> bool {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Serve { key, socket, to }) => self.serve(key, socket, to),
                Ok(Order::Leave { keys, done }) => {
                    for key in &keys {
                        self.leave(key);
                    }
                    drop(done);
                }
                Ok(Order::Refuse(refused)) => self.refuse(refused),
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn serve(&mut self, key: Key, socket: Arc<OwnedFd>, to: Option<SocketAddr>) {
        if let Some(at) = self.by_key.get(&key).copied() {
            let same = Arc::ptr_eq(&self.ports[at].socket, &socket);
            if same && self.ports[at].to == to {
                return;
            }
            self.leave(&key);
        }
        let at = self.ports.vacant_key();
        let event = EpollEvent::new(EpollFlags::EPOLLIN, Ready::Port(at).data());
        if let Err(error) = self.epoll.add(socket.as_fd(), event) {
            tracing::warn!(host = %key.1, %error, "a published port is not answered at ::1");
            return;
        }
        self.ports.insert(Port { key, socket, to, crowded: Said::default() });
        self.by_key.insert(key, at);
    }

    /// Answers these no more, and ends what goes on with them as if they came to a port that is left.
    fn refuse(&mut self, refused: Refused) {
        for (_, stream) in self.streams.iter_mut().filter(|(_, s)| refused.holds(&s.peer, 0)) {
            stream.port = LEFT;
        }
        self.end_left();
        self.flows.refuse(&refused);
        self.refused = refused;
    }

    fn leave(&mut self, key: &Key) {
        let Some(at) = self.by_key.remove(key) else { return };
        let port = self.ports.remove(at);
        // The engine may have the socket still, and then closing it here would not take it out.
        let _ = self.epoll.delete(port.socket.as_fd());
        for (_, stream) in self.streams.iter_mut().filter(|(_, s)| s.port == at) {
            stream.port = LEFT;
        }
        self.end_left();
        self.flows.leave(at);
    }

    /// Ends some of the connections of ports that are left. A thousand that are busy take a second, and the engine waits
    /// for the port's own socket only.
    fn end_left(&mut self) {
        let left = self.streams.iter().filter(|(_, s)| s.port == LEFT).map(|(at, _)| at);
        let some: Vec<usize> = left.take(BATCH).collect();
        self.leaving = some.len() == BATCH;
        for at in some {
            self.close(at, true);
        }
    }

    fn arrive(&mut self, at: usize) {
        let Some(port) = self.ports.get(at) else { return };
        let (transport, socket, to) = (port.key.0, port.socket.clone(), port.to);
        for _ in 0..BATCH {
            let go_on = match transport {
                Transport::Udp => self.take_datagram(at, &socket, to),
                _ => self.accept(at, &socket, to),
            };
            if !go_on {
                return;
            }
        }
    }

    /// Takes one connection; false when there is none for now.
    fn accept(&mut self, at: usize, socket: &OwnedFd, to: Option<SocketAddr>) -> bool {
        let (client, peer) = match acceptfrom_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(accepted) => accepted,
            Err(Errno::CONNABORTED | Errno::INTR) => return true,
            Err(Errno::AGAIN) => return false,
            Err(error) => {
                if self.starved.is_news(Instant::now()) {
                    tracing::warn!(%error, "connections to published ports wait");
                }
                self.stalled = Some(Instant::now() + STALL);
                self.listen(EpollFlags::empty());
                return false;
            }
        };
        let peer = peer.and_then(|p| SocketAddrV6::try_from(p).ok());
        let peer = peer.filter(|p| !self.refused.holds(p, 0));
        let full = self.is_full(at);
        let Some((to, peer)) = to.zip(peer).filter(|_| !full) else {
            reset(client);
            return true;
        };
        match Stream::open(at, client, peer, to) {
            Ok(stream) => self.watch(stream),
            Err((client, error)) => {
                tracing::debug!(%to, %error, "a container was not reached for a client at ::1");
                reset(client);
            }
        }
        true
    }

    /// Whether a port has as many connections as it may have, or all ports together; says so.
    fn is_full(&mut self, at: usize) -> bool {
        let share = self.most / SHARE;
        let full = self.streams.len() >= self.most
            || self.streams.iter().filter(|(_, s)| s.port == at).count() >= share;
        if full
            && let Some(port) = self.ports.get_mut(at)
            && port.crowded.is_news(Instant::now())
        {
            let (host, most) = (port.key.1, self.most);
            tracing::warn!(%host, share, most, "too many connections to a published port; more are refused");
        }
        full
    }

    fn watch(&mut self, stream: Stream) {
        let at = self.streams.insert(stream);
        // Told once of each change; the pump goes on until both ends wait.
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        let stream = &self.streams[at];
        let added = [&stream.client, &stream.server]
            .into_iter()
            .try_for_each(|end| self.epoll.add(end, EpollEvent::new(flags, Ready::Stream(at).data())));
        if let Err(error) = added {
            tracing::warn!(%error, "a connection to a published port at ::1 is given up");
            self.close(at, true);
        }
    }

    fn queue(&mut self, at: usize) {
        if !self.busy.contains(&at) {
            self.busy.push_back(at);
        }
    }

    fn pump(&mut self, at: usize) {
        let Some(stream) = self.streams.get_mut(at).filter(|s| s.port != LEFT) else { return };
        match stream.pump(&mut self.pipes) {
            State::Waits => {}
            State::More => self.queue(at),
            State::Done => self.close(at, false),
            State::Broken => self.close(at, true),
        }
    }

    fn close(&mut self, at: usize, broken: bool) {
        let stream = self.streams.remove(at);
        self.busy.retain(|b| *b != at);
        if broken {
            reset(stream.client);
            reset(stream.server);
        }
    }

    /// Takes one datagram; false when there is none for now.
    fn take_datagram(&mut self, at: usize, socket: &OwnedFd, to: Option<SocketAddr>) -> bool {
        let arrived = match self.flows.receive(at, socket) {
            Ok(Some(got)) => got,
            Ok(None) | Err(NixErrno::EINTR) => return true,
            Err(_) => return false,
        };
        let refused = self.refused.holds(&arrived.client.peer, arrived.by);
        let Some(to) = to.filter(|_| !refused) else { return true };
        match self.flows.forward(arrived, to, Instant::now()) {
            Ok(Some(new)) => {
                if let Some((flow, _)) = self.flows.socket(new) {
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, Ready::Flow(new).data());
                    if let Err(error) = self.epoll.add(flow, event) {
                        tracing::warn!(%error, "a client of a published UDP port at ::1 gets no answer");
                    }
                }
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%to, %error, "a container was not reached for a client at ::1"),
        }
        true
    }

    fn answer(&mut self, at: usize) {
        let Some(port) = self.flows.socket(at).and_then(|(_, port)| self.ports.get(port)) else { return };
        let (socket, now) = (port.socket.clone(), Instant::now());
        for _ in 0..BATCH {
            if !self.flows.answer(at, &socket, now) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
