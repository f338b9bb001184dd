//! What must be true of packets, as data. Every backend makes the kernel agree with these values; golden files show what
//! each of them writes for them.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::network::GatewayMode;

/// What rules need to know of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its bridge.
    pub bridge: String,
    /// Its subnets.
    pub subnets: Vec<IpNet>,
    /// No way in or out.
    pub internal: bool,
    /// Its containers reach one another.
    pub icc: bool,
    /// Sources are hidden behind the host's address on the way out, unless it is routed.
    pub masquerade: bool,
    /// How it leads out: IPv4, IPv6.
    pub gateway: [GatewayMode; 2],
    /// The address that sources are hidden behind, in place of the way out's: IPv4, IPv6.
    pub snat: [Option<IpAddr>; 2],
}

impl Segment {
    /// How one of its subnets leads out.
    pub fn mode(&self, subnet: &IpNet) -> GatewayMode {
        self.gateway[usize::from(subnet.addr().is_ipv6())]
    }

    /// How the sources of one of its subnets are hidden on the way out.
    pub fn source(&self, subnet: &IpNet) -> Source {
        let nat = matches!(self.mode(subnet), GatewayMode::Nat | GatewayMode::NatUnprotected);
        match self.snat[usize::from(subnet.addr().is_ipv6())] {
            _ if self.internal || !self.masquerade || !nat => Source::Kept,
            Some(address) => Source::Fixed(address),
            None => Source::WayOut,
        }
    }

    /// Whether every port of it is open to the outside, for one IP version.
    pub fn unprotected(&self, ipv6: bool) -> bool {
        !self.internal && self.gateway[usize::from(ipv6)] == GatewayMode::NatUnprotected
    }
}

/// What the world sees as the source of a container's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The container's own address.
    Kept,
    /// The address of the interface that they leave through.
    WayOut,
    /// This one of the host's.
    Fixed(IpAddr),
}

/// A transport protocol that ports can be published for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// The one with this name; TCP when it is empty.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "" | "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            "sctp" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// Its number in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// Whether a port of it is held by a socket: for SCTP many kernels have none.
    pub fn holds(self) -> bool {
        self != Self::Sctp
    }

    /// Whether a program can answer for it in place of the kernel's redirection.
    pub fn is_relayed(self) -> bool {
        self != Self::Sctp
    }

    /// `tcp`, `udp` or `sctp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// One published port: what arrives for `host` goes to `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Forward {
    /// TCP, UDP or SCTP.
    pub transport: Transport,
    /// The host's address; unspecified for all of its addresses. `None` on a routed network: `to` itself is open.
    pub host: Option<SocketAddr>,
    /// Where to.
    pub to: SocketAddr,
}

/// Everything that the backend must say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Networks that have endpoints.
    pub segments: Vec<Segment>,
    /// Published ports.
    pub forwards: Vec<Forward>,
}

impl Rules {
    /// Whether any of it is IPv6's.
    pub fn has_ipv6(&self) -> bool {
        self.segments.iter().flat_map(|s| &s.subnets).any(|n| n.addr().is_ipv6())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_hidden_only_where_nat_is() {
        let subnet: IpNet = "10.0.0.0/24".parse().unwrap();
        let mut segment = Segment {
            bridge: "dv-a".into(),
            subnets: vec![subnet],
            internal: false,
            icc: true,
            masquerade: true,
            gateway: Default::default(),
            snat: [None; 2],
        };
        assert_eq!(segment.source(&subnet), Source::WayOut);
        segment.snat[0] = Some("192.0.2.1".parse().unwrap());
        assert_eq!(segment.source(&subnet), Source::Fixed("192.0.2.1".parse().unwrap()));
        segment.gateway[0] = GatewayMode::Routed;
        assert_eq!(segment.source(&subnet), Source::Kept);
        segment.gateway[0] = GatewayMode::NatUnprotected;
        assert!(segment.unprotected(false) && !segment.unprotected(true));
        segment.internal = true;
        assert!(!segment.unprotected(false));
        assert_eq!(segment.source(&subnet), Source::Kept);
    }
}
