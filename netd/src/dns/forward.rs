//! Questions that upstream servers are asked, from the namespace that netd runs in.
//!
//! ```text
//!              cached                      a reply
//! question ─────────────> answered   ┌──────────────────────> kept, every asker answered
//!     │ the same is under way        │
//!     ├────────────> joins it        │ refused, silent, failed
//!     └────────────> Ask ── sent ────┴──> next server ── none is left ──> every asker told so
//! ```
//! Equal questions are one ask, whoever has them. A reply counts only from the server that was asked, on the socket on which
//! it was asked, with the same id and question. All of it runs on the one thread that serves names and never waits.

mod message;
mod replies;
mod servers;
mod streams;
mod udp;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use slab::Slab;

use super::answer::Way;
use super::cache::{Answer, Cache};
use super::poll::Poll;
use super::resolvconf::HostConf;
use super::wire::{Code, Edns, Name, Query};
use message::{Question, write_query};
use servers::{Plan, Servers};
use streams::Streams;
use udp::Datagrams;

/// Asks at a time, of all sandboxes.
const ASKS: usize = 2048;
/// Askers of one ask.
const ASKERS: usize = 256;
/// Milliseconds for one question in all: the C library gives up after ten seconds.
const IN_ALL: u64 = 9_000;

/// Who waits for an answer.
#[derive(Debug)]
pub struct Asker {
    /// The sandbox's server, and which of those that had this place.
    pub server: (usize, u64),
    /// Where the answer goes.
    pub to: To,
    /// Header and question of the query.
    pub head: Box<[u8]>,
    /// What the client said of itself.
    pub edns: Option<Edns>,
}

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// A UDP client.
    Address(SocketAddrV4),
    /// A TCP connection, and which of those that had this place.
    Client(usize, u64),
}

impl Asker {
    /// The query, as far as a reply needs it.
    pub fn query(&self) -> Option<Query<'_>> {
        let (name, end) = Name::read(&self.head, super::wire::HEADER)?;
        let word = |at| super::wire::word(&self.head, at);
        Some(Query { head: &self.head, name, kind: word(end)?, class: word(end + 2)?, edns: self.edns })
    }

    /// How the query came.
    pub fn way(&self) -> Way {
        match self.to {
            To::Address(_) => Way::Udp,
            To::Client(..) => Way::Tcp,
        }
    }
}

/// Askers, and what they are to be told.
#[derive(Debug)]
pub struct Done {
    /// Who.
    pub askers: Vec<Asker>,
    /// What.
    pub answer: Result<Arc<Answer>, Code>,
}

/// A question that is not ours to answer.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// The question.
    pub query: &'a Query<'a>,
    /// Who is to be asked; the host's servers when empty.
    pub servers: &'a Arc<[IpAddr]>,
    /// How it came.
    pub way: Way,
}

/// What became of a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// The reply is written.
    Reply,
    /// It comes later.
    Later,
    /// The client had asked already, and is answered once.
    Twice,
}

/// How an ask was sent last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Nowhere,
    Datagram(usize, u16),
    Stream(usize, u16),
}

#[derive(Debug)]
struct Ask {
    question: Question,
    askers: Vec<Asker>,
    /// Servers that are still to be tried, the next one last.
    tries: Vec<SocketAddr>,
    patience: u64,
    server: Option<SocketAddr>,
    sent: Sent,
    /// Whether the server was told that we speak EDNS.
    edns: bool,
    /// Over TCP, since the answer is too long for UDP.
    stream: bool,
    /// A server's failure, which is told when none succeeds.
    failure: Option<Arc<Answer>>,
    begun: u64,
    deadline: u64,
}

impl Ask {
    fn new(question: &Question, asker: Asker, plan: Plan, stream: bool, now: u64) -> Self {
        Self {
            question: *question,
            askers: vec![asker],
            tries: plan.tries,
            patience: plan.patience,
            server: None,
            sent: Sent::Nowhere,
            edns: false,
            stream,
            failure: None,
            begun: now,
            deadline: 0,
        }
    }

