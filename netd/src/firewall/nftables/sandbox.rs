//! The table `ip davit` inside a container: the resolver's port 53 is ours, whatever the container itself serves there.

use std::net::IpAddr;

use super::expr::Version;
use super::rule::Rule;
use super::{Base, Family, Hook, Transaction};
use crate::firewall::rules::Transport;

/// Sends `resolver`:53 to the ports of our sockets at the same address; with `replace`, in place of what an earlier netd
/// had set, else refused (EEXIST) where something is set.
pub fn redirect(resolver: IpAddr, udp: u16, tcp: u16, replace: bool) -> Transaction {
    let mut t = Transaction::new(Family::Ip, "davit");
    if replace {
        t.fresh_table();
    } else {
        t.new_table();
    }
    t.chain("output", Some(Base { kind: "nat", hook: Hook::Output, priority: -100 }));
    for (transport, port) in [(Transport::Udp, udp), (Transport::Tcp, tcp)] {
        debug_assert_eq!(Version::of(resolver), Version::V4);
        let rule = Rule::new("names").destination(resolver.into()).port(transport.number(), 53);
        t.rule("output", &rule.dnat(resolver, port));
    }
    t
}
