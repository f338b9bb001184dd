//! Who asks, and what becomes of it.

use std::net::SocketAddrV4;
use std::sync::Arc;

use crate::dns::answer::Way;
use crate::dns::cache::Answer;
use crate::dns::wire::{self, Code, Edns, Name, Query};

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
        let (name, end) = Name::read(&self.head, wire::HEADER)?;
        let word = |at| wire::word(&self.head, at);
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
    /// Whose servers are to be asked, from inside of it; the host's when absent.
    pub inside: Option<usize>,
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