    /// One more that waits; `Reply` when there are too many.
    fn join(&mut self, asker: Asker) -> Asked {
        let same = |a: &Asker| a.to == asker.to && a.server == asker.server && a.head == asker.head;
        if self.askers.iter().any(same) {
            return Asked::Twice;
        }
        if self.askers.len() >= ASKERS {
            return Asked::Reply;
        }
        self.askers.push(asker);
        Asked::Later
    }
}

/// Asks, sockets to servers, and the cache.
#[derive(Debug)]
pub struct Forwarder {
    host: Arc<HostConf>,
    port: u16,
    servers: Servers,
    asks: Slab<Ask>,
    by_question: HashMap<Box<[u8]>, usize>,
    deadlines: BTreeSet<(u64, usize)>,
    cache: Cache,
    datagrams: Datagrams,
    streams: Streams,
    done: Vec<Done>,
    swept: u64,
}

impl Forwarder {
    /// Nothing is under way. Servers are asked at `port`.
    pub fn new(host: Arc<HostConf>, port: u16) -> Self {
        Self {
            host,
            port,
            servers: Servers::default(),
            asks: Slab::new(),
            by_question: HashMap::new(),
            deadlines: BTreeSet::new(),
            cache: Cache::default(),
            datagrams: Datagrams::default(),
            streams: Streams::default(),
            done: Vec::new(),
            swept: 0,
        }
    }

    /// Answers a question from the cache into `out`, or asks servers. `asker` is called when the answer comes later.
    pub fn ask(
        &mut self,
        poll: &Poll,
        asking: Asking<'_>,
        now: u64,
        out: &mut Vec<u8>,
        asker: impl FnOnce() -> Asker,
    ) -> Asked {
        let Asking { query, servers, way } = asking;
        let set = self.servers.set(servers, &self.host, now);
        if self.servers.renewed() {
            self.cache.clear();
        }
        let question = Question::of(set, query);
        let mut stream = false;
        if let Some((answer, age)) = self.cache.get(question.bytes(), now) {
            stream = answer.truncated;
            if !stream || way == Way::Udp {
                answer.write(query, age, way.limit(query), out);
                return Asked::Reply;
            }
        }
        if let Some(at) = self.by_question.get(question.bytes()) {
            let asked = self.asks[*at].join(asker());
            if asked == Asked::Reply {
                super::answer::fail(query, Code::ServFail, out);
            }
            return asked;
        }
        let plan = self.servers.plan(set, self.port, now);
        if plan.tries.is_empty() || self.asks.len() >= ASKS {
            let nobody = plan.tries.is_empty() && query.name.labels() <= 1;
            super::answer::fail(query, if nobody { Code::NxDomain } else { Code::ServFail }, out);
            return Asked::Reply;
        }
        let at = self.asks.insert(Ask::new(&question, asker(), plan, stream, now));
        self.by_question.insert(question.bytes().into(), at);
        self.next_server(poll, at, now);
        Asked::Later
    }

    /// Who is to be told something.
    pub fn take_done(&mut self) -> Vec<Done> {
        std::mem::take(&mut self.done)
    }

    /// Sends an ask to the next server that takes it, or ends it.
    fn next_server(&mut self, poll: &Poll, at: usize, now: u64) {
        loop {
            let ask = &mut self.asks[at];
            ask.server = ask.tries.pop().filter(|_| now < ask.begun + IN_ALL);
            let Some(server) = ask.server else { return self.give_up(at) };
            if self.send(poll, at, server, now) {
                return;
            }
            self.servers.failed(server, now);
        }
    }

