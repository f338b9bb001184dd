//! Rules as lists of expressions. A register is a 32-bit word of the rule's scratch memory (`NFT_REG32_00` is 8);
//! a failed lookup or comparison ends the rule, and the next one goes on.

use std::net::IpAddr;

use crate::netlink::Attrs;

/// First word for keys.
const KEY: u32 = 8;
/// First word for what a map answers; clear of the longest key.
const ANSWER: u32 = 16;

/// Which header a payload is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Network = 1,
    Transport = 2,
}

/// Packet metadata (`NFT_META_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meta {
    InName = 6,
    OutName = 7,
    Family = 15,
    Transport = 16,
}

/// IP version of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Version {
    /// The version of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn nfproto(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// Offsets of source and destination address, and their length.
    fn addresses(self) -> (u32, u32, u32) {
        match self {
            Self::V4 => (12, 16, 4),
            Self::V6 => (8, 24, 16),
        }
    }
}

/// Encoded expressions, and a comment that `nft list` shows.
#[derive(Debug, Clone)]
pub struct Rule {
    comment: &'static str,
    expressions: Vec<Expression>,
}

#[derive(Debug, Clone)]
enum Expression {
    Meta(Meta, u32),
    Payload {
        base: Base,
        offset: u32,
        len: u32,
        to: u32,
    },
    Mask {
        register: u32,
        mask: Vec<u8>,
    },
    Compare {
        register: u32,
        equal: bool,
        value: Vec<u8>,
    },
    Lookup {
        set: &'static str,
        key: u32,
        answer: Option<u32>,
    },
    DaddrType(u32),
    Ct {
        key: u32,
        to: u32,
    },
    Dnat {
        version: Version,
        address: u32,
        port: u32,
    },
    Immediate(u32, Vec<u8>),
    Masquerade,
    Untracked,
    /// A port of the transport header: where it is, and where the checksum over it is.
    WritePort {
        offset: u32,
        checksum: u32,
        from: u32,
    },
    Verdict(i32, Option<&'static str>),
}

/// `ct state` bits.
const ESTABLISHED_RELATED: u32 = 2 | 4;
/// `IPS_DST_NAT`.
const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;

impl Rule {
    /// An empty rule.
    pub fn new(comment: &'static str) -> Self {
        Self { comment, expressions: Vec::new() }
    }

    /// What it is for.
    pub fn comment(&self) -> &'static str {
        self.comment
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
    pub fn in_set(self, set: &'static str) -> Self {
        self.with([Expression::Meta(Meta::InName, KEY), Expression::Lookup { set, key: KEY, answer: None }])
    }

    /// Goes out through an interface in `set`.
    #[must_use]
    pub fn out_set(self, set: &'static str) -> Self {
        self.with([Expression::Meta(Meta::OutName, KEY), Expression::Lookup { set, key: KEY, answer: None }])
    }

    /// The pair of both interfaces is in `set`.
    #[must_use]
    pub fn in_out_set(self, set: &'static str) -> Self {
        self.with([
            Expression::Meta(Meta::InName, KEY),
            Expression::Meta(Meta::OutName, KEY + 4),
            Expression::Lookup { set, key: KEY, answer: None },
        ])
    }

