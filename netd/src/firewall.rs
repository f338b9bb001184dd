//! The host's packet rules: what must be true, as data ([`rules`]); a backend makes the kernel agree.
//!
//! ```text
//! rules      networks and published ports, as data
//! nftables   tables of our own by netlink; accepts in others' chains that would drop
//! compare    what the kernel has beside what it should have, for checks
//! iptables   chains of our own by iptables-restore, for hosts that need it
//! guard      that strangers are not forwarded for
//! policy     who reaches whom within a network, always by nf_tables
//! watch      hears when somebody else takes something away
//! ```
//! Owned by the engine. Written, and read back only to be checked: all of it can be made again from these values in one transaction, and
//! with nftables a port is added or removed as elements of maps, so that neither costs more when there are many.

pub mod compare;
pub mod guard;
pub mod iptables;
pub mod nftables;
pub mod policy;
pub mod rules;
pub mod watch;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Deserialize;

use crate::netlink::conntrack;
use crate::netlink::{NetlinkError, Protocol as Netlink, Socket};
pub use compare::ForeignChain;
use compare::{Difference, Fault};
pub use guard::Guard;
use iptables::{Iptables, script};
pub use nftables::foreign::Mark;
pub use policy::{Member, Policed};
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
    /// A command is not there.
    #[error("cannot run {command}: {reason}")]
    NoCommand {
        /// Which.
        command: String,
        /// Why.
        reason: String,
    },
    /// Another program has the lock that the commands take.
    #[error(
        "{command}: another program holds /run/xtables.lock, and did not let go of it within {} s",
        iptables::command::LOCK_WAIT
    )]
    Locked {
        /// Which.
        command: String,
    },
    /// A command did not end.
    #[error("{command} did not end within {} s", after.as_secs())]
    Late {
        /// Which.
        command: String,
        /// When it was killed.
        after: Duration,
    },
    /// A command failed.
    #[error("{command}: {reason}")]
    Command {
        /// Which.
        command: String,
        /// Its first line.
        reason: String,
    },
}

impl FirewallError {
    /// Whether something that was to be changed is not there: somebody took it away. Commands do not tell; all that fails
    /// is taken for it, and shows when everything is written again.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Netlink(e) => e.is_missing(),
            Self::Command { .. } => true,
            Self::NoCommand { .. } | Self::Locked { .. } | Self::Late { .. } => false,
        }
    }
}

#[derive(Debug)]
enum Backend {
    Nftables,
    Iptables(Box<Iptables>),
}

/// The rules of this instance in the namespace that netd runs in.
#[derive(Debug)]
pub struct Firewall {
    socket: Socket,
    mark: Mark,
    backend: Backend,
}

impl Firewall {
    /// Chooses and opens the backend; takes away what another backend left when `note`, a file, tells of one.
    pub fn open(mark: Mark, choice: Choice, note: &Path) -> Result<Self, FirewallError> {
        let socket = Socket::open(Netlink::Netfilter)?;
        let backend = match choice {
            Choice::Nftables => Backend::Nftables,
            Choice::Auto if nftables::works(&socket) => Backend::Nftables,
            _ => Backend::Iptables(Box::new(Iptables::open(mark.clone())?)),
        };
        let me = Self { socket, mark, backend };
        let former = fs::read_to_string(note).unwrap_or_default();
        if !former.is_empty() && former != me.name() {
            tracing::info!(former, now = me.name(), "another firewall backend: the former one's rules go");
            me.remove_former();
        }
        if let Err(error) = fs::write(note, me.name()) {
            tracing::warn!(%error, "cannot note which firewall backend is in use");
        }
        Ok(me)
    }

