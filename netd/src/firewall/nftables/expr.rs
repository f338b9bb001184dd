//! The expressions that rules are made of, and their encoding. A register is a 32-bit word of the rule's scratch memory
//! (`NFT_REG32_00` is 8); a failed lookup or comparison ends the rule, and the next one goes on.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::netlink::Attrs;

/// Which header a payload is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// Packet metadata (`NFT_META_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meta {
    OutIndex = 5,
    InName = 6,
    OutName = 7,
    Family = 15,
    Transport = 16,
    InGroup = 21,
    OutGroup = 22,
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

    pub(super) fn nfproto(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// Offsets of source and destination address, and their length.
    pub(super) fn addresses(self) -> (u32, u32, u32) {
        match self {
            Self::V4 => (12, 16, 4),
            Self::V6 => (8, 24, 16),
        }
    }
}

/// A name of a set or chain.
pub(super) type Name = Cow<'static, str>;

/// One step of a rule.
#[derive(Debug, Clone)]
pub(super) enum Expression {
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
        set: Name,
        key: u32,
        answer: Option<u32>,
        absent: bool,
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
    Snat {
        version: Version,
        address: u32,
    },
    /// An extension of iptables, with its structure as it is in memory.
    Match(&'static str, Vec<u8>),
    Counter,
    Between {
        register: u32,
        low: Vec<u8>,
        high: Vec<u8>,
    },
    /// A TCP RST to whoever sent it.
    Reset,
    Immediate(u32, Vec<u8>),
    Masquerade,
    Untracked,
    /// A port of the transport header: where it is, and where the checksum over it is.
    WritePort {
        offset: u32,
        checksum: u32,
        from: u32,
    },
    Verdict(i32, Option<Name>),
}

impl Expression {
    pub(super) fn write(&self, a: &mut Attrs<'_>) {
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
            Self::Dnat { .. } | Self::Snat { .. } => "nat",
            Self::Between { .. } => "range",
            Self::Reset => "reject",
            Self::Match(..) => "match",
            Self::Counter => "counter",
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
            Self::Lookup { set, key, answer, absent } => {
                a.text(1, set);
                a.be32(2, *key);
                if let Some(answer) = answer {
                    a.be32(3, *answer);
                }
                if *absent {
                    a.be32(5, 1);
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
            Self::Immediate(to, value) => {
                a.be32(1, *to);
                a.nested(2, |a| a.bytes(1, value));
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
            _ => self.special(a),
        }
    }

    /// Those that few rules have.
    fn special(&self, a: &mut Attrs<'_>) {
        match self {
            Self::Dnat { version, address, port } => {
                a.be32(1, 1);
                a.be32(2, u32::from(version.nfproto()));
                a.be32(3, *address);
                a.be32(5, *port);
            }
            Self::Between { register, low, high } => {
                a.be32(1, *register);
                a.be32(2, 0);
                a.nested(3, |a| a.bytes(1, low));
                a.nested(4, |a| a.bytes(1, high));
            }
            Self::Reset => {
                a.be32(1, 1);
                a.byte(2, 0);
            }
            Self::Snat { version, address } => {
                a.be32(1, 0);
                a.be32(2, u32::from(version.nfproto()));
                a.be32(3, *address);
            }
            Self::Match(name, info) => {
                a.text(1, name);
                a.be32(2, 0);
                a.bytes(3, info);
            }
            Self::Counter => {
                a.bytes(1, &[0; 8]);
                a.bytes(2, &[0; 8]);
            }
            Self::WritePort { offset, checksum, from } => {
                a.be32(2, Base::Transport as u32);
                a.be32(3, *offset);
                a.be32(4, 2);
                a.be32(5, *from);
                // NFT_PAYLOAD_CSUM_INET
                a.be32(6, 1);
                a.be32(7, *checksum);
            }
            _ => {}
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
