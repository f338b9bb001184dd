//! The host's packet rules: what must be true, as data; [`nftables`] makes the kernel agree.
//!
//! Owned by the engine. Written, and read back only to be checked ([`compare`]): the whole table can be made again from these values in one
//! transaction, and a port is added or removed as elements of maps, so that neither costs more when there are many.

pub mod compare;
pub mod nftables;
pub mod watch;

use std::io;
use std::net::{IpAddr, SocketAddr};

pub use compare::ForeignChain;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::netlink::{NetlinkError, Protocol as Netlink, Socket};

/// What rules need to know of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its bridge.
    pub bridge: String,
    /// Its subnets.
    pub subnets: Vec<IpNet>,
    /// No way in or out.
    pub internal: bool,
    /// Sources are hidden behind the host's address on the way out.
    pub masquerade: bool,
}

/// A transport protocol that ports can be published for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// The one with this name; TCP when it is empty.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "" | "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            _ => None,
        }
    }

    /// Its number in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// `tcp` or `udp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// One published port: what arrives for `host` goes to `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// TCP or UDP.
    pub transport: Transport,
    /// The host's address; unspecified for all of its addresses.
    pub host: SocketAddr,
    /// Where to.
    pub to: SocketAddr,
}

/// Everything that the table must say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Networks that have endpoints.
    pub segments: Vec<Segment>,
    /// Published ports.
    pub forwards: Vec<Forward>,
}

/// The table of this instance in the namespace that netd runs in.
#[derive(Debug)]
pub struct Firewall {
    socket: Socket,
    table: String,
}

impl Firewall {
    /// Opens the socket; changes nothing.
    pub fn open(table: String) -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(Netlink::Netfilter)?, table })
    }

    /// Hears of others who take something out of the table.
    pub fn watch(&self) -> io::Result<watch::Watch> {
        watch::Watch::open(&self.table, self.socket.port()?)
    }

    /// Replaces whatever the table says, in one transaction.
    pub fn apply(&self, rules: &Rules) -> Result<(), NetlinkError> {
        self.commit(nftables::host::whole(&self.table, rules))
    }

    /// Adds published ports.
    pub fn publish(&self, forwards: &[Forward]) -> Result<(), NetlinkError> {
        self.commit(nftables::host::publish(&self.table, forwards))
    }

    /// Removes published ports.
    pub fn withdraw(&self, forwards: &[Forward]) -> Result<(), NetlinkError> {
        self.commit(nftables::host::withdraw(&self.table, forwards))
    }

    /// Removes the table, also when there is none.
    pub fn remove(&self) -> Result<(), NetlinkError> {
        self.commit(nftables::host::removal(&self.table))
    }

    /// What differs between these rules and the table in the kernel.
    pub fn differences(&self, rules: &Rules) -> Result<Vec<compare::Difference>, NetlinkError> {
        compare::differences(&self.socket, nftables::host::whole(&self.table, rules))
    }

    /// Whether the kernel has a table of ours.
    pub fn is_there(&self) -> Result<bool, NetlinkError> {
        compare::exists(&self.socket, &nftables::host::removal(&self.table))
    }

    fn commit(&self, transaction: nftables::Transaction) -> Result<(), NetlinkError> {
        let batch = transaction.finish();
        self.socket.run_transaction(&batch, 1)
    }
}

/// Redirects 127.0.0.11:53 of the calling thread's namespace to the ports that our sockets there have.
///
/// # Errors
/// The kernel lacks nf_tables NAT, or refused.
pub fn redirect_dns(resolver: IpAddr, udp: u16, tcp: u16) -> Result<(), NetlinkError> {
    let socket = Socket::open(Netlink::Netfilter)?;
    let write = |replace| {
        let batch = nftables::sandbox::redirect(resolver, udp, tcp, replace).finish();
        socket.run_transaction(&batch, 1)
    };
    // Replacing costs a grace period of the kernel (ten milliseconds), so it is done only where something is.
    match write(false) {
        Err(e) if e.errno() == Some(nix::errno::Errno::EEXIST) => write(true),
        other => other,
    }
}

/// What differs between that redirection and the calling thread's namespace.
pub fn resolver_differences(
    resolver: IpAddr,
    ports: (u16, u16),
) -> Result<Vec<compare::Difference>, NetlinkError> {
    let socket = Socket::open(Netlink::Netfilter)?;
    compare::differences(&socket, nftables::sandbox::redirect(resolver, ports.0, ports.1, false))
}

/// Chains of others at a hook of the calling thread's namespace.
pub fn foreign_chains(hook: u32) -> Result<Vec<ForeignChain>, NetlinkError> {
    compare::foreign_chains(&Socket::open(Netlink::Netfilter)?, hook)
}
