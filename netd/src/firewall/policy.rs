//! Policies in the kernel: two tables of our own by nf_tables, whatever the backend of the other rules is.
//!
//! ```text
//! inet X-policy     forward -20      packets within a network with a policy, which br_netfilter hands up from the bridge:
//!                                    answers pass; else the network's chain of rules, sets of addresses for its labels
//! bridge X-policy   prerouting -300  a port sends with its endpoint's addresses only
//!                   forward -300     a port is sent to by its endpoint's addresses only
//! ```
//! The second table is why addresses can stand for labels: a container that gives itself another address or mac is mute.
//! A container's coming and going changes elements of sets, all in one transaction; packets meet a rule for each of the
//! policy's, and none for containers.

use std::net::IpAddr;

use super::compare::{self, Difference};
use super::nftables::policy as tables;
use super::{FirewallError, Mark};
use crate::netlink::Socket;
use crate::netlink::route::Mac;
use crate::network::policy::{Labels, Policy};

/// An endpoint on a network with a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The bridge port.
    pub port: String,
    /// Its mac inside.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its container's labels.
    pub labels: Labels,
}

/// A network with a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policed<'a> {
    /// Its bridge.
    pub bridge: &'a str,
    /// What it says.
    pub policy: &'a Policy,
    /// Who is on it.
    pub members: Vec<&'a Member>,
}

/// Writes both tables in place of what is there.
pub fn apply(socket: &Socket, mark: &Mark, networks: &[Policed<'_>]) -> Result<(), FirewallError> {
    let batch = tables::whole(&mark.policy_table(), networks).finish();
    Ok(socket.run_transaction(&batch, 1)?)
}

/// Adds (or removes) the only member of `network`.
pub fn change(socket: &Socket, mark: &Mark, network: &Policed<'_>, add: bool) -> Result<(), FirewallError> {
    let batch = tables::change(&mark.policy_table(), network, add).finish();
    Ok(socket.run_transaction(&batch, 1)?)
}

/// What differs between both tables and what the kernel has.
pub fn differences(
    socket: &Socket,
    mark: &Mark,
    networks: &[Policed<'_>],
) -> Result<Vec<Difference>, FirewallError> {
    Ok(compare::differences(socket, tables::whole(&mark.policy_table(), networks))?)
}

/// Removes both tables, also when they are not there.
pub fn remove(socket: &Socket, mark: &Mark) -> Result<(), FirewallError> {
    let batch = tables::removal(&mark.policy_table()).finish();
    match socket.run_transaction(&batch, 1) {
        // A kernel that cannot have them has none.
        Err(e) if e.errno() != Some(nix::errno::Errno::EPERM) => {
            tracing::debug!(error = %e, "no tables of policies are removed");
            Ok(())
        }
        other => Ok(other?),
    }
}
