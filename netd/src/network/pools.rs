//! Subnets: docker's pools in docker's order, and what a subnet would overlap.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Something that has addresses already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Which.
    pub net: IpNet,
    /// "network 'x'", "interface eth0 of the host".
    pub by: String,
}

/// Whether two networks share an address.
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// What `wanted` would overlap.
pub fn conflict<'a>(wanted: &IpNet, taken: &'a [Taken]) -> Option<&'a Taken> {
    taken.iter().find(|t| overlap(wanted, &t.net))
}

/// Some networks, of which one that another meets is found without asking each: a host may have very many routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Near {
    /// Their addresses from first to last in order and apart: IPv4, IPv6.
    spans: [Vec<(u128, u128)>; 2],
}

impl Near {
    /// Of these networks.
    pub fn of(nets: impl IntoIterator<Item = IpNet>) -> Self {
        let mut spans: [Vec<(u128, u128)>; 2] = Default::default();
        for net in nets {
            let span = (number(net.network()), number(net.broadcast()));
            spans[usize::from(net.addr().is_ipv6())].push(span);
        }
        for spans in &mut spans {
            spans.sort_unstable();
            // Of two that meet one holds the other, and the larger comes first or begins at the same address.
            let mut apart: Vec<(u128, u128)> = Vec::new();
            for span in spans.drain(..) {
                match apart.last_mut() {
                    Some(last) if span.0 <= last.1 => last.1 = last.1.max(span.1),
                    _ => apart.push(span),
                }
            }
            *spans = apart;
        }
        Self { spans }
    }

    /// Whether one of them shares an address with this.
    pub fn meets(&self, net: &IpNet) -> bool {
        let spans = &self.spans[usize::from(net.addr().is_ipv6())];
        let (first, last) = (number(net.network()), number(net.broadcast()));
        let at = spans.partition_point(|span| span.1 < first);
        spans.get(at).is_some_and(|span| span.0 <= last)
    }
}

/// Where subnets are chosen from: networks that are cut into equal parts (docker's `default-address-pools`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pools(Vec<PoolRange>);

/// One network and the length of the prefixes that it is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PoolRange {
    base: IpNet,
    size: u8,
}

/// Why a network cannot be cut like this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Not between the base's own prefix and a subnet for two.
    #[error("default-address-pools: size {size} does not fit {base}: {} to {} does", base.prefix_len(), base.max_prefix_len() - 2)]
    Size {
        /// What is to be cut.
        base: IpNet,
        /// Into what.
        size: u8,
    },
}

/// Docker's: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/20 in steps of 16.
impl Default for Pools {
    fn default() -> Self {
        let large = (17..=31).map(|n| (Ipv4Net::new_assert(Ipv4Addr::new(172, n, 0, 0), 16), 16));
        let small = (Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16), 20);
        let all = large.chain([small]).map(|(base, size)| PoolRange { base: base.into(), size });
        Self(all.collect())
    }
}

impl Pools {
    /// Checks what a configuration says; nothing means docker's pools.
    pub fn of(given: &[(IpNet, u8)]) -> Result<Self, PoolError> {
        let range = |&(base, size): &(IpNet, u8)| {
            let fits = (base.prefix_len()..=base.max_prefix_len() - 2).contains(&size);
            let range = PoolRange { base: base.trunc(), size };
            if fits { Ok(range) } else { Err(PoolError::Size { base: range.base, size }) }
        };
        let mut ranges = given.iter().map(range).collect::<Result<Vec<_>, _>>()?;
        // Pools of one version leave the other's as they were.
        if !ranges.iter().any(|r| r.base.addr().is_ipv4()) {
            ranges.extend(Self::default().0);
        }
        Ok(Self(ranges))
    }

    /// The networks that subnets are chosen from.
    pub fn bases(&self) -> impl Iterator<Item = IpNet> {
        self.0.iter().map(|r| r.base).chain([IpNet::V6(UNIQUE_LOCAL)])
    }

    /// The first subnet of a version that nothing overlaps. Without a pool of IPv6, a unique local one.
    pub fn free(&self, ipv4: bool, taken: &[Taken]) -> Option<IpNet> {
        let mut ranges = self.0.iter().filter(|r| r.base.addr().is_ipv4() == ipv4).peekable();
        if !ipv4 && ranges.peek().is_none() {
            return free_ipv6(taken);
        }
        ranges.find_map(|r| r.free(taken))
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

impl PoolRange {
    /// Goes on behind whatever is in the way: the steps follow from what is taken, not from how large the pool is.
    fn free(&self, taken: &[Taken]) -> Option<IpNet> {
        let last = number(self.base.broadcast());
        let step = 1u128 << (self.base.max_prefix_len() - self.size);
        let mut at = number(self.base.network());
        while at <= last {
            let address = match self.base {
                IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(at as u32)),
                IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(at)),
            };
            let net = IpNet::new(address, self.size).expect("checked when it was made");
            let Some(other) = conflict(&net, taken) else { return Some(net) };
            let behind = number(other.net.broadcast()).max(number(net.broadcast())).checked_add(1)?;
            at = behind.checked_next_multiple_of(step)?;
        }
        None
    }
}

