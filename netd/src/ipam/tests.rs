use super::*;
use crate::network::Driver;
use crate::network::spec::chosen;
use proptest::prelude::*;

fn subnet(net: &str) -> Subnet {
    chosen(net.parse().unwrap(), Driver::Bridge)
}

fn pool(net: &str) -> Pool {
    Pool::new(&subnet(net))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn next(p: &mut Pool) -> String {
    p.take_next(&[]).unwrap().addr().to_string()
}

#[test]
fn addresses_ascend_and_a_released_one_rests() {
    let mut p = pool("10.0.0.0/29");
    assert_eq!([next(&mut p), next(&mut p), next(&mut p)], ["10.0.0.2", "10.0.0.3", "10.0.0.4"]);
    p.release(ip("10.0.0.3"));
    assert_eq!([next(&mut p), next(&mut p), next(&mut p)], ["10.0.0.5", "10.0.0.6", "10.0.0.3"]);
    assert_eq!(p.take_next(&[]), Err(IpamError::Full("10.0.0.0/29".parse().unwrap())));
}

#[test]
fn an_exhausted_range_is_told_as_the_range() {
    let range: IpNet = "10.0.0.8/31".parse().unwrap();
    let mut p = Pool::new(&Subnet {
        subnet: "10.0.0.0/24".parse().unwrap(),
        gateway: Some(ip("10.0.0.1")),
        ip_range: Some(range),
        aux: std::collections::BTreeMap::default(),
    });
    assert_eq!([next(&mut p), next(&mut p)], ["10.0.0.8", "10.0.0.9"]);
    assert_eq!(p.take_next(&[]), Err(IpamError::Full(range)));
}

#[test]
fn a_range_bounds_what_is_chosen_but_not_what_is_asked_for() {
    let mut subnet = subnet("10.0.0.0/24");
    subnet.ip_range = Some("10.0.0.128/30".parse().unwrap());
    subnet.aux.insert("router".into(), ip("10.0.0.129"));
    let mut p = Pool::new(&subnet);
    let chosen: Vec<_> = std::iter::from_fn(|| p.take_next(&[]).ok()).map(|n| n.addr().to_string()).collect();
    assert_eq!(chosen, ["10.0.0.128", "10.0.0.130", "10.0.0.131"]);
    assert!(p.take(ip("10.0.0.9"), &[]).is_ok());
    assert!(matches!(p.take(ip("10.0.0.9"), &[]), Err(IpamError::Taken(_))));
    assert!(matches!(p.take(ip("10.0.0.129"), &[]), Err(IpamError::Reserved { .. })));
    assert!(matches!(p.take(ip("10.0.1.9"), &[]), Err(IpamError::Outside { .. })));
    // Giving back what was never given changes nothing.
    p.release(ip("10.0.0.129"));
    assert!(matches!(p.take(ip("10.0.0.129"), &[]), Err(IpamError::Reserved { .. })));
}

#[test]
fn the_hosts_own_addresses_are_left_out() {
    let mut p = pool("10.0.0.0/29");
    let host = [ip("10.0.0.2"), ip("10.0.0.3"), ip("10.0.0.6")];
    assert_eq!(p.take_next(&host).unwrap().addr(), ip("10.0.0.4"));
    assert_eq!(p.take(ip("10.0.0.6"), &host), Err(IpamError::Host(ip("10.0.0.6"))));
    assert_eq!(p.take_next(&host).unwrap().addr(), ip("10.0.0.5"));
    assert!(p.take_next(&host).is_err());
}

#[test]
fn the_first_address_of_a_wire_is_given_only_when_asked_for() {
    let mut p = Pool::new(&chosen("10.0.0.0/30".parse().unwrap(), Driver::Macvlan));
    assert_eq!(next(&mut p), "10.0.0.2");
    assert!(p.take_next(&[]).is_err());
    assert!(p.take(ip("10.0.0.1"), &[]).is_ok());
}

/// Were time to follow from the size of the subnet, this would not end.
#[test]
fn a_huge_subnet_costs_what_is_used_of_it() {
    for net in ["fd00::/64", "fd00::/8", "10.0.0.0/8"] {
        let mut p = pool(net);
        let first = p.take_next(&[]).unwrap().addr();
        let mut all = vec![first];
        for _ in 0..20_000 {
            all.push(p.take_next(&[]).unwrap().addr());
        }
        // Everything at the front is used, and the cursor stands at the very end.
        p.restore(p.address(p.last));
        let after = p.take_next(&[]).unwrap().addr();
        assert!(!all.contains(&after), "{net}: {after} was given twice");
        for ip in &all {
            p.release(*ip);
        }
        p.restore(p.address(p.last));
        assert_eq!(p.take_next(&[]).unwrap().addr(), first, "{net}");
    }
}

#[test]
fn the_last_addresses_of_all_are_no_edge_to_fall_over() {
    let mut p = pool("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126");
    assert!(next(&mut p).ends_with("fffe") && next(&mut p).ends_with("ffff"));
    assert!(p.take_next(&[]).is_err());
    let mut p = pool("255.255.255.252/30");
    assert_eq!(next(&mut p), "255.255.255.254");
    assert!(p.take_next(&[]).is_err());
}

/// A small subnet with a range and aux addresses, some of which are its gateway's or broadcast's.
fn small() -> impl Strategy<Value = Subnet> {
    let net = prop_oneof![Just("10.0.0.16/28"), Just("fd00::10/124")];
    (net, 0u8..16, prop::collection::vec(0u8..16, 0..4), 28u8..=32, 0u8..16).prop_map(
        |(net, gateway, aux, prefix, within)| {
            let net: IpNet = net.parse().unwrap();
            let nth = |n: u8| match net {
                IpNet::V4(v4) => IpAddr::V4((u32::from(v4.network()) + u32::from(n)).into()),
                IpNet::V6(v6) => IpAddr::V6((u128::from(v6.network()) + u128::from(n)).into()),
            };
            let prefix = if net.addr().is_ipv4() { prefix } else { prefix + 96 };
            Subnet {
                subnet: net,
                gateway: (gateway > 0).then(|| nth(gateway)),
                ip_range: Some(IpNet::new(nth(within), prefix).unwrap().trunc()),
                aux: aux.into_iter().map(|n| (format!("a{n}"), nth(n))).collect(),
            }
        },
    )
}

/// What may never be given of a subnet.
fn reserved(of: &Subnet) -> Vec<IpAddr> {
    let mut all: Vec<_> = of.aux.values().copied().chain(of.gateway).collect();
    all.push(of.subnet.network());
    if of.subnet.addr().is_ipv4() {
        all.push(of.subnet.broadcast());
    }
    all
}

fn members(of: &Subnet) -> Vec<IpAddr> {
    let first = number(of.subnet.network());
    (0..16).map(|n| Pool::new(of).address(first + n)).collect()
}

proptest! {
    /// Compared with a plain list: never two holders, never a reserved address, never one outside of the range unless it
    /// was asked for, full only when really full; and a pool made again from what is held behaves the same.
    #[test]
    fn no_address_is_given_twice(
        of in small(),
        steps in prop::collection::vec((0u8..4, 0usize..16), 1..200),
    ) {
        let (all, never) = (members(&of), reserved(&of));
        let range = of.ip_range.unwrap();
        let spared = of.gateway.is_none().then(|| all[1]);
        let mut p = Pool::new(&of);
        let mut held: Vec<IpAddr> = Vec::new();
        for (what, which) in steps {
            match what {
                0 => {
                    let mut free = all.iter().filter(|ip| {
                        range.contains(*ip) && !never.contains(ip) && !held.contains(ip) && spared != Some(**ip)
                    });
                    if let Ok(net) = p.take_next(&[]) {
                            prop_assert!(free.any(|ip| *ip == net.addr()), "{} was not free", net);
                            prop_assert_eq!(net.prefix_len(), of.subnet.prefix_len());
                            held.push(net.addr());
                    } else {
                        prop_assert_eq!(free.next(), None);
                    }
                }
                1 => {
                    let ip = all[which];
                    let may = !never.contains(&ip) && !held.contains(&ip);
                    prop_assert_eq!(p.take(ip, &[]).is_ok(), may);
                    if may {
                        held.push(ip);
                    }
                }
                2 => {
                    p = Pool::new(&of);
                    for ip in &held {
                        p.restore(*ip);
                    }
                }
                _ if !held.is_empty() => p.release(held.remove(which % held.len())),
                _ => {}
            }
        }
    }

    /// Pools of other subnets do not hear of it.
    #[test]
    fn an_address_is_one_pools_business(given in 0u32..1 << 16) {
        let mut pools = [pool("10.0.0.0/24"), pool("10.0.1.0/24"), pool("10.0.0.0/16")];
        let ip: IpAddr = Ipv4Addr::from(0x0a00_0000 | given).into();
        for p in &mut pools {
            p.restore(ip);
        }
        for (p, net) in pools.iter_mut().zip(["10.0.0.0/24", "10.0.1.0/24", "10.0.0.0/16"]) {
            let mine = net.parse::<IpNet>().unwrap().contains(&ip);
            let refused = p.take(ip, &[]);
            prop_assert_eq!(matches!(refused, Err(IpamError::Outside { .. })), !mine);
            p.release(ip);
        }
    }
}