    /// Goes out through this interface, or through any other.
    #[must_use]
    pub fn out(self, name: &str, equal: bool) -> Self {
        let value = ifname(name);
        self.with([Expression::Meta(Meta::OutName, KEY), Expression::Compare { register: KEY, equal, value }])
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

    fn address(self, offset: u32, net: ipnet::IpNet) -> Self {
        let len = Version::of(net.addr()).addresses().2;
        self.with([
            Expression::Payload { base: Base::Network, offset, len, to: KEY },
            Expression::Mask { register: KEY, mask: octets(net.netmask()) },
            Expression::Compare { register: KEY, equal: true, value: octets(net.network()) },
        ])
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
    pub fn dnat_by(self, version: Version, set: &'static str, with_address: bool) -> Self {
        let (_, offset, len) = version.addresses();
        let words = len / 4;
        let mut next = KEY;
        let mut rule = self;
        if with_address {
            rule = rule.with([Expression::Payload { base: Base::Network, offset, len, to: next }]);
            next += words;
        }
        rule.with([
            Expression::Meta(Meta::Transport, next),
            Expression::Payload { base: Base::Transport, offset: 2, len: 2, to: next + 1 },
            Expression::Lookup { set, key: KEY, answer: Some(ANSWER) },
            Expression::Dnat { version, address: ANSWER, port: ANSWER + words },
        ])
    }

    /// Sends it to this address and port.
    #[must_use]
    pub fn dnat(self, ip: IpAddr, port: u16) -> Self {
        let version = Version::of(ip);
        let words = version.addresses().2 / 4;
        self.with([
            Expression::Immediate(ANSWER, octets(ip)),
            Expression::Immediate(ANSWER + words, port.to_be_bytes().to_vec()),
            Expression::Dnat { version, address: ANSWER, port: ANSWER + words },
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
    pub fn jump(self, chain: &'static str) -> Self {
        self.with([Expression::Verdict(-3, Some(chain))])
    }

    /// Writes the list of expressions.
    pub(super) fn write(&self, a: &mut Attrs<'_>) {
        for expression in &self.expressions {
            a.nested(1, |a| expression.write(a));
        }
    }
}

impl Expression {
    fn write(&self, a: &mut Attrs<'_>) {
        a.text(1, self.name());
        a.nested(2, |a| self.data(a));
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Meta(..) => "meta",
            Self::Payload { .. } | Self::WritePort { .. } => "payload",
            Self::Mask { .. } => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::Lookup { .. } => "lookup",
            Self::DaddrType(_) => "fib",
            Self::Ct { .. } => "ct",
            Self::Dnat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Untracked => "notrack",
            Self::Immediate(..) | Self::Verdict(..) => "immediate",
        }
    }

    fn data(&self, a: &mut Attrs<'_>) {
        match self {
            Self::Meta(key, to) => {
                a.be32(1, *to);
                a.be32(2, *key as u32);
            }
            Self::Payload { base, offset, len, to } => {
                a.be32(1, *to);
                a.be32(2, *base as u32);
                a.be32(3, *offset);
                a.be32(4, *len);
            }
            Self::Mask { register, mask } => {
                a.be32(1, *register);
                a.be32(2, *register);
                a.be32(3, mask.len() as u32);
                a.nested(4, |a| a.bytes(1, mask));
                a.nested(5, |a| a.bytes(1, &vec![0; mask.len()]));
            }
            Self::Compare { register, equal, value } => {
                a.be32(1, *register);
                a.be32(2, u32::from(!equal));
                a.nested(3, |a| a.bytes(1, value));
            }
            Self::Lookup { set, key, answer } => {
                a.text(1, set);
                a.be32(2, *key);
                if let Some(answer) = answer {
                    a.be32(3, *answer);
                }
            }
            Self::DaddrType(to) => {
                a.be32(1, *to);
                a.be32(2, 3);
                a.be32(3, 2);
            }
            Self::Ct { key, to } => {
                a.be32(1, *to);
                a.be32(2, *key);
            }
            Self::Dnat { version, address, port } => {
                a.be32(1, 1);
                a.be32(2, u32::from(version.nfproto()));
                a.be32(3, *address);
                a.be32(5, *port);
            }
            Self::Immediate(to, value) => {
                a.be32(1, *to);
                a.nested(2, |a| a.bytes(1, value));
            }
            Self::Masquerade | Self::Untracked => {}
            Self::WritePort { offset, checksum, from } => {
                a.be32(2, Base::Transport as u32);
                a.be32(3, *offset);
                a.be32(4, 2);
                a.be32(5, *from);
                // NFT_PAYLOAD_CSUM_INET
                a.be32(6, 1);
                a.be32(7, *checksum);
            }
            Self::Verdict(code, chain) => {
                a.be32(1, 0);
                a.nested(2, |a| {
                    a.nested(2, |a| {
                        a.be32(1, *code as u32);
                        if let Some(chain) = chain {
                            a.text(2, chain);
                        }
                    });
                });
            }
        }
    }
}

/// An interface name as registers hold it.
pub fn ifname(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// An address as registers hold it.
pub fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