/// RFC 4193, section 3.1, with the bit for local assignment.
const UNIQUE_LOCAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 8);

/// A unique local /64 (RFC 4193: fd and 40 random bits).
fn free_ipv6(taken: &[Taken]) -> Option<IpNet> {
    (0..64).find_map(|_| {
        let random: [u8; 5] = rand::random();
        let mut octets = [0; 16];
        octets[0] = 0xfd;
        octets[1..6].copy_from_slice(&random);
        let net = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(octets), 64));
        conflict(&net, taken).is_none().then_some(net)
    })
}

/// The first address after the network's own.
pub fn first_address(net: &IpNet) -> IpAddr {
    match net {
        IpNet::V4(v4) => Ipv4Addr::from(u32::from(v4.network()).saturating_add(1)).into(),
        IpNet::V6(v6) => Ipv6Addr::from(u128::from(v6.network()).saturating_add(1)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(net: &str) -> Taken {
        Taken { net: net.parse().unwrap(), by: "x".into() }
    }

    fn free(ipv4: bool, taken: &[Taken]) -> Option<String> {
        Pools::default().free(ipv4, taken).map(|net| net.to_string())
    }

    #[test]
    fn pools_are_used_in_dockers_order_around_what_is_taken() {
        let of = |taken: &[Taken]| free(true, taken).unwrap();
        assert_eq!(of(&[]), "172.17.0.0/16");
        assert_eq!(of(&[taken("172.17.3.0/24")]), "172.18.0.0/16");
        assert_eq!(of(&[taken("172.16.0.0/12")]), "192.168.0.0/20");
        assert_eq!(of(&[taken("172.16.0.0/12"), taken("192.168.0.0/17")]), "192.168.128.0/20");
        assert_eq!(free(true, &[taken("172.16.0.0/12"), taken("192.168.0.0/16")]), None);
    }

    #[test]
    fn a_unique_local_prefix_is_chosen() {
        let net = free(false, &[]).unwrap();
        assert!(net.starts_with("fd") && net.ends_with("/64"), "{net}");
    }

    #[test]
    fn configured_pools_take_the_place_of_dockers() {
        let given = |base: &str, size| (base.parse().unwrap(), size);
        let pools = Pools::of(&[given("10.200.0.0/16", 24), given("fd12::/16", 64)]).unwrap();
        let next = |v4, net: &str| pools.free(v4, &[taken(net)]).unwrap().to_string();
        assert_eq!(next(true, "10.200.0.0/23"), "10.200.2.0/24");
        assert_eq!(next(false, "fd12::/64"), "fd12:0:0:1::/64");
        // 2^47 subnets are in the way of the next one.
        assert_eq!(next(false, "fd12::/17"), "fd12:8000::/64");
        assert_eq!(pools.free(true, &[taken("10.0.0.0/8")]), None);
        assert_eq!(pools.free(false, &[taken("fc00::/7")]), None);
        let six_only = Pools::of(&[given("fd12::/48", 64)]).unwrap();
        assert_eq!(six_only.free(true, &[]).unwrap().to_string(), "172.17.0.0/16");
        for (base, size) in [("10.0.0.0/16", 15), ("10.0.0.0/16", 31), ("fd00::/64", 127)] {
            assert!(Pools::of(&[given(base, size)]).is_err(), "{base} {size}");
        }
        let ends = Pools::of(&[given("255.255.255.0/24", 30)]).unwrap();
        assert_eq!(ends.free(true, &[taken("255.255.255.0/24")]), None);
    }

    proptest::proptest! {
        #[test]
        fn what_is_near_is_what_overlaps_one(
            nets in proptest::collection::vec((0u32.., 4u8..=32), 0..12),
            other in (0u32.., 0u8..=32),
        ) {
            let net = |(ip, len): (u32, u8)| IpNet::V4(Ipv4Net::new(Ipv4Addr::from(ip), len).unwrap().trunc());
            let nets: Vec<_> = nets.into_iter().map(net).collect();
            let near = Near::of(nets.iter().copied());
            proptest::prop_assert_eq!(near.meets(&net(other)), nets.iter().any(|n| overlap(n, &net(other))));
            proptest::prop_assert!(!near.meets(&"::/0".parse().unwrap()));
        }

        #[test]
        fn a_chosen_pool_overlaps_nothing(nets in proptest::collection::vec((0u32.., 8u8..=30), 0..40)) {
            let taken: Vec<_> = nets
                .into_iter()
                .map(|(ip, len)| {
                    let net = Ipv4Net::new(Ipv4Addr::from(0xac10_0000 | (ip & 0x000f_ffff)), len).unwrap().trunc();
                    Taken { net: net.into(), by: String::new() }
                })
                .collect();
            match Pools::default().free(true, &taken) {
                Some(net) => proptest::prop_assert!(taken.iter().all(|t| !overlap(&net, &t.net))),
                // Then really every part of every pool is taken.
                None => for n in 17..=31 {
                    let part = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(172, n, 0, 0), 16));
                    proptest::prop_assert!(conflict(&part, &taken).is_some());
                },
            }
        }
    }
}
