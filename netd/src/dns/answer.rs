//! Answers: a query's bytes in, a reply's bytes out, or the word that an upstream must be asked. Nothing here waits.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::services;
use super::wire::{Code, Query, Read, Reply, arpa, class, kind, labels, refuse};
use super::zone::{Member, Tables, View};

/// Seconds that an answer may be kept. Containers come and go; a client that caches must not outlive them by much.
/// "No" has no time at all (no SOA goes with it), so that nobody keeps it (RFC 2308, 5).
pub const TTL: u32 = 5;

/// What to do with a query.
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack for one query; a box would allocate for each"
)]
#[derive(Debug)]
pub enum Outcome<'a> {
    /// Send what was written.
    Reply,
    /// Ask upstream.
    Forward(Query<'a>),
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

impl Way {
    /// The longest reply to a query that came this way.
    pub fn limit(self, query: &Query<'_>) -> usize {
        match self {
            Self::Udp => query.limit(),
            Self::Tcp => usize::from(u16::MAX),
        }
    }
}

/// Answers a query of a sandbox into `out`. `turn` differs from call to call: of several addresses another is the first each
/// time, since clients take the first.
pub fn answer<'q>(
    message: &'q [u8],
    tables: &Tables,
    view: &View,
    way: Way,
    turn: usize,
    out: &mut Vec<u8>,
) -> Outcome<'q> {
    let query = match Query::read(message) {
        Read::Query(query) => query,
        Read::Refuse(code) => {
            refuse(message, code, out);
            return Outcome::Reply;
        }
        Read::Ignore => return Outcome::Ignore,
    };
    if let Some(code) = refusal(&query) {
        fail(&query, code, out);
        return Outcome::Reply;
    }
    if !own(&query, tables, view, way, turn, out) && !loopback(&query, way, out) {
        if view.outside {
            return Outcome::Forward(query);
        }
        // Between two networks nobody knows what it will see: no program should take that for good.
        fail(&query, if view.is_connected() { Code::NxDomain } else { Code::ServFail }, out);
    }
    Outcome::Reply
}

/// Writes a reply without records.
pub fn fail(query: &Query<'_>, code: Code, out: &mut Vec<u8>) {
    Reply::to(query, code, out).finish(usize::from(u16::MAX));
}

fn refusal(query: &Query<'_>) -> Option<Code> {
    if query.edns.is_some_and(|e| e.version != 0) {
        return Some(Code::BadVers);
    }
    let transfer = matches!(query.kind, kind::AXFR | kind::IXFR);
    let foreign = !matches!(query.class, class::IN | class::ANY);
    (transfer || foreign || query.kind == kind::OPT).then_some(Code::Refused)
}

/// Answers what we know ourselves; false when the name is not ours.
fn own(query: &Query<'_>, tables: &Tables, view: &View, way: Way, turn: usize, out: &mut Vec<u8>) -> bool {
    let limit = way.limit(query);
    let members = tables.resolve(view, &query.name);
    if !members.is_empty() {
        let mut reply = Reply::to(query, Code::NoError, out);
        for member in turned(members, turn) {
            // A known name without a record of the wanted type gives none: "no data", not "no such name".
            for ip in member.addresses().filter(|ip| wants(query.kind, *ip)) {
                reply.address(ip, TTL);
            }
        }
        reply.finish(limit);
        return true;
    }
    if let Some(ip) = arpa(&query.name) {
        return reverse(query, ip, tables, view, limit, out);
    }
    service(query, tables, view, turn, limit, out)
}

/// `localhost` and what is below it are here, and nobody else is asked (RFC 6761, 6.3).
fn loopback(query: &Query<'_>, way: Way, out: &mut Vec<u8>) -> bool {
    if labels(&query.name).last() != Some(b"localhost") {
        return false;
    }
    let mut reply = Reply::to(query, Code::NoError, out);
    let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    for ip in addresses.into_iter().filter(|ip| wants(query.kind, *ip)) {
        reply.address(ip, TTL);
    }
    reply.finish(way.limit(query));
    true
}

fn wants(kind: u16, ip: IpAddr) -> bool {
    match kind {
        kind::ANY => true,
        kind::A => ip.is_ipv4(),
        kind::AAAA => ip.is_ipv6(),
        _ => false,
    }
}

fn turned(members: &[Member], turn: usize) -> impl Iterator<Item = &Member> {
    let first = if members.len() > 1 { turn % members.len() } else { 0 };
    members[first..].iter().chain(&members[..first])
}

fn reverse(
    query: &Query<'_>,
    ip: IpAddr,
    tables: &Tables,
    view: &View,
    limit: usize,
    out: &mut Vec<u8>,
) -> bool {
    let Some(zone) = tables.zones_of(view).find(|z| z.contains(ip)) else { return false };
    let name = zone.name_of(ip);
    let code = if name.is_some() { Code::NoError } else { Code::NxDomain };
    let mut reply = Reply::to(query, code, out);
    if let Some(name) = name.filter(|_| matches!(query.kind, kind::PTR | kind::ANY)) {
        reply.pointer(name, TTL);
    }
    reply.finish(limit);
    true
}

/// `_http._tcp.web`: who of those called `web` publishes that port. There is no such name when nobody does.
fn service(
    query: &Query<'_>,
    tables: &Tables,
    view: &View,
    turn: usize,
    limit: usize,
    out: &mut Vec<u8>,
) -> bool {
    let Some(asked) = services::asked(&query.name) else { return false };
    let members = tables.resolve(view, asked.host);
    if members.is_empty() {
        return false;
    }
    let offers = |m: &&Member| asked.service.is_some_and(|s| m.identity.services.contains(&s));
    let offering: Vec<&Member> = turned(members, turn).filter(offers).collect();
    let code = if offering.is_empty() { Code::NxDomain } else { Code::NoError };
    let mut reply = Reply::to(query, code, out);
    if let Some(service) = asked.service.filter(|_| matches!(query.kind, kind::SRV | kind::ANY)) {
        for member in &offering {
            reply.service(service.port, &member.identity.name, TTL);
        }
        for member in &offering {
            for ip in member.addresses() {
                reply.extra_address(&member.identity.name, ip, TTL);
            }
        }
    }
    reply.finish(limit);
    true
}

#[cfg(test)]
mod tests;
