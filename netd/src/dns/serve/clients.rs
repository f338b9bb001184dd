//! TCP clients.

use std::io;

use super::{Serving, WAITING, asker_of};
use crate::dns::answer::{Outcome, Way, answer, fail};
use crate::dns::client::Client;
use crate::dns::forward::{Asked, Asking, To};
use crate::dns::poll::{Interest, Source};
use crate::dns::wire::Code;

/// TCP connections of one sandbox.
const CONNECTIONS: usize = 16;
/// Milliseconds for which a client may be silent.
const IDLE: u64 = 10_000;

impl Serving {
    /// Takes new connections. A sandbox that has too many loses the one that was silent for longest.
    pub(super) fn accept(&mut self, at: usize, now: u64) {
        loop {
            let Some(server) = self.servers.get_mut(at) else { return };
            let stream = match server.tcp.accept() {
                Ok((stream, _)) => stream,
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) =>
                {
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // Out of descriptors, most likely: the listener rests until connections were swept.
                Err(error) => {
                    tracing::debug!(container.id = %server.sandbox, %error, "a DNS connection is not taken");
                    let _ = self.poll.modify(&server.tcp, Source::Listener(at), Interest::Nothing);
                    self.resting.push((at, server.serial));
                    return;
                }
            };
            let place = self.clients.vacant_key();
            let ready = stream.set_nonblocking(true).and_then(|()| {
                stream.set_nodelay(true)?;
                self.poll.add(&stream, Source::Client(place), Interest::Read)
            });
            if ready.is_err() {
                continue;
            }
            let full = server.clients.len() >= CONNECTIONS;
            let silent = server.clients.iter().copied().min_by_key(|c| self.clients[*c].active);
            self.serial += 1;
            server.clients.push(place);
            self.clients.insert(Client::new(stream, at, self.serial, now));
            if let Some(silent) = silent.filter(|_| full) {
                self.close_client(silent);
            }
        }
    }

    pub(super) fn close_client(&mut self, at: usize) {
        let client = self.clients.remove(at);
        if let Some(server) = self.servers.get_mut(client.server) {
            server.clients.retain(|c| *c != at);
        }
    }

    /// Reads and answers what a client asks.
    pub(super) fn client(&mut self, at: usize, now: u64) {
        let Some(client) = self.clients.get_mut(at) else { return };
        client.active = now;
        let gone = client.read().and_then(|()| self.converse(at, now)).is_err();
        if gone && self.clients.contains(at) {
            self.close_client(at);
        }
    }

    /// Answers what a client asked, as far as it takes the answers; the rest when it has taken them.
    fn converse(&mut self, at: usize, now: u64) -> io::Result<()> {
        loop {
            self.answer_client(at, now)?;
            let Some(client) = self.clients.get(at) else { return Ok(()) };
            let full = client.is_full();
            self.flush(at)?;
            // It took at once what it was full of: its other queries are here already, and nothing more may come to tell.
            if !full || self.clients[at].is_full() {
                return Ok(());
            }
        }
    }

    fn answer_client(&mut self, at: usize, now: u64) -> io::Result<()> {
        self.apply_changes();
        let Some(client) = self.clients.get_mut(at) else { return Ok(()) };
        let place = client.server;
        let server = self.servers.get_mut(place).ok_or(io::ErrorKind::NotConnected)?;
        let view = server.view.and_then(|v| self.tables.view(v)).ok_or(io::ErrorKind::NotConnected)?;
        let mut message = std::mem::take(&mut self.message);
        while client.next_query(&mut message)? {
            self.turn = self.turn.wrapping_add(1);
            let out = &mut self.reply;
            match answer(&message, &self.tables, view, Way::Tcp, self.turn, out) {
                Outcome::Reply => client.reply(out),
                Outcome::Ignore => return Err(io::ErrorKind::InvalidData.into()),
                Outcome::Forward(query) if server.waiting >= WAITING => {
                    fail(&query, Code::ServFail, out);
                    client.reply(out);
                }
                Outcome::Forward(query) => {
                    let to = To::Client(at, client.serial);
                    let asking = Asking { query: &query, inside: server.inside, way: Way::Tcp };
                    let asker = || asker_of(&query, (place, server.serial), to);
                    match self.forwarder.ask(&self.poll, asking, now, out, asker) {
                        Asked::Reply => client.reply(out),
                        Asked::Later => {
                            server.waiting += 1;
                            client.waiting += 1;
                        }
                        Asked::Twice => {}
                    }
                }
            }
        }
        self.message = message;
        Ok(())
    }

    fn flush(&mut self, at: usize) -> io::Result<()> {
        let client = &mut self.clients[at];
        if let Some(interest) = client.write()? {
            self.poll.modify(&client.stream, Source::Client(at), interest)?;
        }
        Ok(())
    }

    /// Sends what is in `reply` to a client that waited for it.
    pub(super) fn reply_later(&mut self, at: usize, serial: u64) {
        let Some(client) = self.clients.get_mut(at).filter(|c| c.serial == serial) else { return };
        client.waiting = client.waiting.saturating_sub(1);
        client.reply(&self.reply);
        let hopeless = client.is_hopeless();
        // When it takes all that it was full of, its other queries go on from here.
        let now = self.now();
        if (hopeless || self.converse(at, now).is_err()) && self.clients.contains(at) {
            self.close_client(at);
        }
    }

    /// Closes connections that were silent for too long, once a second.
    pub(super) fn sweep_clients(&mut self, now: u64) {
        if now < self.swept + 1000 {
            return;
        }
        self.swept = now;
        let silent = |c: &Client| c.waiting == 0 && c.active + IDLE <= now;
        let silent: Vec<_> = self.clients.iter().filter(|(_, c)| silent(c)).map(|(at, _)| at).collect();
        for at in silent {
            self.close_client(at);
        }
        for (at, serial) in std::mem::take(&mut self.resting) {
            if let Some(server) = self.servers.get(at).filter(|s| s.serial == serial) {
                let _ = self.poll.modify(&server.tcp, Source::Listener(at), Interest::Read);
            }
        }
    }
}
