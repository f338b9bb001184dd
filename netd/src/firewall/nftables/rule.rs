//! Rules: lists of expressions, built from what they mean.

mod policy;

use std::net::IpAddr;

use super::expr::{Base, Expression, Meta, Name, Version, ifname, octets};
use crate::netlink::Attrs;

/// First word for keys.
const KEY: u32 = 8;
/// First word for what a map answers; clear of the longest key.
const ANSWER: u32 = 16;

/// Encoded expressions, and a comment that `nft list` shows.
#[derive(Debug, Clone)]
pub struct Rule {
    comment: Name,
    expressions: Vec<Expression>,
}

/// `ct state` bits.
const ESTABLISHED_RELATED: u32 = 2 | 4;
/// `IPS_DST_NAT`.
const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;

impl Rule {
    /// An empty rule.
    pub fn new(comment: impl Into<Name>) -> Self {
        Self { comment: comment.into(), expressions: Vec::new() }
    }

    /// What it is for.
    pub fn comment(&self) -> &str {
        &self.comment
    }

    fn with(mut self, expressions: impl IntoIterator<Item = Expression>) -> Self {
        self.expressions.extend(expressions);
        self
    }

    /// Packets of this IP version.
    #[must_use]
    pub fn version(self, version: Version) -> Self {
        self.with([
            Expression::Meta(Meta::Family, KEY),
            Expression::Compare { register: KEY, equal: true, value: vec![version.nfproto()] },
        ])
    }

    /// Came in through an interface in `set`.
    #[must_use]
    pub fn in_set(self, set: impl Into<Name>) -> Self {
        self.with([Expression::Meta(Meta::InName, KEY), lookup(set)])
    }

    /// Came in through an interface that is not in `set`.
    #[must_use]
    pub fn in_no_set(self, set: impl Into<Name>) -> Self {
        let absent = Expression::Lookup { set: set.into(), key: KEY, answer: None, absent: true };
        self.with([Expression::Meta(Meta::InName, KEY), absent])
    }

    /// Came in through an interface of this group, which any table understands.
    #[must_use]
    pub fn in_group(self, group: u32) -> Self {
        let value = group.to_ne_bytes().to_vec();
        self.with([
            Expression::Meta(Meta::InGroup, KEY),
            Expression::Compare { register: KEY, equal: true, value },
        ])
    }

    /// Goes out through an interface of this group.
    #[must_use]
    pub fn out_group(self, group: u32) -> Self {
        let value = group.to_ne_bytes().to_vec();
        self.with([
            Expression::Meta(Meta::OutGroup, KEY),
            Expression::Compare { register: KEY, equal: true, value },
        ])
    }

    /// The same as the extension `devgroup` of iptables, for tables that its command must be able to list
    /// (linux/netfilter/xt_devgroup.h).
    #[must_use]
    pub fn device_group(self, group: u32, incoming: bool) -> Self {
        let (flags, source, destination) = if incoming { (1, group, 0) } else { (4, 0, group) };
        let mask = |on: bool| if on { u32::MAX } else { 0 };
        let words: [u32; 5] = [flags, source, mask(incoming), destination, mask(!incoming)];
        let info = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        self.with([Expression::Match("devgroup", info), Expression::Counter])
    }

    /// Goes out through an interface in `set`.
    #[must_use]
    pub fn out_set(self, set: impl Into<Name>) -> Self {
        self.with([Expression::Meta(Meta::OutName, KEY), lookup(set)])
    }

    /// The pair of both interfaces is in `set`.
    #[must_use]
    pub fn in_out_set(self, set: impl Into<Name>) -> Self {
        self.with([
            Expression::Meta(Meta::InName, KEY),
            Expression::Meta(Meta::OutName, KEY + 4),
            lookup(set),
        ])
    }

    /// Goes out through this interface, or through any other.
    #[must_use]
    pub fn out(self, name: &str, equal: bool) -> Self {
        let value = ifname(name);
        self.with([Expression::Meta(Meta::OutName, KEY), Expression::Compare { register: KEY, equal, value }])
    }

    /// Goes out through another interface than the loopback, whose index is 1 in every network namespace: a number is compared
    /// faster than a name.
    #[must_use]
    pub fn out_of_namespace(self) -> Self {
        let value = 1_u32.to_ne_bytes().to_vec();
        self.with([
            Expression::Meta(Meta::OutIndex, KEY),
            Expression::Compare { register: KEY, equal: false, value },
        ])
    }

    /// Comes from this network. Only in a rule of its version.
    #[must_use]
    pub fn source(self, net: ipnet::IpNet) -> Self {
        let (offset, _, _) = Version::of(net.addr()).addresses();
        self.address(offset, net)
    }

    /// Is for this network. Only in a rule of its version.
    #[must_use]
    pub fn destination(self, net: ipnet::IpNet) -> Self {
        let (_, offset, _) = Version::of(net.addr()).addresses();
        self.address(offset, net)
    }

    /// A prefix of 1, 2, 4, ... bytes, which the kernel loads at once, is compared as it is: a step less for each packet.
    fn address(self, offset: u32, net: ipnet::IpNet) -> Self {
        let (mut value, mask) = (octets(net.network()), octets(net.netmask()));
        let bytes = usize::from(net.prefix_len() / 8);
        let whole = bytes.is_power_of_two() && net.prefix_len().is_multiple_of(8);
        if whole {
            value.truncate(bytes);
        }
        let payload = Expression::Payload { base: Base::Network, offset, len: value.len() as u32, to: KEY };
        let mask = (!whole).then_some(Expression::Mask { register: KEY, mask });
        let compare = Expression::Compare { register: KEY, equal: true, value };
        self.with([payload]).with(mask).with([compare])
    }

