//! What only policies look at: sets of addresses, who began a connection, and frames with the ports of a bridge that they
//! come and go by.

use super::{KEY, Rule, lookup};
use crate::firewall::nftables::expr::{Base, Expression, Meta, Name, Version};

/// `IP_CT_DIR_REPLY`.
const REPLY: u8 = 1;
/// `ct state` bits.
const ESTABLISHED: u32 = 2;
const RELATED: u32 = 4;
const NEW: u32 = 8;
/// FIN, SYN, RST, ACK (RFC 9293, section 3.1), and SYN alone.
const FLAGS: u8 = 0x17;
const SYN: u8 = 2;
/// Words that an interface's name takes.
const NAME: u32 = 4;

fn compare(value: Vec<u8>) -> Expression {
    Expression::Compare { register: KEY, equal: true, value }
}

impl Rule {
    /// The pair of both interfaces is not in `set`.
    #[must_use]
    pub fn in_out_no_set(self, set: impl Into<Name>) -> Self {
        self.with([
            Expression::Meta(Meta::InName, KEY),
            Expression::Meta(Meta::OutName, KEY + NAME),
            Expression::Lookup { set: set.into(), key: KEY, answer: None, absent: true },
        ])
    }

    /// Goes out through an interface that is not in `set`.
    #[must_use]
    pub fn out_no_set(self, set: impl Into<Name>) -> Self {
        let absent = Expression::Lookup { set: set.into(), key: KEY, answer: None, absent: true };
        self.with([Expression::Meta(Meta::OutName, KEY), absent])
    }

    /// Tells of an error of a connection that was let through.
    #[must_use]
    pub fn related(self) -> Self {
        self.ct_bits(0, RELATED)
    }

    /// Is sent by who did not begin the connection.
    #[must_use]
    pub fn answer(self) -> Self {
        self.ct_bits(0, ESTABLISHED).with([Expression::Ct { key: 1, to: KEY }, compare(vec![REPLY])])
    }

    /// Is TCP of a connection whose beginning was not seen.
    #[must_use]
    pub fn tcp_without_beginning(self) -> Self {
        self.ct_bits(0, NEW).protocol(6).with([
            Expression::Payload { base: Base::Transport, offset: 13, len: 1, to: KEY },
            Expression::Mask { register: KEY, mask: vec![FLAGS] },
            Expression::Compare { register: KEY, equal: false, value: vec![SYN] },
        ])
    }

    /// Is of this protocol.
    #[must_use]
    pub fn protocol(self, number: u8) -> Self {
        self.with([Expression::Meta(Meta::Transport, KEY), compare(vec![number])])
    }

    /// Is for a port of these. Only in a rule of a protocol that has ports.
    #[must_use]
    pub fn port_range(self, first: u16, last: u16) -> Self {
        let rule = self.with([Expression::Payload { base: Base::Transport, offset: 2, len: 2, to: KEY }]);
        if first == last {
            return rule.with([compare(first.to_be_bytes().to_vec())]);
        }
        let (low, high) = (first.to_be_bytes().to_vec(), last.to_be_bytes().to_vec());
        rule.with([Expression::Between { register: KEY, low, high }])
    }

    /// Is ICMPv6 of these types (RFC 4443, 4861, 3810).
    #[must_use]
    pub fn icmpv6(self, first: u8, last: u8) -> Self {
        let rule = self.protocol(58).with([Expression::Payload {
            base: Base::Transport,
            offset: 0,
            len: 1,
            to: KEY,
        }]);
        if first == last {
            return rule.with([compare(vec![first])]);
        }
        rule.with([Expression::Between { register: KEY, low: vec![first], high: vec![last] }])
    }

    /// Its source is in `set`.
    #[must_use]
    pub fn source_set(self, version: Version, set: impl Into<Name>) -> Self {
        let (offset, _, len) = version.addresses();
        self.with([Expression::Payload { base: Base::Network, offset, len, to: KEY }, lookup(set)])
    }

    /// Its destination is in `set`.
    #[must_use]
    pub fn destination_set(self, version: Version, set: impl Into<Name>) -> Self {
        let (_, offset, len) = version.addresses();
        self.with([Expression::Payload { base: Base::Network, offset, len, to: KEY }, lookup(set)])
    }

    /// The frame's type. Read from the frame itself, where a VLAN's tag would show.
    #[must_use]
    pub fn ether(self, kind: u16) -> Self {
        let payload = Expression::Payload { base: Base::Link, offset: 12, len: 2, to: KEY };
        self.with([payload, compare(kind.to_be_bytes().to_vec())])
    }

    /// The port that it came by, with its source's mac, is not in `set`.
    #[must_use]
    pub fn sender_mac_no_set(self, set: impl Into<Name>) -> Self {
        self.with([
            Expression::Meta(Meta::InName, KEY),
            Expression::Payload { base: Base::Link, offset: 6, len: 6, to: KEY + NAME },
            Expression::Lookup { set: set.into(), key: KEY, answer: None, absent: true },
        ])
    }

    /// The port that it came by, with its source, is in `set`.
    #[must_use]
    pub fn sender_set(self, version: Version, set: impl Into<Name>) -> Self {
        let (offset, _, len) = version.addresses();
        self.port_and(Meta::InName, Base::Network, offset, len, set)
    }

    /// The port that it leaves by, with its destination, is in `set`.
    #[must_use]
    pub fn receiver_set(self, version: Version, set: impl Into<Name>) -> Self {
        let (_, offset, len) = version.addresses();
        self.port_and(Meta::OutName, Base::Network, offset, len, set)
    }

    /// The port that it came by, with ARP's sender mac (RFC 826), is in `set`.
    #[must_use]
    pub fn arp_mac_set(self, set: impl Into<Name>) -> Self {
        self.port_and(Meta::InName, Base::Network, 8, 6, set)
    }

    /// The port that it came by, with ARP's sender address, is in `set`.
    #[must_use]
    pub fn arp_address_set(self, set: impl Into<Name>) -> Self {
        self.port_and(Meta::InName, Base::Network, 14, 4, set)
    }

    /// The port that it came by, with the target of a neighbour advertisement (RFC 4861, section 4.4), is in `set`.
    #[must_use]
    pub fn neighbour_set(self, set: impl Into<Name>) -> Self {
        self.port_and(Meta::InName, Base::Transport, 8, 16, set)
    }

    /// The target of a neighbour advertisement is a link's own address, fe80::/10.
    #[must_use]
    pub fn neighbour_in_link(self) -> Self {
        self.with([
            Expression::Payload { base: Base::Transport, offset: 8, len: 2, to: KEY },
            Expression::Mask { register: KEY, mask: vec![0xff, 0xc0] },
            compare(vec![0xfe, 0x80]),
        ])
    }

    fn port_and(self, port: Meta, base: Base, offset: u32, len: u32, set: impl Into<Name>) -> Self {
        self.with([
            Expression::Meta(port, KEY),
            Expression::Payload { base, offset, len, to: KEY + NAME },
            lookup(set),
        ])
    }
}
