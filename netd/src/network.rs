//! Networks: what one is, how a request becomes one, where its addresses come from, and where it is kept.
//!
//! ```text
//! options  docker's options of a bridge, checked, unknown ones refused with the nearest known
//! sublink  those of macvlan and ipvlan
//! pools    a free subnet, and what a wanted one overlaps
//! spec     a request checked into a Network
//! reserved what is no network's
//! store    redb, durable
//! ```

pub mod options;
pub mod policy;
pub mod pools;
mod reserved;
pub mod spec;
pub mod store;
pub mod sublink;

use std::collections::BTreeMap;
use std::net::IpAddr;

use davit_contracts::id::NetworkId;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::driver::cni::CniNetwork;
use crate::driver::cni::list::ListError;

pub use options::{BridgeOptions, GatewayMode};
pub use policy::Policy;
pub use sublink::Sublink;

/// What makes a network work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge of its own on the host.
    Bridge,
    /// Interfaces of their own mac on an interface of the host.
    Macvlan,
    /// Interfaces that share the mac of an interface of the host.
    Ipvlan,
    /// Whatever a chain of CNI plugins makes.
    Cni,
    /// The host's own network.
    Host,
    /// Loopback only.
    None,
}

impl Driver {
    /// Its word in requests and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Cni => "cni",
            Self::Host => "host",
            Self::None => "none",
        }
    }
}

/// Addresses of a network, of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The whole.
    pub subnet: IpNet,
    /// The bridge's address, or the router's; the way out for containers. macvlan and ipvlan may have none.
    pub gateway: Option<IpAddr>,
    /// Addresses are chosen from this part; the whole when absent.
    pub ip_range: Option<IpNet>,
    /// Addresses that others have, by name.
    pub aux: BTreeMap<String, IpAddr>,
}

/// A network as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// Its name, unique.
    pub name: String,
    /// How it works.
    pub driver: Driver,
    /// When it was made.
    pub created_unix_ns: i64,
    /// Whether it has IPv4: all but those that were made without.
    #[serde(default = "yes")]
    pub ipv4: bool,
    /// Whether IPv6 was asked for.
    pub ipv6: bool,
    /// No way in or out.
    pub internal: bool,
    /// Kept for docker's clients.
    pub attachable: bool,
    /// Those of IPv4, then those of IPv6 when asked for. A bridge has one of each at most.
    pub subnets: Vec<Subnet>,
    /// As given.
    pub options: BTreeMap<String, String>,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// The bridge; empty for other drivers.
    pub interface: String,
    /// `bridge`, `host`, `none`.
    pub predefined: bool,
    /// Whether names resolve on it.
    pub dns: bool,
    /// `options`, understood, of a bridge.
    pub bridge: BridgeOptions,
    /// `options`, understood, of macvlan and ipvlan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sublink: Option<Sublink>,
    /// The plugins and where they are, of the driver `cni`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cni: Option<CniNetwork>,
    /// Who may reach whom on it; of a bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// Whether there was ever a mac on it that does not follow from its address; of a bridge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub other_macs: bool,
}

fn yes() -> bool {
    true
}

impl Network {
    /// The first subnet of a family.
    pub fn subnet(&self, ipv4: bool) -> Option<&Subnet> {
        self.subnets.iter().find(|s| s.subnet.addr().is_ipv4() == ipv4)
    }

    /// The MTU that was asked for.
    pub fn mtu(&self) -> Option<u32> {
        self.sublink.as_ref().map_or(self.bridge.mtu, |s| s.mtu)
    }

    /// What names of interfaces inside start with.
    pub fn prefix(&self) -> &str {
        let chosen = self.sublink.as_ref().map_or(&self.bridge.prefix, |s| &s.prefix);
        chosen.as_deref().unwrap_or("eth")
    }

    /// How it works, in its driver's word.
    pub fn mode(&self) -> &'static str {
        match (&self.sublink, self.driver) {
            (Some(sublink), _) => sublink.mode.name(),
            (None, Driver::Bridge) => self.bridge.gateway_mode(self.ipv4).name(),
            _ => "",
        }
    }
}

