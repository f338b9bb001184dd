//! The host's packet rules: what must be true, as data ([`rules`]); a backend makes the kernel agree.
//!
//! ```text
//! rules      networks and published ports, as data
//! nftables   tables of our own by netlink; accepts in others' chains that would drop
//! iptables   chains of our own by iptables-restore, for hosts that need it
//! watch      hears when somebody else takes something away
//! ```
//! Owned by the engine. Written, never read back: all of it can be made again from these values in one transaction, and
//! with nftables a port is added or removed as elements of maps, so that neither costs more when there are many.

pub mod nftables;
pub mod rules;
pub mod watch;

use std::io;
use std::net::IpAddr;

use serde::Deserialize;

use crate::netlink::{NetlinkError, Protocol as Netlink, Socket};
pub use nftables::foreign::Mark;
pub use rules::{Forward, Rules, Segment, Source, Transport};

/// Which backend to use: netd.toml's `firewall`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// nftables where the kernel has it, else iptables.
    #[default]
    Auto,
    /// nf_tables by netlink.
    Nftables,
    /// The commands iptables and ip6tables.
    Iptables,
}

/// Why rules could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

impl FirewallError {
    /// Whether something that was to be changed is not there: somebody took it away.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Netlink(e) => e.is_missing(),
        }
    }
}

/// The rules of this instance in the namespace that netd runs in.
#[derive(Debug)]
pub struct Firewall {
    socket: Socket,
    mark: Mark,
}

impl Firewall {
    /// Opens the backend; changes nothing.
    pub fn open(mark: Mark) -> Result<Self, FirewallError> {
        Ok(Self { socket: Socket::open(Netlink::Netfilter)?, mark })
    }

    /// Hears of others who take something out of our rules, or come to stop our packets.
    pub fn watch(&self) -> io::Result<watch::Watch> {
        watch::Watch::open(self.mark.clone(), self.socket.port()?)
    }

    /// Replaces all rules, in one transaction, and has others' chains let our networks' packets pass.
    pub fn apply(&self, rules: &Rules) -> Result<(), FirewallError> {
        self.commit(nftables::host::whole(&self.mark.table, rules))?;
        Ok(nftables::foreign::ensure(&self.socket, &self.mark)?)
    }

    /// Adds published ports.
    pub fn publish(&self, forwards: &[Forward]) -> Result<(), FirewallError> {
        self.commit(nftables::host::publish(&self.mark.table, forwards))
    }

    /// Removes published ports.
    pub fn withdraw(&self, forwards: &[Forward]) -> Result<(), FirewallError> {
        self.commit(nftables::host::withdraw(&self.mark.table, forwards))
    }

    /// Removes all rules, also when there are none.
    pub fn remove(&self) -> Result<(), FirewallError> {
        self.commit(nftables::host::removal(&self.mark.table))?;
        Ok(nftables::foreign::remove(&self.socket, &self.mark)?)
    }

    fn commit(&self, transaction: nftables::Transaction) -> Result<(), FirewallError> {
        Ok(self.socket.run_transaction(&transaction.finish(), 1)?)
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
