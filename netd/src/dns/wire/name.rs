//! Names on the wire, as keys, and as people write them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

/// The longest key: a name has 255 bytes with its last zero (RFC 1035, 2.3.4).
const LONGEST: usize = 254;

/// A key that is kept.
pub type Key = Box<[u8]>;

/// A key on the stack.
#[derive(Debug, Clone, Copy)]
pub struct Name {
    len: u8,
    bytes: [u8; LONGEST],
}

impl Deref for Name {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl Name {
    /// Reads the name of a question, which has no compression; answers where it ends.
    pub fn read(message: &[u8], start: usize) -> Option<(Self, usize)> {
        let mut name = Self { len: 0, bytes: [0; LONGEST] };
        let mut at = start;
        loop {
            let len = usize::from(*message.get(at)?);
            if len == 0 {
                return Some((name, at + 1));
            }
            let label = message.get(at..at + len + 1).filter(|_| len < 64)?;
            let from = usize::from(name.len);
            let to = name.bytes.get_mut(from..from + len + 1)?;
            to.copy_from_slice(label);
            // Lengths are below 64, so that they are no letters.
            to.make_ascii_lowercase();
            name.len += len as u8 + 1;
            at += len + 1;
        }
    }

    /// How many labels it has.
    pub fn labels(&self) -> usize {
        labels(self).count()
    }
}

/// The labels of a key.
pub fn labels(mut key: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = key.split_first()?;
        let (label, rest) = rest.split_at_checked(usize::from(*len))?;
        key = rest;
        Some(label)
    })
}

/// The key of a name as people write it; `None` when no question can have it.
pub fn key(text: &str) -> Option<Key> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let mut key = Vec::with_capacity(text.len() + 1);
    for label in text.split('.') {
        if label.is_empty() || label.len() > 63 {
            return None;
        }
        key.push(label.len() as u8);
        key.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
    }
    (key.len() <= LONGEST).then(|| key.into_boxed_slice())
}

/// A key as people write it.
pub fn text(key: &[u8]) -> String {
    let labels: Vec<_> = labels(key).map(String::from_utf8_lossy).collect();
    labels.join(".")
}

/// The address that a reverse name means (RFC 1035, 3.5; RFC 3596, 2.5); `None` of anything else, also of a part of one.
pub fn arpa(key: &[u8]) -> Option<IpAddr> {
    if let Some(rest) = key.strip_suffix(b"\x07in-addr\x04arpa") {
        let mut octets = [0; 4];
        let mut labels = labels(rest);
        for octet in octets.iter_mut().rev() {
            *octet = decimal(labels.next()?)?;
        }
        return labels.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let rest = key.strip_suffix(b"\x03ip6\x04arpa").filter(|rest| rest.len() == 64)?;
    let mut octets = [0; 16];
    let mut labels = labels(rest);
    for octet in octets.iter_mut().rev() {
        let (low, high) = (nibble(labels.next()?)?, nibble(labels.next()?)?);
        *octet = high << 4 | low;
    }
    Some(Ipv6Addr::from(octets).into())
}

fn decimal(label: &[u8]) -> Option<u8> {
    if label.len() > 3 || !label.iter().all(u8::is_ascii_digit) || (label.len() > 1 && label[0] == b'0') {
        return None;
    }
    std::str::from_utf8(label).ok()?.parse().ok()
}

fn nibble(label: &[u8]) -> Option<u8> {
    match label {
        [digit] => char::from(*digit).to_digit(16).map(|n| n as u8),
        _ => None,
    }
}
