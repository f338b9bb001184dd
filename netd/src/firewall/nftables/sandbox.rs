//! The table `ip davit` inside a container: the resolver's port 53 is ours, whatever the container itself serves there.
//!
//! ```text
//! client ──> resolver:53 ══ to our port ══> our socket
//! client <── resolver:53 <══ to 53 ════════ our socket
//! ```
//! Both ways are rewritten as packets leave, without NAT: one NAT rule would have the kernel track every connection of the
//! container, and every query of a new port would be one.

use std::net::IpAddr;

use super::expr::Version;
use super::rule::Rule;
use super::{Base, Family, Hook, Transaction};
use crate::firewall::rules::Transport;

/// Before connection tracking, which the container may use for itself (`NF_IP_PRI_RAW`).
const RAW: i32 = -300;

/// Takes the redirection away; an error (ENOENT) where there is none.
pub fn removal() -> Transaction {
    let mut t = Transaction::new(Family::Ip, "davit");
    t.delete_table();
    t
}

/// Sends `resolver`:53 to the ports of our sockets at the same address; with `replace`, in place of what an earlier netd
/// had set, else refused (EEXIST) where something is set.
pub fn redirect(resolver: IpAddr, udp: u16, tcp: u16, replace: bool) -> Transaction {
    debug_assert_eq!(Version::of(resolver), Version::V4);
    let mut t = Transaction::new(Family::Ip, "davit");
    if replace {
        t.fresh_table();
    } else {
        t.new_table();
    }
    t.chain("output", Some(Base { kind: "filter", hook: Hook::Output, priority: RAW }));
    // Each packet that leaves the container passes here.
    t.rule("output", &Rule::new("not to itself").out_of_namespace().accept());
    for (transport, port) in [(Transport::Udp.number(), udp), (Transport::Tcp.number(), tcp)] {
        let there = Rule::new("names").destination(resolver.into()).port(transport, 53);
        t.rule("output", &there.rewrite_port(transport, false, port));
        let back = Rule::new("names").source(resolver.into()).source_port(transport, port);
        t.rule("output", &back.rewrite_port(transport, true, 53));
    }
    t
}
