//! The thread that serves the names of all sandboxes.
//!
//! It owns the tables, the sockets that netd opened in each sandbox, what is asked upstream, and the cache, and waits for all
//! of it at one place. So a query costs no lock, no task and no memory of its own, and a sandbox two sockets and a line in a
//! list.
//!
//! ```text
//! engine ──changes──> ┌─────────────────────────┐
//! sandbox ──query───> │ apply changes │ answer  │──reply──> sandbox
//! upstream ─reply───> │               │ forward │──query──> upstream
//!                     └─────────────────────────┘
//! ```
//! Changes are applied after queries were taken from a socket and before they are answered: whoever asks after a change was
//! sent is answered by it. A sandbox is not served before it is published, nor any before [`Change::Open`]: until then its
//! queries wait in the socket, and none gets half of the truth while netd starts.

mod clients;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use davit_sys::datagrams::{Incoming, Outgoing};
use nix::sys::eventfd::{EfdFlags, EventFd};
use slab::Slab;

use super::answer::{Outcome, Way, answer, fail};
use super::client::Client;
use super::forward::{Asked, Asker, Asking, Done, Forwarder, To};
use super::poll::{Interest, Poll, Source};
use super::resolvconf::HostConf;
use super::wire::{Code, EDNS, Query, key};
use super::zone::{Member, Publication, Tables};
use crate::driver::inside::Resolver;

/// Queries of one sandbox that may wait for upstreams.
const WAITING: usize = 256;
/// Queries taken at once, and how often before others get a turn.
const BATCH: usize = 32;
const TURNS: usize = 4;

/// A change of what is served.
#[derive(Debug)]
pub enum Change {
    /// These sockets are a sandbox's.
    Serve(String, Resolver),
    /// This is what a sandbox sees and is called.
    Publish(Box<Publication>),
    /// Forget a sandbox and close its sockets.
    Withdraw(String),
    /// Everything that was there before is published.
    Open,
    /// Say what a name means to a sandbox.
    Look(String, String, mpsc::Sender<Vec<IpAddr>>),
}

/// Sends changes to the thread, which ends with it.
#[derive(Debug)]
pub struct Service {
    changes: Option<mpsc::Sender<Change>>,
    wake: Arc<EventFd>,
}

impl Service {
    /// Starts the thread in the caller's network namespace.
    pub fn start(host: Arc<HostConf>) -> io::Result<Self> {
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let (changes, queue) = mpsc::channel();
        let poll = Poll::new()?;
        poll.add(&*wake, Source::Changes, Interest::Read)?;
        let theirs = wake.clone();
        let work = move || Serving::new(poll, queue, theirs, host).run();
        thread::Builder::new().name("netd-names".into()).stack_size(256 << 10).spawn(work)?;
        Ok(Self { changes: Some(changes), wake })
    }

    /// Sends a change. It holds for every query that is sent after this returned.
    pub fn send(&self, change: Change) {
        // A thread that is gone has taken its sockets with it; the daemon ends on its panic.
        let _ = self.changes.as_ref().map(|changes| changes.send(change));
        let _ = self.wake.write(1);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.changes = None;
        let _ = self.wake.write(1);
    }
}

#[derive(Debug)]
struct Server {
    sandbox: Box<str>,
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    /// Its place among those whose own servers are asked from inside.
    inside: Option<usize>,
    /// Where its view is; `None` before it was published.
    view: Option<usize>,
    serial: u64,
    waiting: usize,
    /// Its TCP clients.
    clients: Vec<usize>,
    listening: bool,
}

struct Serving {
    poll: Poll,
    queue: mpsc::Receiver<Change>,
    wake: Arc<EventFd>,
    tables: Tables,
    servers: Slab<Server>,
    by_sandbox: HashMap<Box<str>, usize>,
    clients: Slab<Client>,
    forwarder: Forwarder,
    incoming: Incoming,
    outgoing: Outgoing,
    reply: Vec<u8>,
    message: Vec<u8>,
    /// Listeners that take nothing until the next sweep.
    resting: Vec<(usize, u64)>,
    open: bool,
    ended: bool,
    serial: u64,
    turn: usize,
    swept: u64,
    begun: Instant,
}

