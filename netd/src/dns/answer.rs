//! Answers: a query's bytes in, a reply's bytes out, or the word that an upstream must be asked. Nothing here waits.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::zone::{Member, Snapshot, View};

/// Seconds that an answer may be kept. Containers come and go; a client that caches must not outlive them by much.
const TTL: u32 = 5;
/// The largest UDP reply to a client that does not say more (RFC 1035), and what we say ourselves (RFC 6891, flag day).
const PLAIN: u16 = 512;
const EDNS: u16 = 1232;

/// What to do with a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Send this.
    Reply(Vec<u8>),
    /// Ask upstream; on failure send the reply that is here.
    Forward {
        /// Servers to ask; empty: the host's.
        servers: Vec<IpAddr>,
        /// Says "failed" or, where no server is known, "no such name".
        failure: Vec<u8>,
        /// Says "no such name": for when there is nobody to ask and the name has one label.
        nobody: Vec<u8>,
    },
    /// Not a question.
    Ignore,
}

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Replies are cut to what the client takes.
    Udp,
    /// Replies may be long.
    Tcp,
}

/// Answers a query of a sandbox.
pub fn answer(query: &[u8], snapshot: &Snapshot, sandbox: &str, way: Way) -> Outcome {
    let Ok(message) = Message::from_vec(query) else { return garbage(query) };
    if message.metadata.message_type == MessageType::Response {
        return Outcome::Ignore;
    }
    let fail = |code| finish(&message, code, Vec::new(), way);
    if message.metadata.op_code != OpCode::Query {
        return Outcome::Reply(fail(ResponseCode::NotImp));
    }
    let [question] = message.queries.as_slice() else {
        return Outcome::Reply(fail(ResponseCode::FormErr));
    };
    let Some(view) = snapshot.views.get(sandbox) else { return Outcome::Reply(fail(ResponseCode::ServFail)) };
    if question.query_class() == DNSClass::IN
        && let Some((code, records)) = own(snapshot, view, question.name(), question.query_type())
    {
        return Outcome::Reply(finish(&message, code, records, way));
    }
    if !view.outside {
        return Outcome::Reply(fail(ResponseCode::NXDomain));
    }
    let single = question.name().num_labels() <= 1;
    Outcome::Forward {
        servers: view.servers.clone(),
        failure: fail(ResponseCode::ServFail),
        nobody: fail(if single { ResponseCode::NXDomain } else { ResponseCode::ServFail }),
    }
}

/// What we know ourselves of a name; `None` when it is not ours.
fn own(
    snapshot: &Snapshot,
    view: &View,
    name: &Name,
    kind: RecordType,
) -> Option<(ResponseCode, Vec<Record>)> {
    if kind == RecordType::PTR
        && let Ok(net) = name.parse_arpa_name()
        && net.prefix_len() == net.max_prefix_len()
    {
        return reverse(snapshot, view, name, net.addr());
    }
    let mut text = name.to_lowercase().to_ascii();
    if text.ends_with('.') {
        text.pop();
    }
    let members = snapshot.resolve(view, &text);
    if members.is_empty() {
        return None;
    }
    Some((ResponseCode::NoError, records(name, kind, &members)))
}

fn reverse(snapshot: &Snapshot, view: &View, name: &Name, ip: IpAddr) -> Option<(ResponseCode, Vec<Record>)> {
    let zone = snapshot.zones_of(view).find(|z| z.subnets.iter().any(|s| s.contains(&ip)))?;
    let target = zone.name_of(ip).and_then(|text| Name::from_ascii(format!("{text}.")).ok());
    Some(match target {
        Some(target) => {
            let record = Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(target)));
            (ResponseCode::NoError, vec![record])
        }
        None => (ResponseCode::NXDomain, Vec::new()),
    })
}

/// A known name without a record of the wanted type gives none: "no data", not "no such name".
fn records(name: &Name, kind: RecordType, members: &[Member]) -> Vec<Record> {
    let mut found = Vec::new();
    for member in members {
        if matches!(kind, RecordType::A | RecordType::ANY) {
            found.extend(member.ipv4.map(|ip| RData::A(A(ip))));
        }
        if matches!(kind, RecordType::AAAA | RecordType::ANY) {
            found.extend(member.ipv6.map(|ip| RData::AAAA(AAAA(ip))));
        }
    }
    // Clients take the first: turning the list spreads them.
    if found.len() > 1 {
        let first = usize::from(rand::random::<u16>()) % found.len();
        found.rotate_left(first);
    }
    found.into_iter().map(|data| Record::from_rdata(name.clone(), TTL, data)).collect()
}

fn finish(query: &Message, code: ResponseCode, records: Vec<Record>, way: Way) -> Vec<u8> {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply.add_queries(query.queries.iter().cloned());
    reply.add_answers(records);
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(EDNS);
        reply.set_edns(edns);
    }
    let bytes = reply.to_vec().unwrap_or_default();
    let limit = query.edns.as_ref().map_or(PLAIN, |e| e.max_payload().max(PLAIN));
    if way == Way::Udp && bytes.len() > usize::from(limit) {
        return reply.truncate().to_vec().unwrap_or_default();
    }
    bytes
}

/// What cannot be read but has an id is told so (RFC 1035, 4.1.1: format error).
fn garbage(query: &[u8]) -> Outcome {
    match query {
        [a, b, flags, ..] if query.len() >= 12 && flags & 0x80 == 0 => {
            let id = u16::from_be_bytes([*a, *b]);
            let reply = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
            reply.to_vec().map_or(Outcome::Ignore, Outcome::Reply)
        }
        _ => Outcome::Ignore,
    }
}

#[cfg(test)]
mod tests;