    fn remove_former(&self) {
        let outcome = match &self.backend {
            Backend::Iptables(_) => self
                .commit(nftables::host::removal(&self.mark.table))
                .and_then(|()| self.remove_guard_table()),
            Backend::Nftables => Iptables::open(self.mark.clone()).and_then(|i| {
                i.guard(&Guard::default())?;
                i.remove()
            }),
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "the former firewall backend's rules are left");
        }
    }

    /// `nftables` or `iptables`.
    pub fn name(&self) -> &'static str {
        match &self.backend {
            Backend::Nftables => "nftables",
            Backend::Iptables(_) => "iptables",
        }
    }

    /// The backend with what it writes to, for a person.
    pub fn describe(&self) -> String {
        match &self.backend {
            Backend::Nftables => format!("nftables, table inet {}", self.mark.table),
            Backend::Iptables(i) => {
                format!("iptables ({}), chains {}-*", i.variant(), script::prefix(&self.mark))
            }
        }
    }

    /// Hears of others who take something out of our rules, or come to stop our packets.
    pub fn watch(&self) -> io::Result<watch::Watch> {
        watch::Watch::open(
            self.mark.clone(),
            self.socket.port()?,
            match &self.backend {
                Backend::Nftables => None,
                Backend::Iptables(i) => Some(i.children()),
            },
        )
    }

    /// Where a glance at the rules is needed, every now and then, to see that somebody took them away: whether we changed
    /// them since the last.
    pub fn glances(&self) -> Option<Arc<AtomicBool>> {
        match &self.backend {
            Backend::Iptables(i) if i.variant() == "legacy" => Some(i.touched()),
            _ => None,
        }
    }

    /// Replaces all rules, in one transaction, and has others' chains let our networks' packets pass.
    pub fn apply(&self, rules: &Rules) -> Result<(), FirewallError> {
        match &self.backend {
            Backend::Nftables => {
                self.commit(nftables::host::whole(&self.mark.table, rules))?;
            }
            Backend::Iptables(i) => i.apply(rules)?,
        }
        self.pass_others()
    }

    /// Has others' chains that drop let our networks' packets pass.
    pub fn pass_others(&self) -> Result<(), FirewallError> {
        if self.glances().is_none() {
            iptables::legacy::ensure(&self.mark)?;
        }
        match nftables::foreign::ensure(&self.socket, &self.mark, self.own_forward()) {
            // Without nf_tables there are no such chains.
            Err(_) if self.name() == "iptables" && !nftables::works(&self.socket) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Whether the chain FORWARD of iptables is one that we decide in ourselves.
    fn own_forward(&self) -> bool {
        matches!(&self.backend, Backend::Iptables(i) if i.variant() == "nf_tables")
    }

    /// Whether our rules are seen to be there. With nftables what [`Firewall::watch`] tells is certain, and nobody looks.
    pub fn is_whole(&self) -> bool {
        match &self.backend {
            Backend::Nftables => false,
            Backend::Iptables(i) => i.is_whole(),
        }
    }

    /// Adds published ports.
    pub fn publish(&self, forwards: &[Forward]) -> Result<(), FirewallError> {
        match &self.backend {
            Backend::Nftables => self.commit(nftables::host::publish(&self.mark.table, forwards)),
            Backend::Iptables(i) => i.publish(forwards),
        }
    }

    /// Removes published ports.
    pub fn withdraw(&self, forwards: &[Forward]) -> Result<(), FirewallError> {
        match &self.backend {
            Backend::Nftables => self.commit(nftables::host::withdraw(&self.mark.table, forwards)),
            Backend::Iptables(i) => i.withdraw(forwards),
        }
    }

    /// Removes all rules, also when there are none.
    pub fn remove(&self) -> Result<(), FirewallError> {
        match &self.backend {
            Backend::Nftables => {
                self.commit(nftables::host::removal(&self.mark.table))?;
            }
            Backend::Iptables(i) => i.remove()?,
        }
        iptables::legacy::remove(&self.mark)?;
        match nftables::foreign::remove(&self.socket, &self.mark) {
            Err(_) if self.name() == "iptables" && !nftables::works(&self.socket) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Has the kernel forget UDP that was sent to these ports of the host.
    pub fn forget_udp(&self, ports: &[u16], ipv6: bool) -> Result<(), FirewallError> {
        Ok(conntrack::forget_udp_to(&self.socket, ports, ipv6)?)
    }

    /// Has the kernel forget connections of addresses that are nobody's any more.
    pub fn forget(&self, addresses: impl Iterator<Item = IpAddr>) {
        for ip in addresses {
            if let Err(error) = conntrack::forget_address(&self.socket, ip) {
                tracing::warn!(%ip, %error, "connections of a gone endpoint are remembered");
            }
        }
    }

    /// Writes the policies' tables; without networks, removes them.
    pub fn police(&self, networks: &[Policed<'_>]) -> Result<(), FirewallError> {
        if networks.is_empty() {
            return policy::remove(&self.socket, &self.mark);
        }
        policy::apply(&self.socket, &self.mark, networks)
    }

    /// Adds or removes the only member of `network`.
    pub fn police_one(&self, network: &Policed<'_>, add: bool) -> Result<(), FirewallError> {
        policy::change(&self.socket, &self.mark, network, add)
    }

    /// What differs between these rules and what the kernel has, and which chains of others stop our networks' packets.
    pub fn differences(&self, rules: &Rules) -> Result<Vec<Difference>, FirewallError> {
        let mut all = match &self.backend {
            Backend::Nftables => {
                compare::differences(&self.socket, nftables::host::whole(&self.mark.table, rules))?
            }
            Backend::Iptables(i) => i.differences(rules)?,
        };
        let stopping = nftables::foreign::stopping(&self.socket, &self.mark, self.own_forward());
        all.extend(stopping.unwrap_or_default().into_iter().map(|object| Difference {
            fault: Fault::Missing,
            object: format!("rules of ours in {object}"),
            detail: "it drops packets of our networks".to_owned(),
        }));
        Ok(all)
    }

    /// What differs between policies and what the kernel has.
    pub fn policy_differences(&self, networks: &[Policed<'_>]) -> Result<Vec<Difference>, FirewallError> {
        policy::differences(&self.socket, &self.mark, networks)
    }

    /// Whether the kernel has a table of ours.
    pub fn is_there(&self) -> Result<bool, FirewallError> {
        match &self.backend {
            Backend::Nftables => {
                Ok(compare::exists(&self.socket, nftables::host::removal(&self.mark.table))?)
            }
            Backend::Iptables(_) => Ok(false),
        }
    }

    fn commit(&self, transaction: nftables::Transaction) -> Result<(), FirewallError> {
        Ok(self.socket.run_transaction(&transaction.finish(), 1)?)
    }
}

/// Redirects 127.0.0.11:53 of the calling thread's namespace to the ports that our sockets there have.
///
/// # Errors
/// The kernel has neither nf_tables nor iptables NAT, or refused.
pub fn redirect_dns(resolver: IpAddr, udp: u16, tcp: u16) -> Result<(), FirewallError> {
    let socket = Socket::open(Netlink::Netfilter)?;
    let write = |replace| {
        let batch = nftables::sandbox::redirect(resolver, udp, tcp, replace).finish();
        socket.run_transaction(&batch, 1)
    };
    // Replacing costs a grace period of the kernel (ten milliseconds), so it is done only where something is.
    let written = match write(false) {
        Err(e) if e.errno() == Some(nix::errno::Errno::EEXIST) => write(true),
        other => other,
    };
    match written {
        Err(_) if !nftables::works(&socket) => iptables::sandbox::redirect(resolver, udp, tcp),
        other => Ok(other?),
    }
}

/// Takes that redirection out of the calling thread's namespace; fine where there is none. It answers the socket, since to
/// close one waits for what was removed through it: a grace period of the kernel.
///
/// # Errors
/// The kernel refused.
pub fn leave_dns(resolver: IpAddr) -> Result<Socket, FirewallError> {
    let socket = Socket::open(Netlink::Netfilter)?;
    match socket.run_transaction(&nftables::sandbox::removal().finish(), 1) {
        Err(e) if !e.is_missing() => {
            if nftables::works(&socket) {
                return Err(e.into());
            }
            iptables::sandbox::leave(resolver)?;
        }
        _ => {}
    }
    Ok(socket)
}

/// What differs between that redirection and the calling thread's namespace. Without nf_tables nobody looks.
pub fn resolver_differences(resolver: IpAddr, ports: (u16, u16)) -> Result<Vec<Difference>, NetlinkError> {
    let socket = Socket::open(Netlink::Netfilter)?;
    if !nftables::works(&socket) {
        return Ok(Vec::new());
    }
    compare::differences(&socket, nftables::sandbox::redirect(resolver, ports.0, ports.1, false))
}

/// Chains of others at a hook of the calling thread's namespace, those that drop first.
pub fn foreign_chains(hook: u32, mark: &Mark) -> Result<Vec<ForeignChain>, NetlinkError> {
    compare::foreign_chains(&Socket::open(Netlink::Netfilter)?, hook, mark)
}