impl Serving {
    fn new(poll: Poll, queue: mpsc::Receiver<Change>, wake: Arc<EventFd>, host: Arc<HostConf>) -> Self {
        Self {
            poll,
            queue,
            wake,
            tables: Tables::default(),
            servers: Slab::new(),
            by_sandbox: HashMap::new(),
            clients: Slab::new(),
            forwarder: Forwarder::new(host, 53),
            incoming: Incoming::new(BATCH, EDNS.into()),
            outgoing: Outgoing::default(),
            reply: Vec::new(),
            message: Vec::new(),
            resting: Vec::new(),
            open: false,
            ended: false,
            serial: 0,
            turn: 0,
            swept: 0,
            begun: Instant::now(),
        }
    }

    fn now(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    fn run(mut self) {
        let mut ready = Vec::new();
        while !self.ended {
            let due = self.forwarder.due(self.now());
            let sweep = !self.clients.is_empty() || !self.resting.is_empty();
            let sweep = sweep.then_some(1000);
            if let Err(error) = self.poll.wait(due.into_iter().chain(sweep).min(), &mut ready) {
                tracing::error!(%error, "names are not served any more");
                return;
            }
            let now = self.now();
            self.apply_changes();
            for source in &ready {
                match *source {
                    Source::Changes => drop(self.wake.read()),
                    Source::Queries(at) => self.queries(at, now),
                    Source::Listener(at) => self.accept(at, now),
                    Source::Client(at) => self.client(at, now),
                    Source::Datagrams(at) => self.forwarder.datagrams_ready(&self.poll, at, now),
                    Source::Stream(at) => self.forwarder.stream_ready(&self.poll, at, now),
                }
                self.deliver();
            }
            self.forwarder.expire(&self.poll, now);
            self.deliver();
            self.sweep_clients(now);
        }
    }

    fn apply_changes(&mut self) {
        loop {
            match self.queue.try_recv() {
                Ok(change) => self.apply(change),
                Err(mpsc::TryRecvError::Empty) => return,
                Err(mpsc::TryRecvError::Disconnected) => {
                    self.ended = true;
                    return;
                }
            }
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Serve(sandbox, resolver) => {
                self.close(&sandbox);
                self.serial += 1;
                let server = Server {
                    view: self.tables.view_of(&sandbox),
                    sandbox: sandbox.as_str().into(),
                    udp: Arc::new(resolver.udp),
                    tcp: resolver.tcp,
                    inside: None,
                    serial: self.serial,
                    waiting: 0,
                    clients: Vec::new(),
                    listening: false,
                };
                let at = self.servers.insert(server);
                self.by_sandbox.insert(sandbox.into(), at);
                self.settle(at);
                self.listen(at);
            }
            Change::Publish(publication) => {
                let view = self.tables.publish(&publication);
                if let Some(at) = self.by_sandbox.get(publication.sandbox.as_str()).copied() {
                    self.servers[at].view = Some(view);
                    self.settle(at);
                    self.listen(at);
                }
            }
            Change::Withdraw(sandbox) => {
                self.close(&sandbox);
                self.tables.withdraw(&sandbox);
            }
            Change::Open => {
                self.open = true;
                let all: Vec<usize> = self.servers.iter().map(|(at, _)| at).collect();
                for at in all {
                    self.listen(at);
                }
            }
            Change::Look(sandbox, name, answer) => drop(answer.send(self.look(&sandbox, &name))),
        }
    }

    fn look(&self, sandbox: &str, name: &str) -> Vec<IpAddr> {
        let view = self.tables.view_of(sandbox).and_then(|at| self.tables.view(at));
        let (Some(view), Some(key)) = (view, key(name)) else { return Vec::new() };
        self.tables.resolve(view, &key).iter().flat_map(Member::addresses).collect()
    }

    /// Has a sandbox's own servers asked from inside of it, as it is there now.
    fn settle(&mut self, at: usize) {
        let server = &mut self.servers[at];
        let Some(view) = server.view.and_then(|v| self.tables.view(v)) else { return };
        match server.inside {
            Some(inside) => self.forwarder.renew(inside, view.servers.clone()),
            None if view.servers.is_empty() => {}
            None => server.inside = Some(self.forwarder.enter(server.udp.clone(), view.servers.clone())),
        }
    }

    /// Begins to take a sandbox's queries once it is known what it sees.
    fn listen(&mut self, at: usize) {
        let server = &mut self.servers[at];
        if !self.open || server.view.is_none() || server.listening {
            return;
        }
        let udp = self.poll.add(&*server.udp, Source::Queries(at), Interest::Read);
        let tcp = self.poll.add(&server.tcp, Source::Listener(at), Interest::Read);
        if let Err(error) = udp.and(tcp) {
            tracing::error!(container.id = %server.sandbox, %error, "names are not served in a sandbox");
        }
        server.listening = true;
    }

    fn close(&mut self, sandbox: &str) {
        let Some(at) = self.by_sandbox.remove(sandbox) else { return };
        let server = self.servers.remove(at);
        for client in server.clients {
            self.clients.remove(client);
        }
        if let Some(inside) = server.inside {
            self.forwarder.leave(inside);
        }
    }

    /// Answers what came to a sandbox's UDP socket.
    fn queries(&mut self, at: usize, now: u64) {
        for _ in 0..TURNS {
            let Some(server) = self.servers.get(at) else { return };
            let serial = server.serial;
            let Ok(count) = self.incoming.receive(server.udp.as_fd()) else { return };
            self.apply_changes();
            let Some(server) = self.servers.get_mut(at).filter(|s| s.serial == serial) else { return };
            let Some(view) = server.view.and_then(|v| self.tables.view(v)) else { return };
            for n in 0..count {
                let (message, client) = self.incoming.datagram(n);
                let out = self.outgoing.add(client);
                self.turn = self.turn.wrapping_add(1);
                match answer(message, &self.tables, view, Way::Udp, self.turn, out) {
                    Outcome::Reply => {}
                    Outcome::Ignore => self.outgoing.take_back(),
                    Outcome::Forward(query) if server.waiting >= WAITING => fail(&query, Code::ServFail, out),
                    Outcome::Forward(query) => {
                        let asking = Asking { query: &query, inside: server.inside, way: Way::Udp };
                        let asker = || asker_of(&query, (at, serial), To::Address(client));
                        match self.forwarder.ask(&self.poll, asking, now, out, asker) {
                            Asked::Reply => {}
                            Asked::Later => {
                                server.waiting += 1;
                                self.outgoing.take_back();
                            }
                            Asked::Twice => self.outgoing.take_back(),
                        }
                    }
                }
            }
            self.outgoing.send(server.udp.as_fd());
            if count < BATCH {
                return;
            }
        }
    }

    /// Tells askers what came of their questions. A TCP client that takes its answer may ask for more, which may fail at once.
    fn deliver(&mut self) {
        loop {
            let all = self.forwarder.take_done();
            if all.is_empty() {
                return;
            }
            for done in all {
                self.tell(done);
            }
        }
    }

    fn tell(&mut self, Done { askers, answer }: Done) {
        for asker in askers {
            let (at, serial) = asker.server;
            let Some(server) = self.servers.get_mut(at).filter(|s| s.serial == serial) else { continue };
            server.waiting = server.waiting.saturating_sub(1);
            let Some(query) = asker.query() else { continue };
            let way = asker.way();
            match &answer {
                Ok(answer) => answer.write(&query, 0, way.limit(&query), &mut self.reply),
                Err(code) => fail(&query, *code, &mut self.reply),
            }
            match asker.to {
                To::Address(client) => {
                    self.outgoing.add(client).extend_from_slice(&self.reply);
                    self.outgoing.send(server.udp.as_fd());
                }
                To::Client(at, serial) => self.reply_later(at, serial),
            }
        }
    }
}

fn asker_of(query: &Query<'_>, server: (usize, u64), to: To) -> Asker {
    Asker { server, to, head: query.head.into(), edns: query.edns }
}
