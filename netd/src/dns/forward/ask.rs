//! One question under way.

use std::sync::Arc;

use super::asker::{Asked, Asker};
use super::inside::Upstream;
use super::message::Question;
use super::servers::Plan;
use crate::dns::cache::Answer;

/// Askers of one ask.
const ASKERS: usize = 256;

/// How an ask was sent last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Nowhere,
    Datagram(usize, u16),
    Stream(usize, u16),
}

#[derive(Debug)]
pub(super) struct Ask {
    pub question: Question,
    pub askers: Vec<Asker>,
    /// Servers that are still to be tried, the next one last.
    pub tries: Vec<Upstream>,
    pub patience: u64,
    pub server: Option<Upstream>,
    pub sent: Sent,
    /// Whether the server was told that we speak EDNS.
    pub edns: bool,
    /// Over TCP, since the answer is too long for UDP.
    pub stream: bool,
    /// A server's failure, which is told when none succeeds.
    pub failure: Option<Arc<Answer>>,
    pub begun: u64,
    pub deadline: u64,
}

impl Ask {
    pub fn new(question: &Question, asker: Asker, plan: Plan, stream: bool, now: u64) -> Self {
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
    pub fn join(&mut self, asker: Asker) -> Asked {
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
