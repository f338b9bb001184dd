//! A reply as it is written.

use std::net::IpAddr;

use super::{Code, EDNS, HEADER, OPT, Query, class, kind};

/// Points at the question's name.
const QUESTION: [u8; 2] = [0xc0, HEADER as u8];

/// A reply under way: header and question stand, records follow, [`Reply::finish`] ends it.
#[derive(Debug)]
pub struct Reply<'o, 'q> {
    out: &'o mut Vec<u8>,
    query: &'q Query<'q>,
    code: Code,
    /// Where the records begin that may be left out.
    extra: Option<usize>,
    answers: u16,
    additional: u16,
}

impl<'o, 'q> Reply<'o, 'q> {
    /// Begins a reply in an empty buffer, with the question as the client wrote it, in its letters.
    pub fn to(query: &'q Query<'q>, code: Code, out: &'o mut Vec<u8>) -> Self {
        out.clear();
        out.extend_from_slice(query.head);
        // QR and RA are ours, RD and CD the client's; the question counts, nothing else does yet.
        out[2] = 0x80 | query.head[2] & 0x01;
        out[3] = 0x80 | query.head[3] & 0x10 | code as u8 & 0x0f;
        out[4..HEADER].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        Self { out, query, code, extra: None, answers: 0, additional: 0 }
    }

    /// An address of the name that was asked for.
    pub fn address(&mut self, ip: IpAddr, ttl: u32) {
        self.out.extend(QUESTION);
        self.address_record(ip, ttl);
        self.answers += 1;
    }

    /// The name of the address that was asked for.
    pub fn pointer(&mut self, target: &[u8], ttl: u32) {
        self.out.extend(QUESTION);
        self.record(kind::PTR, ttl, target.len() + 1);
        self.name(target);
        self.answers += 1;
    }

    /// Where a service is (RFC 2782); all are equal.
    pub fn service(&mut self, port: u16, target: &[u8], ttl: u32) {
        self.out.extend(QUESTION);
        self.record(kind::SRV, ttl, 6 + target.len() + 1);
        self.out.extend([0, 0, 0, 0]);
        self.out.extend(port.to_be_bytes());
        self.name(target);
        self.answers += 1;
    }

    /// An address of another name, which goes first when there is no room.
    pub fn extra_address(&mut self, name: &[u8], ip: IpAddr, ttl: u32) {
        self.extra.get_or_insert(self.out.len());
        self.name(name);
        self.address_record(ip, ttl);
        self.additional += 1;
    }

    fn address_record(&mut self, ip: IpAddr, ttl: u32) {
        match ip {
            IpAddr::V4(v4) => {
                self.record(kind::A, ttl, 4);
                self.out.extend(v4.octets());
            }
            IpAddr::V6(v6) => {
                self.record(kind::AAAA, ttl, 16);
                self.out.extend(v6.octets());
            }
        }
    }

    fn record(&mut self, kind: u16, ttl: u32, len: usize) {
        self.out.extend(kind.to_be_bytes());
        self.out.extend(class::IN.to_be_bytes());
        self.out.extend(ttl.to_be_bytes());
        self.out.extend((len as u16).to_be_bytes());
    }

    fn name(&mut self, key: &[u8]) {
        self.out.extend(key);
        self.out.push(0);
    }

    /// Ends it, cut to `limit` bytes.
    pub fn finish(self, limit: usize) {
        let Self { out, query, code, extra, mut answers, mut additional } = self;
        let opt = if query.edns.is_some() { OPT } else { 0 };
        if out.len() + opt > limit
            && let Some(extra) = extra
        {
            out.truncate(extra);
            additional = 0;
        }
        if out.len() + opt > limit {
            out.truncate(query.head.len());
            out[2] |= 0x02;
            (answers, additional) = (0, 0);
        }
        out[6..8].copy_from_slice(&answers.to_be_bytes());
        out[10..12].copy_from_slice(&additional.to_be_bytes());
        add_opt(query, code as u16, out);
    }
}

/// Adds our OPT record when the client speaks EDNS.
pub fn add_opt(query: &Query<'_>, code: u16, out: &mut Vec<u8>) {
    let Some(edns) = query.edns else { return };
    let dnssec = if edns.dnssec { 0x80 } else { 0 };
    let [high, low] = kind::OPT.to_be_bytes();
    let [size_high, size_low] = EDNS.to_be_bytes();
    out.extend([0, high, low, size_high, size_low, (code >> 4) as u8, 0, dnssec, 0, 0, 0]);
    let count = u16::from_be_bytes([out[10], out[11]]) + 1;
    out[10..12].copy_from_slice(&count.to_be_bytes());
}