/// Why a network cannot be as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// A list of CNI plugins that cannot be used.
    #[error(transparent)]
    Cni(#[from] ListError),
    /// Something that is the plugins' to say.
    #[error("{0} of a cni network: its plugins see to that")]
    Plugins(&'static str),
    /// A policy's rule that makes no sense.
    #[error("a policy's {what} cannot be '{value}': {expected} is expected")]
    Policy {
        /// Which part.
        what: String,
        /// As given.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// Not a name.
    #[error(transparent)]
    Name(#[from] davit_contracts::id::InvalidId),
    /// A name that means one of the predefined networks.
    #[error("a network cannot be named '{0}': that always means a predefined network")]
    ReservedName(String),
    /// A driver that is not here.
    #[error("unknown network driver '{0}'")]
    Driver(String),
    /// A driver that exists once, predefined.
    #[error("only one network with the driver '{0}' is allowed, and it is there already")]
    Predefined(String),
    /// An option that is not known.
    #[error("unknown option '{name}' of a {driver} network")]
    Option {
        /// As given.
        name: String,
        /// Whose.
        driver: &'static str,
        /// The known one that looks most like it.
        nearest: &'static str,
    },
    /// A known option with a senseless value.
    #[error("network option {name} cannot be '{value}': {expected} is expected")]
    Value {
        /// Which.
        name: String,
        /// As given.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A text that is no CIDR or address.
    #[error("'{value}' is not {expected}")]
    Parse {
        /// As given.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A subnet or range that is written as one of its addresses. The words are docker's.
    #[error("invalid {what} {given}: it should be {meant}")]
    HostBits {
        /// "subnet" or "ip-range".
        what: &'static str,
        /// As given.
        given: IpNet,
        /// What it is a part of.
        meant: IpNet,
    },
    /// An address outside of its subnet.
    #[error("{what} {address} is not inside the subnet {subnet}")]
    Outside {
        /// "gateway", "ip range", ...
        what: String,
        /// Which.
        address: String,
        /// Of what.
        subnet: IpNet,
    },
    /// Two subnets of one network that share addresses.
    #[error("subnets {one} and {other} overlap")]
    Overlap {
        /// One.
        one: IpNet,
        /// The other.
        other: IpNet,
    },
    /// One that is not known, and like none that is.
    #[error("unknown option '{name}' of a {driver} network: its options are {known}")]
    NoOption {
        /// As given.
        name: String,
        /// Whose.
        driver: &'static str,
        /// All there are.
        known: String,
    },
    /// An address that is to be two things.
    #[error("address {address} is the gateway, and cannot be '{name}' too")]
    Twice {
        /// Which.
        address: IpAddr,
        /// The aux address's name.
        name: String,
    },
    /// Too small to hold a gateway and a container.
    #[error("the subnet {0} is too small: it needs room for a gateway and a container")]
    TooSmall(IpNet),
    /// More than any part of IPv4 that is one network's.
    #[error("the subnet {0} is too large: an IPv4 subnet has a prefix of /8 at least")]
    TooLarge(IpNet),
    /// Addresses that mean something else.
    #[error("the subnet {subnet} cannot be used: its addresses are {what}")]
    Special {
        /// Which.
        subnet: IpNet,
        /// What they are.
        what: &'static str,
    },
    /// A gateway that no host can be.
    #[error("gateway {gateway} cannot be used: it is {why} of the subnet {subnet}")]
    Gateway {
        /// Which.
        gateway: IpAddr,
        /// Of what.
        subnet: IpNet,
        /// What it is.
        why: &'static str,
    },
    /// A range that no container could have an address of.
    #[error("the ip range {range} of the subnet {subnet} has no address for a container")]
    EmptyRange {
        /// Which.
        range: IpNet,
        /// Of what.
        subnet: IpNet,
    },
    /// More subnets of a family than the driver can have, or a family that is switched off.
    #[error("{0}")]
    Families(&'static str),
    /// Options that exclude one another.
    #[error("{what}")]
    Contradiction {
        /// What does not go together.
        what: &'static str,
        /// What would.
        instead: &'static str,
    },
}

#[cfg(test)]
pub(crate) fn example(name: &str, subnet: &str) -> Network {
    let subnet: IpNet = subnet.parse().unwrap();
    let id = NetworkId::from_random(rand::random());
    Network {
        interface: format!("dv-{}", id.short()),
        id,
        name: name.into(),
        driver: Driver::Bridge,
        created_unix_ns: 0,
        ipv4: true,
        ipv6: false,
        internal: false,
        attachable: false,
        subnets: vec![Subnet {
            gateway: subnet.hosts().next(),
            subnet,
            ip_range: None,
            aux: BTreeMap::new(),
        }],
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        predefined: false,
        dns: true,
        bridge: BridgeOptions::default(),
        sublink: None,
        cni: None,
        policy: None,
        other_macs: false,
    }
}
