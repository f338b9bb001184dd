//! Encoding and walking of netlink messages: 4-byte aligned headers and type-length-value attributes (netlink(7)).

use std::net::IpAddr;

/// `struct nlmsghdr`.
pub const HEADER: usize = 16;
/// Marks an attribute that holds attributes.
const NESTED: u16 = 0x8000;

/// Flags of a request (`NLM_F_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    /// `NLM_F_REQUEST`.
    pub const REQUEST: Self = Self(0x1);
    /// Request that is acknowledged.
    pub const ACK: Self = Self(0x1 | 0x4);
    /// Acknowledged, creates what is missing.
    pub const CREATE: Self = Self(0x1 | 0x4 | 0x400);
    /// Acknowledged, creates what is missing and replaces what is there.
    pub const REPLACE: Self = Self(0x1 | 0x4 | 0x400 | 0x100);
    /// Acknowledged, creates, fails when it exists.
    pub const CREATE_NEW: Self = Self(0x1 | 0x4 | 0x400 | 0x200);
    /// Creates without an acknowledgement (inside an nftables batch).
    pub const QUIET_CREATE: Self = Self(0x1 | 0x400);
    /// Creates at the end of a list, without an acknowledgement.
    pub const QUIET_APPEND: Self = Self(0x1 | 0x400 | 0x800);
    /// Asks for all objects.
    pub const DUMP: Self = Self(0x1 | 0x300);
}

/// Several messages in one buffer, sent with one system call.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    bytes: Vec<u8>,
    /// What each message is for, by its sequence number from 1; errors name it.
    labels: Vec<String>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a message: its fixed part `head` (such as `struct ifinfomsg`), then attributes.
    pub fn push(
        &mut self,
        label: impl Into<String>,
        kind: u16,
        flags: Flags,
        head: &[u8],
        body: impl FnOnce(&mut Attrs<'_>),
    ) {
        self.labels.push(label.into());
        let seq = self.labels.len() as u32;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.0.to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(head);
        pad(&mut self.bytes);
        body(&mut Attrs(&mut self.bytes));
        let len = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// The bytes as they are sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many messages it holds.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// What message number `seq` is for.
    pub fn label(&self, seq: u32) -> &str {
        self.labels.get((seq as usize).wrapping_sub(1)).map_or("netlink request", String::as_str)
    }
}

/// Writes attributes at the end of a message.
pub struct Attrs<'a>(&'a mut Vec<u8>);

impl Attrs<'_> {
    /// An attribute of raw bytes.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(value.len() + 4).expect("callers split what does not fit an attribute");
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        pad(self.0);
    }

    /// A text with its closing NUL.
    pub fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    /// A byte.
    pub fn byte(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    /// A 32-bit number in the machine's byte order (rtnetlink).
    pub fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// A 32-bit number in network byte order (nf_tables).
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// An address, 4 or 16 bytes.
    pub fn ip(&mut self, kind: u16, ip: IpAddr) {
        match ip {
            IpAddr::V4(v4) => self.bytes(kind, &v4.octets()),
            IpAddr::V6(v6) => self.bytes(kind, &v6.octets()),
        }
    }

    /// Attributes inside an attribute.
    pub fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Attrs<'_>)) {
        self.group(kind | NESTED, &[], body);
    }

    /// An attribute that starts with a fixed part and goes on with attributes (`VETH_INFO_PEER`).
    pub fn group(&mut self, kind: u16, head: &[u8], body: impl FnOnce(&mut Attrs<'_>)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(head);
        pad(self.0);
        body(&mut Attrs(self.0));
        let len = u16::try_from(self.0.len() - start).expect("callers split what does not fit an attribute");
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }
}

fn pad(bytes: &mut Vec<u8>) {
    while !bytes.len().is_multiple_of(4) {
        bytes.push(0);
    }
}

fn aligned(n: usize) -> usize {
    n.div_ceil(4) * 4
}

/// Walks the messages of a received buffer: (type, sequence, payload). Stops at the first malformed one.
pub fn messages(buffer: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    notices(buffer).map(|(kind, seq, _, payload)| (kind, seq, payload))
}

/// The same with the port of the socket that caused a message, before its payload.
pub fn notices(mut buffer: &[u8]) -> impl Iterator<Item = (u16, u32, u32, &[u8])> {
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(buffer.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(buffer.get(4..6)?.try_into().ok()?);
        let seq = u32::from_ne_bytes(buffer.get(8..12)?.try_into().ok()?);
        let port = u32::from_ne_bytes(buffer.get(12..16)?.try_into().ok()?);
        if len < HEADER {
            return None;
        }
        // An error may echo a request that is longer than our buffer: what is there is enough.
        let payload = buffer.get(HEADER..len.min(buffer.len()))?;
        buffer = buffer.get(aligned(len)..).unwrap_or(&[]);
        Some((kind, seq, port, payload))
    })
}

/// Walks attributes: (type without flags, value). Stops at the first malformed one.
pub fn attributes(mut buffer: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = u16::from_ne_bytes(buffer.get(..2)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(buffer.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = buffer.get(4..len)?;
        buffer = buffer.get(aligned(len)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_padded_and_its_lengths_count_what_is_in_it() {
        let mut batch = Batch::new();
        batch.push("x", 16, Flags::ACK, &[1, 2, 3, 4], |a| {
            a.text(3, "ab");
            a.nested(18, |a| a.byte(1, 9));
        });
        assert_eq!(
            batch.bytes(),
            [
                40, 0, 0, 0, 16, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, // nlmsghdr
                1, 2, 3, 4, // head
                7, 0, 3, 0, b'a', b'b', 0, 0, // text
                12, 0, 18, 0x80, 5, 0, 1, 0, 9, 0, 0, 0, // nested
            ]
        );
        let (kind, seq, payload) = messages(batch.bytes()).next().unwrap();
        assert_eq!((kind, seq), (16, 1));
        let attrs: Vec<_> = attributes(&payload[4..]).collect();
        assert_eq!(attrs[0], (3, &b"ab\0"[..]));
        assert_eq!(attributes(attrs[1].1).next(), Some((1, &[9][..])));
    }

    #[test]
    fn garbage_ends_the_walk() {
        assert_eq!(messages(&[1, 2, 3]).count(), 0);
        assert_eq!(messages(&[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).count(), 0);
        assert_eq!(attributes(&[2, 0, 0, 0]).count(), 0);
        assert_eq!(attributes(&[200, 0, 1, 0, 7]).count(), 0);
    }
}
