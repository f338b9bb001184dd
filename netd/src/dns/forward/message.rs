//! Questions as upstreams are asked them.

use crate::dns::wire::{EDNS, Query, kind};

const NAME: usize = 9;
/// The longest: a name's key after the fields.
const LONGEST: usize = NAME + 254;
const DNSSEC: u8 = 1;
const CHECKING_DISABLED: u8 = 2;

/// What makes two questions equal: the servers that are asked, flags, type, class, name. On the stack, so that looking for one
/// allocates nothing.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    len: u16,
    bytes: [u8; LONGEST],
}

impl Question {
    /// Of a query that is for a set of servers.
    pub fn of(set: u32, query: &Query<'_>) -> Self {
        let dnssec = if query.edns.is_some_and(|e| e.dnssec) { DNSSEC } else { 0 };
        let unchecked = if query.checking_disabled() { CHECKING_DISABLED } else { 0 };
        let mut bytes = [0; LONGEST];
        let len = NAME + query.name.len();
        bytes[..4].copy_from_slice(&set.to_be_bytes());
        bytes[4] = dnssec | unchecked;
        bytes[5..7].copy_from_slice(&query.kind.to_be_bytes());
        bytes[7..NAME].copy_from_slice(&query.class.to_be_bytes());
        bytes[NAME..len].copy_from_slice(&query.name);
        Self { len: len as u16, bytes }
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn name(&self) -> &[u8] {
        &self.bytes()[NAME..]
    }

    /// Type and class, as they are on the wire.
    fn fields(&self) -> &[u8] {
        &self.bytes[5..NAME]
    }

    /// Whether records of DNSSEC are wanted.
    pub fn dnssec(&self) -> bool {
        self.bytes[4] & DNSSEC != 0
    }

    /// Whether a message's question is this one, whatever its letters.
    pub fn is_in(&self, question: &[u8]) -> bool {
        let (name, fields) = (self.name(), self.fields());
        question.len() == name.len() + 5
            && question[..name.len()].eq_ignore_ascii_case(name)
            && question[name.len()] == 0
            && question[name.len() + 1..] == *fields
    }
}

/// A query, without its id.
pub fn write_query(question: &Question, edns: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + question.bytes().len() + 16);
    let unchecked = if question.bytes[4] & CHECKING_DISABLED != 0 { 0x10 } else { 0 };
    // RD; and AD, so that the answer is right for those too who want to know whether it was checked (RFC 6840, 5.7).
    out.extend([0, 0, 0x01, 0x20 | unchecked, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
    out.extend(question.name());
    out.push(0);
    out.extend(question.fields());
    if edns {
        let dnssec = if question.dnssec() { 0x80 } else { 0 };
        let [kind, size] = [kind::OPT, EDNS].map(u16::to_be_bytes);
        out.extend([0, kind[0], kind[1], size[0], size[1], 0, 0, dnssec, 0, 0, 0]);
    }
    out
}
