//! What the runner and the process that it cloned say to each other before the program runs: SEQPACKET messages, the first byte the kind.
//!
//! ```text
//! runner                          inside
//!   | -- mapped ---------------------> |   user namespace: its ids are mapped
//!   | -- cgroups + descriptors ------> |   join these
//!   | <-------------- namespaces ready |   only with hooks: run prestart and createRuntime now
//!   | -- go on ----------------------> |
//!   | <------------------------- ready |   all is set up
//!   | -- start ----------------------> |   (`create`: comes over exec.sock, from `start`)
//!   | <-------- failed(text) or close  |   close without a word: the program runs
//! ```

use std::os::fd::{BorrowedFd, OwnedFd};

use davit_sys::fork::channel::Channel;

use crate::error::{Context, Error, Result};

/// One message's kind and payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The ids are mapped.
    Mapped,
    /// Join these: a [`crate::cgroup::Placement`] as JSON; the doors come as descriptors.
    Cgroups(Vec<u8>),
    /// Hooks may run.
    NamespacesReady,
    /// Hooks have run.
    GoOn,
    /// Waiting for start.
    Ready,
    /// Run the program.
    Start,
    /// Gave up; a whole line for the user.
    Failed(String),
}

impl Message {
    fn encode(&self) -> Vec<u8> {
        let (kind, payload): (u8, &[u8]) = match self {
            Self::Mapped => (b'm', b""),
            Self::Cgroups(json) => (b'c', json),
            Self::NamespacesReady => (b'n', b""),
            Self::GoOn => (b'g', b""),
            Self::Ready => (b'r', b""),
            Self::Start => (b's', b""),
            Self::Failed(text) => (b'e', text.as_bytes()),
        };
        let mut bytes = vec![kind];
        bytes.extend_from_slice(payload);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, payload) = bytes.split_first()?;
        Some(match kind {
            b'm' => Self::Mapped,
            b'c' => Self::Cgroups(payload.to_vec()),
            b'n' => Self::NamespacesReady,
            b'g' => Self::GoOn,
            b'r' => Self::Ready,
            b's' => Self::Start,
            b'e' => Self::Failed(String::from_utf8_lossy(payload).into_owned()),
            _ => return None,
        })
    }
}

/// Sends one.
pub fn send(channel: &Channel, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut bytes = message.encode();
    bytes.truncate(60_000);
    channel.send(&bytes, fds).context(|| "reach the other process of the runner")
}

/// Receives one; none: the other side has closed.
pub fn receive(channel: &Channel) -> Result<Option<(Message, Vec<OwnedFd>)>> {
    let received = channel.receive().context(|| "hear from the other process of the runner")?;
    Ok(Message::decode(&received.bytes).map(|m| (m, received.fds)))
}

/// Receives exactly this one; [`Message::Failed`] becomes an error.
pub fn expect(channel: &Channel, wanted: &Message) -> Result<()> {
    match receive(channel)? {
        Some((message, _)) if message == *wanted => Ok(()),
        Some((Message::Failed(text), _)) => Err(Error::Inside(text)),
        _ => Err(Error::Vanished),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_and_a_close_is_none() {
        let (a, b) = Channel::pair().unwrap();
        for m in [
            Message::Mapped,
            Message::Cgroups(b"{}".to_vec()),
            Message::Failed("no: x".into()),
            Message::Start,
        ] {
            send(&a, &m, &[]).unwrap();
            assert_eq!(receive(&b).unwrap().unwrap().0, m);
        }
        send(&a, &Message::Failed("why".into()), &[]).unwrap();
        assert!(matches!(expect(&b, &Message::Ready), Err(Error::Inside(t)) if t == "why"));
        drop(a);
        assert!(matches!(expect(&b, &Message::Ready), Err(Error::Vanished)));
    }
}
