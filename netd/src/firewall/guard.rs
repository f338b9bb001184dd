//! A host whose forwarding we turned on must not become a router for strangers: what neither comes from nor goes to one of
//! our networks is dropped, as it was while forwarding was off. Where forwarding was on before us, nothing is.
//!
//! Others who come later and need forwarding find it on. What their interfaces are for is theirs to say (networks of containers
//! and virtual machines, those of CNI plugins too, VPNs): only packets between two interfaces that were there when we turned
//! it on are dropped. Frames that only cross a bridge pass (with br_netfilter they are seen here).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::compare::{self, Difference, Fault};
use super::nftables::{self, guard as table};
use super::{Backend, Firewall, FirewallError};

/// Interfaces of others by name that were there when we turned forwarding on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct There {
    /// All that may lead packets in or out.
    pub interfaces: BTreeSet<String>,
    /// Those of them that are bridges.
    pub bridges: BTreeSet<String>,
}

/// The IP versions whose forwarding we turned on, and what was there then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    ipv4: Option<There>,
    ipv6: Option<There>,
}

impl Guard {
    /// Remembers that forwarding of an IP version is ours.
    pub fn note(&mut self, ipv6: bool, there: There) {
        *self.version(ipv6) = Some(there);
    }

    /// Forgets it.
    pub fn forget(&mut self, ipv6: bool) {
        *self.version(ipv6) = None;
    }

    fn version(&mut self, ipv6: bool) -> &mut Option<There> {
        if ipv6 { &mut self.ipv6 } else { &mut self.ipv4 }
    }

    /// What was there, if forwarding of the IP version is ours.
    pub fn there(&self, ipv6: bool) -> Option<&There> {
        if ipv6 { self.ipv6.as_ref() } else { self.ipv4.as_ref() }
    }

    /// Whether no forwarding is ours.
    pub fn is_empty(&self) -> bool {
        self.ipv4.is_none() && self.ipv6.is_none()
    }
}

impl Firewall {
    /// Writes the guard's rules; removes them when it is empty.
    pub fn guard(&self, guard: &Guard) -> Result<(), FirewallError> {
        match &self.backend {
            Backend::Nftables if guard.is_empty() => self.remove_guard_table(),
            Backend::Nftables => self.commit(table::whole(&self.mark.guard_table(), self.mark.group, guard)),
            Backend::Iptables(i) => i.guard(guard),
        }
    }

    /// Whether the guard's rules are seen to be there. With nftables nobody looks, as for [`Firewall::is_whole`].
    pub fn is_guarded(&self) -> bool {
        match &self.backend {
            Backend::Nftables => false,
            Backend::Iptables(i) => i.is_guarded(),
        }
    }

    /// Whether the kernel has a guard of ours, whole or not.
    pub fn has_guard(&self) -> Result<bool, FirewallError> {
        match &self.backend {
            Backend::Nftables => {
                let table = nftables::host::removal(&self.mark.guard_table());
                Ok(compare::exists(&self.socket, table)?)
            }
            Backend::Iptables(i) => i.has_guard(),
        }
    }

    /// What differs between the guard's rules and what the kernel has.
    pub fn guard_differences(&self, guard: &Guard) -> Result<Vec<Difference>, FirewallError> {
        let table = self.mark.guard_table();
        match &self.backend {
            Backend::Iptables(i) => i.guard_differences(guard),
            Backend::Nftables if !guard.is_empty() => {
                let wanted = table::whole(&table, self.mark.group, guard);
                Ok(compare::differences(&self.socket, wanted)?)
            }
            Backend::Nftables if self.has_guard()? => {
                let (object, detail) = (format!("firewall table {table}"), String::new());
                Ok(vec![Difference { fault: Fault::Stray, object, detail }])
            }
            Backend::Nftables => Ok(Vec::new()),
        }
    }

    /// Removes the guard's table, also when it is not there.
    pub(super) fn remove_guard_table(&self) -> Result<(), FirewallError> {
        self.commit(nftables::host::removal(&self.mark.guard_table()))
    }
}
