//! What a reply of an upstream is worth: an answer, another try, or nothing.

use std::sync::Arc;

use super::{Done, Forwarder};
use crate::dns::answer::Way;
use crate::dns::cache::{Answer, lifetime};
use crate::dns::poll::Poll;
use crate::dns::wire::{HEADER, Survey, question_end, survey};

impl Forwarder {
    /// Judges a reply that came for an ask.
    pub(super) fn reply(&mut self, poll: &Poll, at: usize, reply: &[u8], now: u64) {
        let Some(ask) = self.asks.get_mut(at) else { return };
        let Some(server) = ask.server else { return };
        let Some(survey) = survey(reply) else { return self.unreadable(poll, at, reply, now) };
        if !ask.question.is_in(&reply[HEADER..survey.question_end]) {
            return;
        }
        self.servers.answered(server);
        // An old server does not know EDNS (RFC 6891, 7).
        if ask.edns && matches!(survey.code, 1 | 4 | 16) {
            self.servers.learn_plain(server, now);
            ask.tries.push(server);
            return self.next_server(poll, at, now);
        }
        let answer = Arc::new(Answer::of(reply, &survey));
        if !matches!(survey.code, 0 | 3) {
            // Another may know better; this one will not.
            ask.tries.retain(|s| *s != server);
            ask.failure = Some(answer);
            return self.next_server(poll, at, now);
        }
        self.keep(at, &answer, &survey, now);
        if survey.truncated && !self.asks[at].stream {
            return self.truncated(poll, at, &answer, now);
        }
        self.end(at, Ok(answer));
    }

    /// A reply to our question that makes no sense is as good as silence, and known at once.
    fn unreadable(&mut self, poll: &Poll, at: usize, reply: &[u8], now: u64) {
        let is_ours = |end: usize| self.asks[at].question.is_in(&reply[HEADER..end]);
        if question_end(reply).is_some_and(is_ours) {
            self.server_failed(poll, at, now, "sends what cannot be read");
        }
    }

    fn keep(&mut self, at: usize, answer: &Arc<Answer>, survey: &Survey, now: u64) {
        self.cache.put(self.asks[at].question.bytes(), answer.clone(), lifetime(survey), now);
    }

    /// UDP clients are told that there is more, and come back over TCP; those who did get the whole.
    fn truncated(&mut self, poll: &Poll, at: usize, answer: &Arc<Answer>, now: u64) {
        let ask = &mut self.asks[at];
        let (udp, tcp): (Vec<_>, Vec<_>) =
            std::mem::take(&mut ask.askers).into_iter().partition(|a| a.way() == Way::Udp);
        if tcp.is_empty() {
            ask.askers = udp;
            return self.end(at, Ok(answer.clone()));
        }
        ask.askers = tcp;
        ask.stream = true;
        ask.tries.extend(ask.server);
        self.done.push(Done { askers: udp, answer: Ok(answer.clone()) });
        self.next_server(poll, at, now);
    }
}