    /// Is of this transport protocol, for this port.
    #[must_use]
    pub fn port(self, transport: u8, port: u16) -> Self {
        self.transport_port(transport, 2, port)
    }

    /// Is of this transport protocol, from this port.
    #[must_use]
    pub fn source_port(self, transport: u8, port: u16) -> Self {
        self.transport_port(transport, 0, port)
    }

    fn transport_port(self, transport: u8, offset: u32, port: u16) -> Self {
        self.with([
            Expression::Meta(Meta::Transport, KEY),
            Expression::Compare { register: KEY, equal: true, value: vec![transport] },
            Expression::Payload { base: Base::Transport, offset, len: 2, to: KEY },
            Expression::Compare { register: KEY, equal: true, value: port.to_be_bytes().to_vec() },
        ])
    }

    /// Is for one of the host's own addresses.
    #[must_use]
    pub fn for_this_host(self) -> Self {
        self.with([
            Expression::DaddrType(KEY),
            Expression::Compare { register: KEY, equal: true, value: LOCAL.to_ne_bytes().to_vec() },
        ])
    }

    /// Belongs to a connection that was let through before.
    #[must_use]
    pub fn established(self) -> Self {
        self.ct_bits(0, ESTABLISHED_RELATED)
    }

    /// Was sent to a published port.
    #[must_use]
    pub fn translated(self) -> Self {
        self.ct_bits(2, DESTINATION_TRANSLATED)
    }

    fn ct_bits(self, key: u32, bits: u32) -> Self {
        self.with([
            Expression::Ct { key, to: KEY },
            Expression::Mask { register: KEY, mask: bits.to_ne_bytes().to_vec() },
            Expression::Compare { register: KEY, equal: false, value: vec![0; 4] },
        ])
    }

    /// Sends it where the map `set` says for (transport, port), or for (address, transport, port).
    #[must_use]
    pub fn dnat_by(self, version: Version, set: impl Into<Name>, with_address: bool) -> Self {
        let words = version.addresses().2 / 4;
        self.target(version, with_address).with([
            Expression::Lookup { set: set.into(), key: KEY, answer: Some(ANSWER), absent: false },
            Expression::Dnat { version, address: ANSWER, port: ANSWER + words },
        ])
    }

    /// Its (address, transport, port) is in `set`.
    #[must_use]
    pub fn target_set(self, version: Version, set: impl Into<Name>) -> Self {
        self.target(version, true).with([lookup(set)])
    }

    fn target(self, version: Version, with_address: bool) -> Self {
        let (_, offset, len) = version.addresses();
        let mut next = KEY;
        let mut rule = self;
        if with_address {
            rule = rule.with([Expression::Payload { base: Base::Network, offset, len, to: next }]);
            next += len / 4;
        }
        rule.with([
            Expression::Meta(Meta::Transport, next),
            Expression::Payload { base: Base::Transport, offset: 2, len: 2, to: next + 1 },
        ])
    }

    /// Changes the port of a TCP or UDP packet, the source's or the destination's, without remembering anything: the way back
    /// needs a rule of its own. Connection tracking does not see it.
    #[must_use]
    pub fn rewrite_port(self, transport: u8, source: bool, port: u16) -> Self {
        // Of the checksum in a TCP header (RFC 9293, 3.1) and a UDP header (RFC 768).
        let checksum = if transport == 6 { 16 } else { 6 };
        let offset = if source { 0 } else { 2 };
        self.with([
            Expression::Untracked,
            Expression::Immediate(ANSWER, port.to_be_bytes().to_vec()),
            Expression::WritePort { offset, checksum, from: ANSWER },
        ])
    }

    /// Hides the source behind the outgoing interface's address.
    #[must_use]
    pub fn masquerade(self) -> Self {
        self.with([Expression::Masquerade])
    }

    /// Hides the source behind this address.
    #[must_use]
    pub fn snat(self, ip: IpAddr) -> Self {
        self.with([
            Expression::Immediate(ANSWER, octets(ip)),
            Expression::Snat { version: Version::of(ip), address: ANSWER },
        ])
    }

    /// Lets it through (this table; others may still object).
    #[must_use]
    pub fn accept(self) -> Self {
        self.with([Expression::Verdict(1, None)])
    }

    /// Drops it.
    #[must_use]
    pub fn drop(self) -> Self {
        self.with([Expression::Verdict(0, None)])
    }

    /// Leaves the chain.
    #[must_use]
    pub fn leave(self) -> Self {
        self.with([Expression::Verdict(-5, None)])
    }

    /// Goes on in another chain.
    #[must_use]
    pub fn jump(self, chain: impl Into<Name>) -> Self {
        self.with([Expression::Verdict(-3, Some(chain.into()))])
    }

    /// Resets the connection (TCP only).
    #[must_use]
    pub fn reset(self) -> Self {
        self.with([Expression::Reset])
    }

    /// Writes the list of expressions.
    pub(super) fn write(&self, a: &mut Attrs<'_>) {
        for expression in &self.expressions {
            a.nested(1, |a| expression.write(a));
        }
    }
}

/// Whether the key is in a set.
fn lookup(set: impl Into<Name>) -> Expression {
    Expression::Lookup { set: set.into(), key: KEY, answer: None, absent: false }
}
