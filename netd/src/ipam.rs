//! Addresses of one subnet: who has which, and which comes next.
//!
//! Owned by the engine, one a subnet, rebuilt from the sandboxes' records at start. Invariants: an address is given to one
//! endpoint at a time; network, broadcast, gateway and aux addresses are never given; the next address is the one after
//! the last that was chosen, so that an address rests as long as the subnet allows before it is given to another
//! container. Memory and time follow from the number of addresses in use, never from the size of the subnet.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::network::Subnet;
use crate::network::pools::first_address;

/// Why an address cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// Every address of a subnet, or of the range that addresses are chosen from, is in use.
    #[error("no address is free in {0}")]
    Full(IpNet),
    /// Not one of the subnet's.
    #[error("address {ip} is not inside the subnet {subnet}")]
    Outside {
        /// Which.
        ip: IpAddr,
        /// Of what.
        subnet: IpNet,
    },
    /// The gateway, an aux address, network or broadcast.
    #[error("address {ip} of the subnet {subnet} is reserved")]
    Reserved {
        /// Which.
        ip: IpAddr,
        /// Of what.
        subnet: IpNet,
    },
    /// The host has it on the same wire.
    #[error("address {0} is the host's own")]
    Host(IpAddr),
    /// An endpoint has it.
    #[error("address {0} is in use")]
    Taken(IpAddr),
}

/// The addresses of one subnet.
#[derive(Debug, Clone)]
pub struct Pool {
    subnet: IpNet,
    /// The subnet, or the part of it that addresses are chosen from.
    range: IpNet,
    /// Chosen addresses lie in `first..=last`.
    first: u128,
    last: u128,
    /// Never given.
    reserved: BTreeSet<u128>,
    /// Given, and the reserved ones: whatever is not free.
    blocked: BTreeSet<u128>,
    /// Never chosen, given when asked for: the first address of a subnet whose router nobody named.
    spared: Option<u128>,
    /// The last address that was chosen.
    cursor: u128,
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

impl Pool {
    /// All addresses of a subnet free.
    pub fn new(of: &Subnet) -> Self {
        let mut reserved: BTreeSet<u128> = of.aux.values().copied().map(number).collect();
        reserved.extend(of.gateway.into_iter().chain([of.subnet.network()]).map(number));
        if of.subnet.addr().is_ipv4() {
            reserved.insert(number(of.subnet.broadcast()));
        }
        // The first address is the router's more often than not.
        let spared = of.gateway.is_none().then(|| number(first_address(&of.subnet)));
        let range = of.ip_range.unwrap_or(of.subnet);
        let first = number(range.network());
        let last = number(range.broadcast());
        let blocked = reserved.clone();
        Self { subnet: of.subnet, range, first, last, reserved, blocked, spared, cursor: last }
    }

    fn address(&self, n: u128) -> IpAddr {
        match self.subnet {
            IpNet::V4(_) => Ipv4Addr::from(n as u32).into(),
            IpNet::V6(_) => Ipv6Addr::from(n).into(),
        }
    }

    /// The first free number of `from..=to`, beyond what `avoid` holds.
    fn gap(&self, from: u128, to: u128, avoid: &[IpAddr]) -> Option<u128> {
        let mut next = from;
        while next <= to {
            for taken in self.blocked.range(next..=to) {
                if *taken > next {
                    break;
                }
                next = taken.checked_add(1)?;
            }
            if next <= to && self.spared != Some(next) && !avoid.contains(&self.address(next)) {
                return Some(next);
            }
            next = next.checked_add(1)?;
        }
        None
    }

    /// Chooses the next free address, and none of those to avoid.
    pub fn take_next(&mut self, avoid: &[IpAddr]) -> Result<IpNet, IpamError> {
        let after = self.cursor.checked_add(1).and_then(|from| self.gap(from, self.last, avoid));
        let chosen = after.or_else(|| self.gap(self.first, self.cursor, avoid));
        let n = chosen.ok_or(IpamError::Full(self.range))?;
        self.blocked.insert(n);
        self.cursor = n;
        Ok(self.net(n))
    }

    /// Takes this very address, which may lie outside of the range that addresses are chosen from.
    pub fn take(&mut self, ip: IpAddr, avoid: &[IpAddr]) -> Result<IpNet, IpamError> {
        if !self.subnet.contains(&ip) {
            return Err(IpamError::Outside { ip, subnet: self.subnet });
        }
        let n = number(ip);
        if self.reserved.contains(&n) {
            return Err(IpamError::Reserved { ip, subnet: self.subnet });
        }
        if avoid.contains(&ip) {
            return Err(IpamError::Host(ip));
        }
        if self.blocked.insert(n) { Ok(self.net(n)) } else { Err(IpamError::Taken(ip)) }
    }

    /// Takes an address that a record says was given out, and goes on after it.
    pub fn restore(&mut self, ip: IpAddr) {
        if !self.subnet.contains(&ip) {
            return;
        }
        let n = number(ip);
        self.blocked.insert(n);
        if (self.first..=self.last).contains(&n) {
            self.cursor = n;
        }
    }

    /// Gives an address back; nothing when it is not of this subnet.
    pub fn release(&mut self, ip: IpAddr) {
        let n = number(ip);
        if self.subnet.contains(&ip) && !self.reserved.contains(&n) {
            self.blocked.remove(&n);
        }
    }

    /// The addresses that were given out.
    pub fn taken(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.blocked.difference(&self.reserved).map(|n| self.address(*n))
    }

    fn net(&self, n: u128) -> IpNet {
        IpNet::new(self.address(n), self.subnet.prefix_len()).expect("the prefix is the subnet's own")
    }
}

#[cfg(test)]
mod tests;
