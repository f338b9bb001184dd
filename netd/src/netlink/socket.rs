//! A blocking netlink socket: one batch out, its acknowledgements in.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, recv, send,
    setsockopt, socket, sockopt,
};

use super::message::{Batch, messages};
use crate::failpoint::{lacks, pass};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NFNL_SUBSYS_NFTABLES`, the upper byte of a message's type.
const NF_TABLES: u16 = 10;
const RECEIVE: usize = 64 << 10;
/// nf_tables wants a whole transaction in one send.
const SEND_BUFFER: usize = 8 << 20;

/// Which part of the kernel a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes.
    Route,
    /// nf_tables.
    Netfilter,
    /// Sockets.
    Diag,
}

/// A request that the kernel refused, or a socket that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket could not be opened.
    #[error("cannot open a netlink socket ({protocol:?})")]
    Open {
        /// Which.
        protocol: Protocol,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Sending or receiving failed.
    #[error("netlink exchange failed while trying to {operation}")]
    Exchange {
        /// The first request of the batch.
        operation: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel said no.
    #[error("cannot {operation}")]
    Refused {
        /// What was asked for.
        operation: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

impl NetlinkError {
    /// The kernel's error number, when it refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }

    /// Whether the thing asked for does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self.errno(), Some(Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::ENXIO))
    }
}

/// A netlink socket of one namespace.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// Opens a socket in the calling thread's namespace.
    pub fn open(protocol: Protocol) -> Result<Self, NetlinkError> {
        Self::bound(protocol, 0)
    }

    /// Opens a socket that hears what the kernel tells these multicast groups (a bit each).
    pub fn listen(protocol: Protocol, groups: u32) -> Result<Self, NetlinkError> {
        Self::bound(protocol, groups)
    }

    fn bound(protocol: Protocol, groups: u32) -> Result<Self, NetlinkError> {
        let number = match protocol {
            Protocol::Route => SockProtocol::NetlinkRoute,
            Protocol::Netfilter => SockProtocol::NetlinkNetFilter,
            Protocol::Diag => SockProtocol::NetlinkSockDiag,
        };
        let failed = |e: Errno| NetlinkError::Open { protocol, source: e.into() };
        let fd =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, number).map_err(failed)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(failed)?;
        if protocol == Protocol::Netfilter {
            // Without the privilege the default (some 200 kB) stays, which is enough for a thousand ports.
            let _ = setsockopt(&fd, sockopt::SndBufForce, &SEND_BUFFER);
        }
        Ok(Self { fd })
    }

    /// The number that the kernel knows it by: messages about what it changed bear it.
    pub fn port(&self) -> io::Result<u32> {
        Ok(getsockname::<NetlinkAddr>(self.fd.as_raw_fd())?.pid())
    }

    /// Waits for what the kernel tells; `None` when some of it was lost.
    pub fn hear(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match recv(self.fd.as_raw_fd(), buffer, MsgFlags::empty()) {
                Ok(n) => return Ok(Some(n)),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Sends the batch and reads one acknowledgement for each message, all of which must have asked for one.
    ///
    /// # Errors
    /// The first refusal; the requests after it were tried nevertheless.
    pub fn run(&self, batch: &Batch) -> Result<(), NetlinkError> {
        self.change(batch, batch.len())
    }

    /// Sends a transaction of which exactly `acks` messages asked to be acknowledged. Refusals come unasked.
    pub fn run_transaction(&self, batch: &Batch, acks: usize) -> Result<(), NetlinkError> {
        self.change(batch, acks)
    }

    fn change(&self, batch: &Batch, acks: usize) -> Result<(), NetlinkError> {
        pass("netlink.sending");
        self.send(batch)?;
        pass("netlink.sent");
        self.acknowledgements(batch, acks)
    }

    /// Asks for objects and returns the payload of every answer of type `wanted`.
    pub fn dump(&self, batch: &Batch, wanted: u16) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let mut found = Vec::new();
        self.each(batch, wanted, |payload| found.push(payload.to_vec()))?;
        Ok(found)
    }

    /// The same for objects of which there may be very many: each is handed to `take` where it was received.
    pub fn each(&self, batch: &Batch, wanted: u16, mut take: impl FnMut(&[u8])) -> Result<(), NetlinkError> {
        self.send(batch)?;
        let mut buffer = vec![0; RECEIVE];
        loop {
            let n = self.receive(batch, &mut buffer, MsgFlags::empty())?.unwrap_or(0);
            for (kind, seq, payload) in messages(&buffer[..n]) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return refusal(batch, seq, payload),
                    k if k == wanted => take(payload),
                    _ => {}
                }
            }
        }
    }

    /// Asks for one object. `None` when there is none.
    pub fn get(&self, batch: &Batch, wanted: u16) -> Result<Option<Vec<u8>>, NetlinkError> {
        self.send(batch)?;
        let mut buffer = vec![0; RECEIVE];
        let n = self.receive(batch, &mut buffer, MsgFlags::empty())?.unwrap_or(0);
        let mut found = None;
        for (kind, seq, payload) in messages(&buffer[..n]) {
            if kind == NLMSG_ERROR {
                match refusal(batch, seq, payload) {
                    Err(e) if e.is_missing() => return Ok(None),
                    other => other?,
                }
            } else if kind == wanted {
                found = Some(payload.to_vec());
            }
        }
        Ok(found)
    }

    fn send(&self, batch: &Batch) -> Result<(), NetlinkError> {
        if lacks("nf_tables") && messages(batch.bytes()).any(|(kind, ..)| kind >> 8 == NF_TABLES) {
            let source = Errno::EOPNOTSUPP.into();
            return Err(NetlinkError::Refused { operation: batch.label(1).to_owned(), source });
        }
        send(self.fd.as_raw_fd(), batch.bytes(), MsgFlags::empty())
            .map(drop)
            .map_err(|e| NetlinkError::Exchange { operation: batch.label(1).to_owned(), source: e.into() })
    }

    fn acknowledgements(&self, batch: &Batch, expected: usize) -> Result<(), NetlinkError> {
        let mut first: Option<NetlinkError> = None;
        let mut seen = 0;
        let mut buffer = vec![0; 16 << 10];
        while let Some(n) = self.receive(batch, &mut buffer, MsgFlags::MSG_DONTWAIT)? {
            for (kind, seq, payload) in messages(&buffer[..n]) {
                if kind == NLMSG_ERROR {
                    seen += 1;
                    if let Err(e) = refusal(batch, seq, payload) {
                        first.get_or_insert(e);
                    }
                }
            }
        }
        match first {
            Some(e) => Err(e),
            None if seen < expected => Err(NetlinkError::Exchange {
                operation: batch.label(1).to_owned(),
                source: io::Error::other(format!("{seen} of {expected} acknowledgements came")),
            }),
            None => Ok(()),
        }
    }

    /// `None` when nothing waits (only with `MSG_DONTWAIT`).
    fn receive(
        &self,
        batch: &Batch,
        buffer: &mut [u8],
        flags: MsgFlags,
    ) -> Result<Option<usize>, NetlinkError> {
        loop {
            match recv(self.fd.as_raw_fd(), buffer, flags) {
                Ok(n) => return Ok(Some(n)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(e) => {
                    return Err(NetlinkError::Exchange {
                        operation: batch.label(1).to_owned(),
                        source: e.into(),
                    });
                }
            }
        }
    }
}

/// Reads an `NLMSG_ERROR`: zero is an acknowledgement.
fn refusal(batch: &Batch, seq: u32, payload: &[u8]) -> Result<(), NetlinkError> {
    let code = payload.get(..4).and_then(|b| b.try_into().ok()).map_or(-libc::EIO, i32::from_ne_bytes);
    if code == 0 {
        return Ok(());
    }
    Err(NetlinkError::Refused {
        operation: batch.label(seq).to_owned(),
        source: io::Error::from_raw_os_error(-code),
    })
}
