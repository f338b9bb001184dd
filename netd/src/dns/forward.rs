//! Questions that upstream servers are asked: the host's from the namespace that netd runs in, a sandbox's own from inside of it.
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

mod ask;
mod asker;
mod inside;
mod message;
mod replies;
mod servers;
mod streams;
mod udp;

use std::collections::{BTreeSet, HashMap};
use std::net::UdpSocket;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit};
use slab::Slab;

use super::answer::Way;
use super::cache::{Answer, Cache};
use super::nameserver::NameServer;
use super::poll::Poll;
use super::resolvconf::HostConf;
use super::wire::Code;
use ask::{Ask, Sent};
pub use asker::{Asked, Asker, Asking, Done, To};
use inside::{Insides, Origin, Upstream};
use message::{Question, write_query};
use servers::Servers;
use streams::Streams;
use udp::Datagrams;

/// Asks at a time, of all sandboxes.
const ASKS: usize = 2048;
/// UDP sockets inside of sandboxes, where netd may have that many descriptors; of TCP connections there a quarter.
const MOST_INSIDE: usize = 1024;
/// Datagrams that are taken from a socket before others get a turn: a container may be its own server.
const TURN: usize = 64;
/// Milliseconds for one question in all: the C library gives up after ten seconds.
const IN_ALL: u64 = 9_000;

/// Asks, sockets to servers, and the cache.
#[derive(Debug)]
pub struct Forwarder {
    host: Arc<HostConf>,
    port: u16,
    servers: Servers,
    insides: Insides,
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
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        let most = (descriptors as usize / 16).clamp(16, MOST_INSIDE);
        Self {
            host,
            port,
            servers: Servers::default(),
            insides: Insides::default(),
            asks: Slab::new(),
            by_question: HashMap::new(),
            deadlines: BTreeSet::new(),
            cache: Cache::default(),
            datagrams: Datagrams::new(most),
            streams: Streams::new(most / 4),
            done: Vec::new(),
            swept: 0,
        }
    }

    /// The servers of a sandbox that is served on `door` are asked from inside of it, until [`Self::leave`].
    pub fn enter(&mut self, door: Arc<UdpSocket>, servers: Arc<[NameServer]>) -> usize {
        let set = self.servers.number();
        self.insides.enter(door, servers, set)
    }

    /// A sandbox is on other networks than before, where the same addresses may be other servers: what was learned does not hold
    /// any more. What is under way goes on.
    pub fn renew(&mut self, inside: usize, servers: Arc<[NameServer]>) {
        let set = self.servers.number();
        self.insides.renew(inside, servers, set);
        let from = Origin::Inside(inside);
        self.servers.forget(from);
        self.datagrams.retire(from);
        self.streams.retire(from);
    }

    /// Closes everything inside of a sandbox; who asked from there is told nothing.
    pub fn leave(&mut self, inside: usize) {
        let from = Origin::Inside(inside);
        let is_its = |a: &Ask| a.server.is_some_and(|s| s.from == from);
        let asks: Vec<usize> = self.asks.iter().filter(|(_, a)| is_its(a)).map(|(at, _)| at).collect();
        for at in asks {
            drop(self.remove(at));
        }
        self.datagrams.close(from);
        self.streams.close(from);
        self.servers.forget(from);
        self.insides.leave(inside);
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
        let Asking { query, inside, way } = asking;
        let set = match inside {
            Some(at) => self.insides.set(at),
            None => self.servers.host(&self.host, now),
        };
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
        let plan = match inside {
            Some(at) => self.servers.plan_inside(at, self.insides.servers(at), self.port, now),
            None => self.servers.plan(self.port, now),
        };
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
    fn send(&mut self, poll: &Poll, at: usize, server: Upstream, now: u64) -> bool {
        self.unschedule(at);
        let ask = &mut self.asks[at];
        // A second try of an old server may be the first that it understands.
        let again = !ask.tries.contains(&server) && ask.begun != now && !ask.question.dnssec();
        ask.edns = !self.servers.is_plain(server, now) && !again;
        let message = write_query(&ask.question, ask.edns);
        let insides = &mut self.insides;
        let sent = if ask.stream {
            self.streams.send(poll, insides, server, message, at, now).map(|(s, id)| Sent::Stream(s, id))
        } else {
            self.datagrams.send(poll, insides, server, message, at, now).map(|(s, id)| Sent::Datagram(s, id))
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
        let askers = self.remove(at).askers;
        self.done.push(Done { askers, answer });
    }

    fn remove(&mut self, at: usize) -> Ask {
        self.unschedule(at);
        let ask = self.asks.remove(at);
        self.by_question.remove(ask.question.bytes());
        ask
    }

    /// Takes what came on a UDP socket.
    pub fn datagrams_ready(&mut self, poll: &Poll, socket: usize, now: u64) {
        let mut buffer = [0; 4096];
        for _ in 0..TURN {
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