    /// Sends an ask to a server; false when that is not possible.
    fn send(&mut self, poll: &Poll, at: usize, server: SocketAddr, now: u64) -> bool {
        self.unschedule(at);
        let ask = &mut self.asks[at];
        // A second try of an old server may be the first that it understands.
        let again = !ask.tries.contains(&server) && ask.begun != now && !ask.question.dnssec();
        ask.edns = !self.servers.is_plain(server, now) && !again;
        let message = write_query(&ask.question, ask.edns);
        let sent = if ask.stream {
            self.streams.send(poll, server, message, at, now).map(|(s, id)| Sent::Stream(s, id))
        } else {
            self.datagrams.send(poll, server, message, at, now).map(|(s, id)| Sent::Datagram(s, id))
        };
        match sent {
            Ok(sent) => {
                ask.sent = sent;
                ask.deadline = now + ask.patience;
                self.deadlines.insert((ask.deadline, at));
                true
            }
            Err(error) => {
                tracing::debug!(%server, %error, "an upstream name server cannot be asked");
                false
            }
        }
    }

    /// Takes an ask from where it was sent, and its deadline away.
    fn unschedule(&mut self, at: usize) {
        let ask = &mut self.asks[at];
        match std::mem::replace(&mut ask.sent, Sent::Nowhere) {
            Sent::Nowhere => {}
            Sent::Datagram(socket, id) => self.datagrams.forget(socket, id),
            Sent::Stream(stream, id) => self.streams.forget(stream, id),
        }
        self.deadlines.remove(&(ask.deadline, at));
    }

    fn give_up(&mut self, at: usize) {
        let code = Code::ServFail;
        let failure = self.asks[at].failure.take();
        self.end(at, failure.ok_or(code));
    }

    fn end(&mut self, at: usize, answer: Result<Arc<Answer>, Code>) {
        self.unschedule(at);
        let ask = self.asks.remove(at);
        self.by_question.remove(ask.question.bytes());
        self.done.push(Done { askers: ask.askers, answer });
    }

    /// Takes what came on a UDP socket.
    pub fn datagrams_ready(&mut self, poll: &Poll, socket: usize, now: u64) {
        let mut buffer = [0; 4096];
        loop {
            match self.datagrams.receive(socket, &mut buffer) {
                Ok(Some((len, at))) => {
                    self.reply(poll, at, &buffer[..len], now);
                }
                Ok(None) => {}
                Err(asks) => {
                    for at in asks {
                        self.server_failed(poll, at, now, "refuses");
                    }
                    return;
                }
            }
        }
    }

    /// Goes on with a TCP connection.
    pub fn stream_ready(&mut self, poll: &Poll, stream: usize, now: u64) {
        let news = self.streams.ready(poll, stream, now);
        for (at, reply) in news.replies {
            self.reply(poll, at, &reply, now);
        }
        for at in news.lost {
            // A connection that served before may have been closed for its age only: the same server once more.
            if news.had_served
                && let Some(server) = self.asks.get(at).and_then(|a| a.server)
            {
                self.asks[at].sent = Sent::Nowhere;
                self.asks[at].tries.push(server);
                self.next_server(poll, at, now);
            } else {
                self.server_failed(poll, at, now, "closed the connection");
            }
        }
    }

    fn server_failed(&mut self, poll: &Poll, at: usize, now: u64, how: &str) {
        let Some(server) = self.asks.get(at).and_then(|a| a.server) else { return };
        tracing::debug!(%server, how, "an upstream name server failed");
        // That it does not speak TCP says nothing of its answers over UDP.
        if !self.asks[at].stream {
            self.servers.failed(server, now);
        }
        self.next_server(poll, at, now);
    }

    /// Milliseconds until [`Self::expire`] has something to do; `None`: nothing is under way.
    pub fn due(&self, now: u64) -> Option<u64> {
        let sweep = (!self.datagrams.is_empty() || !self.streams.is_empty()).then_some(self.swept + 1000);
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        deadline.into_iter().chain(sweep).min().map(|at| at.saturating_sub(now))
    }

    /// Goes on with asks whose server has been silent for too long; closes sockets that nobody uses.
    pub fn expire(&mut self, poll: &Poll, now: u64) {
        while let Some((deadline, at)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.deadlines.remove(&(deadline, at));
            self.server_failed(poll, at, now, "is silent");
        }
        if self.swept + 1000 <= now {
            self.swept = now;
            self.datagrams.sweep(now);
            self.streams.sweep(now);
        }
    }
}

#[cfg(test)]
mod tests;
