//! DNS messages as bytes (RFC 1035, RFC 6891): a query read without allocating, a reply written into a buffer, an
//! upstream's reply walked. Everything here is pure.
//!
//! Names are compared in one form, the *key*: labels in lower case as they are on the wire, each after its length,
//! without the root's zero at the end. `db.my-bridge` is `\x02db\x09my-bridge`.

mod name;
mod reply;
mod survey;

pub use name::{Key, Name, arpa, key, labels, text};
pub use reply::Reply;
pub(super) use reply::add_opt;
pub use survey::{Survey, addresses, question_end, survey};

/// The header's length.
pub const HEADER: usize = 12;
/// The largest UDP reply to a client that does not say more (RFC 1035, 4.2.1).
pub const PLAIN: u16 = 512;
/// The largest UDP message that we take and send: what passes everywhere in one piece (the flag day of 2020).
pub const EDNS: u16 = 1232;

/// The length of our OPT record.
pub(super) const OPT: usize = 11;

/// Types of records.
pub mod kind {
    #![allow(missing_docs, reason = "each is called as in RFC 1035 and its followers")]
    pub const A: u16 = 1;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
}

/// Classes of records.
pub mod class {
    #![allow(missing_docs, reason = "each is called as in RFC 1035")]
    pub const IN: u16 = 1;
    pub const ANY: u16 = 255;
}

/// What a reply says of how it went (RFC 1035, 4.1.1; 16 needs EDNS).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Code {
    /// There is an answer, maybe an empty one.
    NoError = 0,
    /// The question cannot be read.
    FormErr = 1,
    /// The answer could not be found out.
    ServFail = 2,
    /// There is no such name.
    NxDomain = 3,
    /// Not a kind of question that is answered here.
    NotImp = 4,
    /// A question that is not answered here.
    Refused = 5,
    /// An unknown version of EDNS.
    BadVers = 16,
}

/// What a client says of itself in an OPT record (RFC 6891, 6.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// The largest UDP message that it takes.
    pub payload: u16,
    /// Its version.
    pub version: u8,
    /// DO: it wants DNSSEC's records.
    pub dnssec: bool,
}

/// A query with one question.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Header and question as they came: the rest is not here.
    pub head: &'a [u8],
    /// The question's name.
    pub name: Name,
    /// Its type.
    pub kind: u16,
    /// Its class.
    pub class: u16,
    /// Present when the client speaks EDNS.
    pub edns: Option<Edns>,
}

/// A message, looked at.
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack for one query; a box would allocate for each"
)]
#[derive(Debug, Clone, Copy)]
pub enum Read<'a> {
    /// A query.
    Query(Query<'a>),
    /// Something that asks and cannot be answered: a reply is due with this code and no question.
    Refuse(Code),
    /// No reply is due.
    Ignore,
}

impl<'a> Query<'a> {
    /// Reads a message.
    pub fn read(message: &'a [u8]) -> Read<'a> {
        // A reply that is answered would be answered again, for ever.
        if message.len() < HEADER || message[2] & 0x80 != 0 {
            return Read::Ignore;
        }
        if message[2] & 0x78 != 0 {
            return Read::Refuse(Code::NotImp);
        }
        Self::question(message).map_or(Read::Refuse(Code::FormErr), Read::Query)
    }

    fn question(message: &'a [u8]) -> Option<Self> {
        let count = |at| word(message, at);
        if count(4)? != 1 {
            return None;
        }
        let (name, end) = Name::read(message, HEADER)?;
        let (kind, class) = (word(message, end)?, word(message, end + 2)?);
        let mut at = end + 4;
        for _ in 0..u32::from(count(6)?) + u32::from(count(8)?) {
            at = survey::record(message, at)?.end;
        }
        let mut edns = None;
        for _ in 0..count(10)? {
            let record = survey::record(message, at)?;
            if record.kind == kind::OPT {
                // A second one is an error, and so is one that is not the root's (RFC 6891, 6.1.1).
                if edns.is_some() || message[at] != 0 {
                    return None;
                }
                let [_, version, flags, _] = record.ttl.to_be_bytes();
                edns = Some(Edns { payload: record.class, version, dnssec: flags & 0x80 != 0 });
            }
            at = record.end;
        }
        Some(Self { head: &message[..end + 4], name, kind, class, edns })
    }

    /// What the client chose to tell its questions apart.
    pub fn id(&self) -> [u8; 2] {
        [self.head[0], self.head[1]]
    }

    /// CD: the client checks signatures itself (RFC 4035, 3.2.2).
    pub fn checking_disabled(&self) -> bool {
        self.head[3] & 0x10 != 0
    }

    /// Whether the client wants to know that signatures were checked (RFC 6840, 5.7).
    pub fn wants_authentic(&self) -> bool {
        self.head[3] & 0x20 != 0 || self.edns.is_some_and(|e| e.dnssec)
    }

    /// The largest reply over UDP.
    pub fn limit(&self) -> usize {
        self.edns.map_or(PLAIN, |e| e.payload.clamp(PLAIN, EDNS)).into()
    }
}

/// Writes the reply to a message that is no readable query: a header with a code.
pub fn refuse(message: &[u8], code: Code, out: &mut Vec<u8>) {
    out.clear();
    out.extend([message[0], message[1], 0x80 | message[2] & 0x79, 0x80 | code as u8]);
    out.resize(HEADER, 0);
}

/// A number of two bytes.
pub(super) fn word(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

#[cfg(test)]
mod tests;
