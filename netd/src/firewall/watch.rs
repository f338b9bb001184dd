//! Tells when somebody else takes something out of our tables: `nft flush ruleset`, or a firewall service that loads its
//! rules anew. Without the rules published ports are dead and isolated networks are not, so they are written again. Tells
//! also when a chain that drops comes in the way of our packets.
//!
//! The kernel tells every listener of each transaction, which socket made it, and when it was complete. Our own are
//! passed over by the port of our socket, so that mending never causes mending.

use std::io;

use super::iptables::children::Children;
use super::iptables::{guard, script};
use super::nftables::foreign::{self, Mark};
use super::nftables::{self, Family, HEAD};
use crate::netlink::message::{attributes, notices};
use crate::netlink::{Protocol, Socket};

/// `NFNLGRP_NFTABLES`, as a bit.
const GROUP: u32 = 1 << 6;

/// Listens for changes of what is ours.
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
    ours: u32,
    mark: Mark,
    /// Where our rules are in the tables of iptables: who of its processes is ours.
    iptables: Option<Children>,
    buffer: Vec<u8>,
}

impl Watch {
    /// Listens from now on; what the socket with the port `ours` does is not told.
    pub fn open(mark: Mark, ours: u32, iptables: Option<Children>) -> io::Result<Self> {
        let socket = Socket::listen(Protocol::Netfilter, GROUP).map_err(io::Error::other)?;
        Ok(Self { socket, ours, mark, iptables, buffer: vec![0; 16 << 10] })
    }

    /// Waits until a transaction of somebody else has taken something of ours, or has put a chain in our way.
    pub fn next_loss(&mut self) -> io::Result<()> {
        let mut lost = false;
        loop {
            let Some(n) = self.socket.hear(&mut self.buffer)? else { return Ok(()) };
            for (kind, _, port, payload) in notices(&self.buffer[..n]) {
                let of_iptables = || {
                    self.iptables.as_ref().is_some_and(|children| {
                        takes_of_iptables(kind, payload, &self.mark) && !children.have(port)
                    })
                };
                lost |= port != self.ours
                    && (takes_from(kind, payload, &self.mark)
                        || foreign::concerns(kind, payload, &self.mark)
                        || of_iptables());
                if lost && kind == nftables::NEWGEN {
                    return Ok(());
                }
            }
        }
    }
}

/// Whether a message tells of something removed from a table of ours.
fn takes_from(kind: u16, payload: &[u8], mark: &Mark) -> bool {
    let families = [Family::Inet.number(), Family::Bridge.number()];
    nftables::REMOVALS.contains(&kind)
        && payload.first().is_some_and(|f| families.contains(f))
        && attributes(payload.get(HEAD..).unwrap_or_default()).any(|(attr, value)| {
            attr == 1 && std::str::from_utf8(value).is_ok_and(|v| mark.owns(v.trim_end_matches('\0')))
        })
}

/// Whether a message tells that rules of ours in the tables of iptables may be gone: of a table that is gone, or of a rule of a
/// chain that is ours, or that has its name from the kernel and so may have been a jump to one of ours. A rule that is new in
/// FORWARD may be behind the guard's, which is the last.
fn takes_of_iptables(kind: u16, payload: &[u8], mark: &Mark) -> bool {
    const CHAINS: [&str; 4] = ["FORWARD", "PREROUTING", "OUTPUT", "POSTROUTING"];
    let families = [Family::Ip.number(), Family::Ip6.number()];
    let concerns = |name: &str| {
        let own = name.strip_prefix(&script::prefix(mark)).and_then(|n| n.strip_prefix('-'));
        CHAINS.contains(&name)
            || own.is_some_and(|own| {
                guard::NAMES.contains(&own)
                    || script::chains(false).iter().any(|(_, names)| names.contains(&own))
            })
    };
    let of_chain = |(attr, value): (u16, &[u8])| {
        attr == 2 && std::str::from_utf8(value).is_ok_and(|v| concerns(v.trim_end_matches('\0')))
    };
    payload.first().is_some_and(|f| families.contains(f))
        && match kind {
            nftables::DELTABLE => true,
            nftables::NEWRULE => attributes(payload.get(HEAD..).unwrap_or_default())
                .any(|(attr, value)| attr == 2 && value.strip_suffix(b"\0").unwrap_or(value) == b"FORWARD"),
            nftables::DELRULE => attributes(payload.get(HEAD..).unwrap_or_default()).any(of_chain),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Batch, Flags};

    fn mark() -> Mark {
        Mark { table: "davit".into(), group: 7 }
    }

    fn told(kind: u16, family: u8, table: &str) -> bool {
        let mut batch = Batch::new();
        batch.push("x", kind, Flags::REQUEST, &[family, 0, 0, 0], |a| a.text(1, table));
        notices(batch.bytes()).any(|(kind, _, _, payload)| takes_from(kind, payload, &mark()))
    }

    #[test]
    fn of_iptables_only_rules_of_our_chains_and_the_kernels_count() {
        let told = |kind, family, chain: &str| {
            let mut batch = Batch::new();
            batch.push("x", kind, Flags::REQUEST, &[family, 0, 0, 0], |a| {
                a.text(1, "nat");
                a.text(2, chain);
            });
            notices(batch.bytes()).any(|(kind, _, _, payload)| takes_of_iptables(kind, payload, &mark()))
        };
        let rule = nftables::DELRULE;
        assert!(told(rule, 2, "DAVIT-PORTS") && told(rule, 10, "DAVIT-POST") && told(rule, 2, "PREROUTING"));
        assert!(!told(rule, 2, "DAVIT-0A0B0C-PORTS"), "another instance's");
        assert!(told(nftables::NEWRULE, 2, "FORWARD") && !told(nftables::NEWRULE, 2, "POSTROUTING"));
        assert!(
            !told(rule, 2, "DOCKER")
                && !told(nftables::NEWRULE, 2, "DAVIT-PORTS")
                && !told(rule, 1, "OUTPUT")
        );
    }

    #[test]
    fn only_removals_from_our_table_count() {
        assert!(told(nftables::DELTABLE, 1, "davit"));
        assert!(told(nftables::REMOVALS[2], 1, "davit"), "a rule");
        assert!(!told(nftables::NEWRULE, 1, "davit"));
        assert!(!told(nftables::DELTABLE, 1, "davit-x"));
        assert!(!told(nftables::DELTABLE, 2, "davit"), "a table of IPv4 only");
        assert!(!takes_from(nftables::DELTABLE, &[], &mark()));
    }
}
