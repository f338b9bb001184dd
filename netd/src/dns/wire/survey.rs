//! An upstream's reply, walked: what a cache must know of it. Data of records is not looked at, but for a SOA's.

use std::net::IpAddr;

use super::{HEADER, kind, word};

/// A record's fixed fields and where it ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub kind: u16,
    pub class: u16,
    pub ttl: u32,
    /// Where its time to live is.
    pub ttl_at: usize,
    pub end: usize,
}

/// What a reply is like.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// Where the question ends.
    pub question_end: usize,
    /// Places of the times to live.
    pub ttls: Vec<u16>,
    /// The shortest of them.
    pub shortest: Option<u32>,
    /// How long "no" may be kept, when the reply says so: the least of the SOA's own time and its last field (RFC 2308, 5).
    pub negative: Option<u32>,
    /// How many records answer.
    pub answers: u16,
    /// Where the OPT record begins and ends.
    pub opt: Option<(usize, usize)>,
    /// The whole code: the header's, and what OPT adds to it.
    pub code: u16,
    /// Where the last record ends; what follows is nothing.
    pub end: usize,
    /// TC: there is more.
    pub truncated: bool,
}

/// Walks a reply with one question; `None` when it is no such thing.
pub fn survey(reply: &[u8]) -> Option<Survey> {
    let question_end = question_end(reply)?;
    let mut found = Survey {
        question_end,
        answers: word(reply, 6)?,
        code: (reply[3] & 0x0f).into(),
        truncated: reply[2] & 0x02 != 0,
        ..Survey::default()
    };
    let mut at = question_end;
    let counts = [word(reply, 6)?, word(reply, 8)?, word(reply, 10)?];
    let [before, additional] = [u32::from(counts[0]) + u32::from(counts[1]), counts[2].into()];
    for index in 0..before + additional {
        // What was cut may end in the middle of a record.
        let record = match record(reply, at) {
            Some(record) => record,
            None if found.truncated => break,
            None => return None,
        };
        if record.kind == kind::OPT {
            // One at most, of the root, behind all answers (RFC 6891, 6.1.1).
            if index < before || reply[at] != 0 || found.opt.is_some() {
                return None;
            }
            found.opt = Some((at, record.end));
            found.code |= (record.ttl >> 20) as u16 & 0x0ff0;
        } else {
            found.ttls.push(u16::try_from(record.ttl_at).ok()?);
            // The sign bit is read as zero (RFC 2181, 8).
            let ttl = if record.ttl >> 31 == 0 { record.ttl } else { 0 };
            found.shortest = Some(found.shortest.map_or(ttl, |t| t.min(ttl)));
            if record.kind == kind::SOA {
                let last = reply.get(record.end - 4..record.end).map_or(0, number);
                found.negative = Some(ttl.min(last));
            }
        }
        at = record.end;
    }
    found.end = at;
    Some(found)
}

/// Where the one question of a reply ends, also of one that cannot be read further.
pub fn question_end(reply: &[u8]) -> Option<usize> {
    if reply.len() < HEADER || reply[2] & 0x80 == 0 || word(reply, 4)? != 1 {
        return None;
    }
    name_end(reply, HEADER).map(|end| end + 4).filter(|end| *end <= reply.len())
}

/// The addresses among a reply's answers, also of a name that the asked one is an alias of.
pub fn addresses(reply: &[u8]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let Some(survey) = survey(reply) else { return found };
    let mut at = survey.question_end;
    for _ in 0..survey.answers {
        let Some(record) = record(reply, at) else { break };
        let data = &reply[record.ttl_at + 6..record.end];
        match record.kind {
            kind::A => found.extend(<[u8; 4]>::try_from(data).ok().map(IpAddr::from)),
            kind::AAAA => found.extend(<[u8; 16]>::try_from(data).ok().map(IpAddr::from)),
            _ => {}
        }
        at = record.end;
    }
    found
}

/// Reads the record at a place.
pub(super) fn record(message: &[u8], at: usize) -> Option<Record> {
    let fixed = name_end(message, at)?;
    let fields = message.get(fixed..fixed + 10)?;
    let len = usize::from(u16::from_be_bytes([fields[8], fields[9]]));
    let end = fixed + 10 + len;
    (end <= message.len()).then(|| Record {
        kind: u16::from_be_bytes([fields[0], fields[1]]),
        class: u16::from_be_bytes([fields[2], fields[3]]),
        ttl: number(&fields[4..8]),
        ttl_at: fixed + 4,
        end,
    })
}

/// Where a name ends in which pointers may be.
fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 1),
            n if n < 64 => at += n + 1,
            n if n >= 0xc0 => return Some(at + 2),
            _ => return None,
        }
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reply to a question of the root, with these counts and records.
    fn reply(counts: [u8; 3], records: &[&[u8]]) -> Vec<u8> {
        let [an, ns, ar] = counts;
        let head = [0xab, 0xcd, 0x81, 0x80, 0, 1, 0, an, 0, ns, 0, ar, 0, 0, 2, 0, 1];
        [&head[..], &records.concat()].concat()
    }

    #[test]
    fn an_opt_record_is_one_of_the_root_behind_all_answers() {
        let opt: &[u8] = &[0, 0, 41, 4, 0xd0, 0, 0, 0x80, 0, 0, 0];
        let named: &[u8] = &[1, b'a', 0, 0, 41, 4, 0xd0, 0, 0, 0x80, 0, 0, 0];
        assert!(survey(&reply([0, 0, 1], &[opt])).is_some_and(|s| s.opt.is_some()));
        assert_eq!(survey(&reply([1, 0, 0], &[opt])), None);
        assert_eq!(survey(&reply([0, 1, 0], &[opt])), None);
        assert_eq!(survey(&reply([0, 0, 1], &[named])), None);
        assert_eq!(survey(&reply([0, 0, 2], &[opt, opt])), None);
    }
}
