//! Addresses of one subnet: who has which, and which comes next.
//!
//! Owned by the engine, one a network and family, rebuilt from the sandboxes' records at start. Invariants: an address
//! is given to one endpoint at a time; network, broadcast, gateway and aux addresses are never given; the next address
//! is the one after the last that was chosen, so that an address rests as long as the subnet allows before it is given
//! to another container.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::network::Subnet;
use crate::network::pools::first_address;

/// Why an address cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// Every address is in use.
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
    /// An endpoint has it.
    #[error("address {0} is in use")]
    Taken(IpAddr),
}

/// The addresses of one subnet.
#[derive(Debug, Clone)]
pub struct Pool {
    subnet: IpNet,
    /// Chosen addresses lie in `first..=last`.
    first: u128,
    last: u128,
    reserved: BTreeSet<u128>,
    used: BTreeSet<u128>,
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
        // The first address is the router's more often than not, also where nobody said so.
        let gateway = of.gateway.unwrap_or_else(|| first_address(&of.subnet));
        reserved.extend([gateway, of.subnet.network()].map(number));
        if of.subnet.addr().is_ipv4() {
            reserved.insert(number(of.subnet.broadcast()));
        }
        let range = of.ip_range.unwrap_or(of.subnet);
        let first = number(range.network());
        let last = number(range.broadcast());
        Self { subnet: of.subnet, first, last, reserved, used: BTreeSet::new(), cursor: last }
    }

    fn address(&self, n: u128) -> IpAddr {
        match self.subnet {
            IpNet::V4(_) => Ipv4Addr::from(n as u32).into(),
            IpNet::V6(_) => Ipv6Addr::from(n).into(),
        }
    }

    fn free(&self, n: u128) -> bool {
        !self.used.contains(&n) && !self.reserved.contains(&n)
    }

    /// Chooses the next free address.
    pub fn take_next(&mut self) -> Result<IpNet, IpamError> {
        let after = (self.cursor..=self.last).skip(1).find(|n| self.free(*n));
        let chosen = after.or_else(|| (self.first..=self.cursor).find(|n| self.free(*n)));
        let n = chosen.ok_or(IpamError::Full(self.subnet))?;
        self.used.insert(n);
        self.cursor = n;
        Ok(self.net(n))
    }

    /// Takes this very address, which may lie outside of the range that addresses are chosen from.
    pub fn take(&mut self, ip: IpAddr) -> Result<IpNet, IpamError> {
        if !self.subnet.contains(&ip) {
            return Err(IpamError::Outside { ip, subnet: self.subnet });
        }
        let n = number(ip);
        if self.reserved.contains(&n) {
            return Err(IpamError::Reserved { ip, subnet: self.subnet });
        }
        if self.used.insert(n) { Ok(self.net(n)) } else { Err(IpamError::Taken(ip)) }
    }

    /// Takes an address that a record says was given out, and goes on after it.
    pub fn restore(&mut self, ip: IpAddr) {
        if !self.subnet.contains(&ip) {
            return;
        }
        let n = number(ip);
        self.used.insert(n);
        if (self.first..=self.last).contains(&n) {
            self.cursor = n;
        }
    }

    /// Gives an address back; nothing when it is not of this subnet.
    pub fn release(&mut self, ip: IpAddr) {
        if self.subnet.contains(&ip) {
            self.used.remove(&number(ip));
        }
    }

    /// The addresses that were given out.
    pub fn taken(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.used.iter().map(|n| self.address(*n))
    }

    fn net(&self, n: u128) -> IpNet {
        IpNet::new(self.address(n), self.subnet.prefix_len()).expect("the prefix is the subnet's own")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Driver;
    use crate::network::spec::chosen;
    use proptest::prelude::*;

    fn pool(subnet: &str) -> Pool {
        Pool::new(&chosen(subnet.parse().unwrap(), Driver::Bridge))
    }

    #[test]
    fn addresses_ascend_and_a_released_one_rests() {
        let mut p = pool("10.0.0.0/29");
        let mut next = || p.take_next().unwrap().addr().to_string();
        assert_eq!([next(), next(), next()], ["10.0.0.2", "10.0.0.3", "10.0.0.4"]);
        p.release("10.0.0.3".parse().unwrap());
        let mut next = || p.take_next().unwrap().addr().to_string();
        assert_eq!([next(), next(), next()], ["10.0.0.5", "10.0.0.6", "10.0.0.3"]);
        assert_eq!(p.take_next(), Err(IpamError::Full("10.0.0.0/29".parse().unwrap())));
    }

    #[test]
    fn a_range_bounds_what_is_chosen_but_not_what_is_asked_for() {
        let mut subnet = chosen("10.0.0.0/24".parse().unwrap(), Driver::Bridge);
        subnet.ip_range = Some("10.0.0.128/30".parse().unwrap());
        subnet.aux.insert("router".into(), "10.0.0.129".parse().unwrap());
        let mut p = Pool::new(&subnet);
        let chosen: Vec<_> =
            std::iter::from_fn(|| p.take_next().ok()).map(|n| n.addr().to_string()).collect();
        assert_eq!(chosen, ["10.0.0.128", "10.0.0.130", "10.0.0.131"]);
        assert!(p.take("10.0.0.9".parse().unwrap()).is_ok());
        assert!(matches!(p.take("10.0.0.9".parse().unwrap()), Err(IpamError::Taken(_))));
        assert!(matches!(p.take("10.0.0.129".parse().unwrap()), Err(IpamError::Reserved { .. })));
        assert!(matches!(p.take("10.0.1.9".parse().unwrap()), Err(IpamError::Outside { .. })));
    }

    proptest! {
        /// Compared with a plain set: never two holders, never a reserved address, full only when really full.
        #[test]
        fn no_address_is_given_twice(steps in prop::collection::vec((0u8..3, 0u8..16), 1..200)) {
            let mut p = pool("10.0.0.0/28");
            let mut held: Vec<IpAddr> = Vec::new();
            for (what, which) in steps {
                match what {
                    0 => {
                        if let Ok(net) = p.take_next() {
                            prop_assert!(!held.contains(&net.addr()));
                            held.push(net.addr());
                        } else {
                            prop_assert_eq!(held.len(), 13);
                        }
                    }
                    1 => {
                        let ip: IpAddr = Ipv4Addr::new(10, 0, 0, which).into();
                        let reserved = matches!(which, 0 | 1 | 15);
                        prop_assert_eq!(p.take(ip).is_ok(), !reserved && !held.contains(&ip));
                        if !reserved && !held.contains(&ip) {
                            held.push(ip);
                        }
                    }
                    _ if !held.is_empty() => p.release(held.remove(usize::from(which) % held.len())),
                    _ => {}
                }
            }
        }
    }
}
