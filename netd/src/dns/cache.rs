//! Upstreams' answers, kept for as long as they may be (RFC 1035, 7.4; RFC 2308), and no longer: what has expired is never
//! given out, even while no server answers.
//!
//! Bounded by entries and by bytes. When it is full, what was not asked for since it was last looked at goes first (the
//! "clock", or second chance).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::wire::{Query, Survey, add_opt};

/// How many answers are kept at most, and how many bytes of them.
const ENTRIES: usize = 4096;
const BYTES: usize = 1 << 20;
/// Milliseconds for which an answer is kept at most, and a "no" or "no data".
const LONGEST: u64 = 3_600_000;
const LONGEST_NO: u64 = 300_000;
/// For how long it is remembered that an answer is too long for UDP.
const TRUNCATED: u64 = 10_000;
/// What an entry costs besides its bytes, about.
const OVERHEAD: usize = 200;

/// An upstream's reply as it is kept: without its OPT record, which is between two neighbours only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    reply: Box<[u8]>,
    ttls: Box<[u16]>,
    question_end: usize,
    code: u16,
    /// TC: the whole answer comes over TCP only.
    pub truncated: bool,
}

impl Answer {
    /// Takes over a reply that was surveyed.
    pub fn of(reply: &[u8], survey: &Survey) -> Self {
        let mut bytes = reply.to_vec();
        let mut ttls = survey.ttls.clone();
        if survey.truncated {
            bytes.truncate(survey.question_end);
            bytes[6..12].fill(0);
            ttls.clear();
        } else if survey.opt.is_none() {
            bytes.truncate(survey.end);
        } else if let Some((start, end)) = survey.opt {
            // Pointers lead backwards: nothing before the record is moved. Records behind it are left out, since pointers in
            // them may lead anywhere; there is nothing but signatures of transactions there (RFC 8945).
            let behind = ttls.iter().filter(|at| usize::from(**at) >= end).count();
            bytes.truncate(start);
            ttls.retain(|at| usize::from(*at) < start);
            let count = u16::from_be_bytes([bytes[10], bytes[11]]).saturating_sub(behind as u16 + 1);
            bytes[10..12].copy_from_slice(&count.to_be_bytes());
        }
        Self {
            reply: bytes.into(),
            ttls: ttls.into(),
            question_end: survey.question_end,
            code: survey.code,
            truncated: survey.truncated,
        }
    }

    /// Writes it as the reply to a query with the same question, `age` milliseconds after it came.
    pub fn write(&self, query: &Query<'_>, age: u64, limit: usize, out: &mut Vec<u8>) {
        let [_, _, flags, more, ..] = *self.reply else { return };
        out.clear();
        out.extend_from_slice(&self.reply);
        // The head of the query has the length of our question; the client's letters may be others.
        out[..self.question_end].copy_from_slice(query.head);
        let authentic = if query.wants_authentic() { more & 0x20 } else { 0 };
        out[2] = 0x80 | query.head[2] & 0x01 | flags & 0x02;
        out[3] = 0x80 | authentic | query.head[3] & 0x10 | self.code as u8 & 0x0f;
        out[4..12].copy_from_slice(&self.reply[4..12]);
        let seconds = u32::try_from(age / 1000).unwrap_or(u32::MAX);
        for at in &self.ttls {
            let at = usize::from(*at);
            let ttl = u32::from_be_bytes([out[at], out[at + 1], out[at + 2], out[at + 3]]);
            out[at..at + 4].copy_from_slice(&ttl.saturating_sub(seconds).to_be_bytes());
        }
        if out.len() + if query.edns.is_some() { super::wire::OPT } else { 0 } > limit {
            out.truncate(self.question_end);
            out[2] |= 0x02;
            out[6..12].fill(0);
        }
        add_opt(query, self.code, out);
    }
}

/// Milliseconds for which a reply may be kept; 0: not at all.
pub fn lifetime(survey: &Survey) -> u64 {
    if survey.truncated {
        return TRUNCATED;
    }
    let yes = survey.code == 0 && survey.answers > 0;
    let seconds = match (survey.code, survey.negative) {
        // "No data" behind an alias has an answer and says with a SOA how long.
        (0, None) if yes => survey.shortest,
        (0 | 3, Some(no)) => survey.shortest.map(|t| t.min(no)),
        _ => None,
    };
    let millis = u64::from(seconds.unwrap_or(0)) * 1000;
    millis.min(if yes { LONGEST } else { LONGEST_NO })
}

#[derive(Debug)]
struct Entry {
    answer: Arc<Answer>,
    stored: u64,
    expires: u64,
    used: bool,
}

/// The cache; times are milliseconds of one clock, which the caller reads.
#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<Box<[u8]>, Entry>,
    order: VecDeque<Box<[u8]>>,
    bytes: usize,
}

impl Cache {
    /// The answer to a question, and its age.
    pub fn get(&mut self, question: &[u8], now: u64) -> Option<(&Arc<Answer>, u64)> {
        let entry = self.entries.get_mut(question).filter(|e| now < e.expires)?;
        entry.used = true;
        Some((&entry.answer, now.saturating_sub(entry.stored)))
    }

    /// Keeps an answer for `lifetime` milliseconds.
    pub fn put(&mut self, question: &[u8], answer: Arc<Answer>, lifetime: u64, now: u64) {
        if lifetime == 0 {
            return;
        }
        let cost = size(question, &answer);
        let entry = Entry { answer, stored: now, expires: now + lifetime, used: false };
        self.bytes += cost;
        match self.entries.insert(question.into(), entry) {
            Some(former) => self.bytes -= size(question, &former.answer),
            None => self.order.push_back(question.into()),
        }
        while self.entries.len() > ENTRIES || self.bytes > BYTES {
            self.evict(now);
        }
    }

    fn evict(&mut self, now: u64) {
        let Some(question) = self.order.pop_front() else { return };
        match self.entries.get_mut(&question) {
            Some(entry) if entry.used && now < entry.expires => {
                entry.used = false;
                self.order.push_back(question);
            }
            _ => {
                if let Some(entry) = self.entries.remove(&question) {
                    self.bytes -= size(&question, &entry.answer);
                }
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

fn size(question: &[u8], answer: &Answer) -> usize {
    OVERHEAD + 2 * question.len() + answer.reply.len() + 2 * answer.ttls.len()
}

#[cfg(test)]
mod tests;
