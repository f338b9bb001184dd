//! Tells when somebody else takes something out of our table: `nft flush ruleset`, or a firewall service that loads its
//! rules anew. Without the rules published ports are dead and isolated networks are not, so they are written again.
//!
//! The kernel tells every listener of each transaction, which socket made it, and when it was complete. Our own are
//! passed over by the port of our socket, so that mending never causes mending.

use std::io;

use super::nftables::{self, Family};
use crate::netlink::message::{attributes, notices};
use crate::netlink::{Protocol, Socket};

/// `NFNLGRP_NFTABLES`, as a bit.
const GROUP: u32 = 1 << 6;
/// `struct nfgenmsg`.
const HEAD: usize = 4;

/// Listens for changes of one table.
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
    ours: u32,
    table: Vec<u8>,
    buffer: Vec<u8>,
}

impl Watch {
    /// Listens from now on; what the socket with the port `ours` does is not told.
    pub fn open(table: &str, ours: u32) -> io::Result<Self> {
        let socket = Socket::listen(Protocol::Netfilter, GROUP).map_err(io::Error::other)?;
        let table = [table.as_bytes(), b"\0"].concat();
        Ok(Self { socket, ours, table, buffer: vec![0; 16 << 10] })
    }

    /// Waits until a transaction of somebody else has taken something out of the table.
    pub fn next_loss(&mut self) -> io::Result<()> {
        let mut lost = false;
        loop {
            let Some(n) = self.socket.hear(&mut self.buffer)? else { return Ok(()) };
            for (kind, _, port, payload) in notices(&self.buffer[..n]) {
                lost |= port != self.ours && takes_from(kind, payload, &self.table);
                if lost && kind == nftables::NEWGEN {
                    return Ok(());
                }
            }
        }
    }
}

/// Whether a message tells of something removed from the table.
fn takes_from(kind: u16, payload: &[u8], table: &[u8]) -> bool {
    nftables::REMOVALS.contains(&kind)
        && payload.first() == Some(&Family::Inet.number())
        && attributes(payload.get(HEAD..).unwrap_or_default())
            .any(|(attr, value)| attr == 1 && value == table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Batch, Flags};

    fn told(kind: u16, family: u8, table: &str) -> bool {
        let mut batch = Batch::new();
        batch.push("x", kind, Flags::REQUEST, &[family, 0, 0, 0], |a| a.text(1, table));
        notices(batch.bytes()).any(|(kind, _, _, payload)| takes_from(kind, payload, b"davit\0"))
    }

    #[test]
    fn only_removals_from_our_table_count() {
        assert!(told(nftables::DELTABLE, 1, "davit"));
        assert!(told(nftables::REMOVALS[2], 1, "davit"), "a rule");
        assert!(!told(nftables::NEWRULE, 1, "davit"));
        assert!(!told(nftables::DELTABLE, 1, "davit-x"));
        assert!(!told(nftables::DELTABLE, 2, "davit"), "a table of IPv4 only");
        assert!(!takes_from(nftables::DELTABLE, &[], b"davit\0"));
    }
}
