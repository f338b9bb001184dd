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

/// 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/20 in steps of 16.
fn ipv4_pools() -> impl Iterator<Item = Ipv4Net> {
    let large = (17..=31).map(|n| Ipv4Net::new_assert(Ipv4Addr::new(172, n, 0, 0), 16));
    let small = (0..16).map(|n| Ipv4Net::new_assert(Ipv4Addr::new(192, 168, n * 16, 0), 20));
    large.chain(small)
}

/// The first pool that nothing overlaps.
pub fn free_ipv4(taken: &[Taken]) -> Option<IpNet> {
    ipv4_pools().map(IpNet::V4).find(|net| conflict(net, taken).is_none())
}

/// A unique local /64 (RFC 4193: fd and 40 random bits).
pub fn free_ipv6(taken: &[Taken]) -> Option<IpNet> {
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

    #[test]
    fn pools_are_used_in_dockers_order_around_what_is_taken() {
        assert_eq!(free_ipv4(&[]).unwrap().to_string(), "172.17.0.0/16");
        assert_eq!(free_ipv4(&[taken("172.17.3.0/24")]).unwrap().to_string(), "172.18.0.0/16");
        assert_eq!(free_ipv4(&[taken("172.16.0.0/12")]).unwrap().to_string(), "192.168.0.0/20");
        let most = [taken("172.16.0.0/12"), taken("192.168.0.0/17")];
        assert_eq!(free_ipv4(&most).unwrap().to_string(), "192.168.128.0/20");
        assert_eq!(free_ipv4(&[taken("172.16.0.0/12"), taken("192.168.0.0/16")]), None);
    }

    #[test]
    fn a_unique_local_prefix_is_chosen() {
        let net = free_ipv6(&[]).unwrap();
        assert!(net.prefix_len() == 64 && net.to_string().starts_with("fd"));
    }

    proptest::proptest! {
        #[test]
        fn a_chosen_pool_overlaps_nothing(nets in proptest::collection::vec((0u32.., 8u8..=30), 0..40)) {
            let taken: Vec<_> = nets
                .into_iter()
                .map(|(ip, len)| {
                    let net = Ipv4Net::new(Ipv4Addr::from(0xac10_0000 | (ip & 0x000f_ffff)), len).unwrap().trunc();
                    Taken { net: net.into(), by: String::new() }
                })
                .collect();
            if let Some(net) = free_ipv4(&taken) {
                proptest::prop_assert!(taken.iter().all(|t| !overlap(&net, &t.net)));
            }
        }
    }
}
