//! What there is of an interface in the calling thread's namespace: addresses (getifaddrs(3)) and routes (proc(5)).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::expected::Route;

/// `RTF_REJECT` (linux/route.h): blackhole, unreachable, prohibit.
const REJECT: u32 = 0x200;

/// What there is of an interface.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) there: bool,
    pub(super) up: bool,
    pub(super) mac: Option<String>,
    pub(super) addresses: Vec<IpNet>,
    /// Of any interface, those that lead somewhere.
    routes: Vec<Route>,
}

impl Seen {
    /// Whether a route is there.
    pub(super) fn leads(&self, wanted: &Route) -> bool {
        self.routes
            .iter()
            .any(|r| r.to == wanted.to && (wanted.gateway.is_none() || r.gateway == wanted.gateway))
    }
}

/// Looks at an interface of the calling thread's namespace.
pub(super) fn look(name: &str) -> std::io::Result<Seen> {
    let mut seen = Seen::default();
    for entry in getifaddrs()?.filter(|e| e.interface_name == name) {
        seen.there = true;
        seen.up = entry.flags.contains(InterfaceFlags::IFF_UP);
        let Some(address) = entry.address else { continue };
        if let Some(mac) = address.as_link_addr().and_then(nix::sys::socket::LinkAddr::addr) {
            seen.mac = Some(mac.map(|b| format!("{b:02x}")).join(":"));
        }
        let ip: Option<IpAddr> = address
            .as_sockaddr_in()
            .map(|a| IpAddr::V4(a.ip()))
            .or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())));
        let mask: Option<IpAddr> = entry.netmask.and_then(|m| {
            m.as_sockaddr_in()
                .map(|a| IpAddr::V4(a.ip()))
                .or_else(|| m.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        });
        if let (Some(ip), Some(mask)) = (ip, mask)
            && let Ok(net) = IpNet::with_netmask(ip, mask)
        {
            seen.addresses.push(net);
        }
    }
    let table = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
    seen.routes.extend(table("route").lines().skip(1).filter_map(route_v4));
    seen.routes.extend(table("ipv6_route").lines().filter_map(route_v6));
    Ok(seen)
}

/// /proc/net/route: interface, destination, gateway, flags, ..., mask; addresses as numbers of this machine.
fn route_v4(line: &str) -> Option<Route> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let number = |n: usize| u32::from_str_radix(fields.get(n)?, 16).ok();
    let ip = |n: usize| Some(Ipv4Addr::from(number(n)?.to_ne_bytes()));
    let to = IpNet::with_netmask(ip(1)?.into(), ip(7)?.into()).ok()?;
    let gateway = ip(2).filter(|gateway| !gateway.is_unspecified()).map(IpAddr::V4);
    (number(3)? & REJECT == 0).then_some(Route { to, gateway })
}

/// /proc/net/ipv6_route: destination, prefix length, source, prefix length, gateway, ..., flags, interface.
fn route_v6(line: &str) -> Option<Route> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let ip = |n: usize| Some(Ipv6Addr::from(u128::from_str_radix(fields.get(n)?, 16).ok()?));
    let length = u8::from_str_radix(fields.get(1)?, 16).ok()?;
    let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
    let to = IpNet::new(ip(0)?.into(), length).ok()?;
    let gateway = ip(4).filter(|gateway| !gateway.is_unspecified()).map(IpAddr::V6);
    (flags & REJECT == 0).then_some(Route { to, gateway })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(to: &str, gateway: Option<&str>) -> Route {
        Route { to: to.parse().unwrap(), gateway: gateway.map(|g| g.parse().unwrap()) }
    }

    #[test]
    fn routes_are_found_in_the_kernels_tables() {
        let hex = |ip: &str| format!("{:08X}", u32::from_ne_bytes(ip.parse::<Ipv4Addr>().unwrap().octets()));
        let line = |to: &str, by: &str, flags: &str, mask: &str| {
            format!("eth0\t{}\t{}\t{flags}\t0\t0\t0\t{}\t0\t0\t0", hex(to), hex(by), hex(mask))
        };
        let v4 = line("0.0.0.0", "10.89.0.1", "0003", "0.0.0.0");
        assert_eq!(route_v4(&v4), Some(route("0.0.0.0/0", Some("10.89.0.1"))));
        let v4 = line("10.89.0.0", "0.0.0.0", "0001", "255.255.255.0");
        assert_eq!(route_v4(&v4), Some(route("10.89.0.0/24", None)));
        assert_eq!(route_v4(&line("0.0.0.0", "0.0.0.0", "0201", "0.0.0.0")), None);
        let zero = "0".repeat(32);
        let line = |by: &str, flags: &str| {
            format!("{zero} 00 {zero} 00 {by} 00000400 00000001 00000000 {flags} eth0")
        };
        let by = format!("fd00{}1", "0".repeat(27));
        assert_eq!(route_v6(&line(&by, "00000003")), Some(route("::/0", Some("fd00::1"))));
        assert_eq!(route_v6(&line(&zero, "00200200")), None);
        assert!(route_v4("").is_none() && route_v6("x").is_none());
    }

    #[test]
    fn a_route_is_there_by_the_gateway_that_is_meant() {
        let seen = Seen { routes: vec![route("0.0.0.0/0", Some("10.0.0.1"))], ..Seen::default() };
        assert!(seen.leads(&route("0.0.0.0/0", Some("10.0.0.1"))) && seen.leads(&route("0.0.0.0/0", None)));
        assert!(!seen.leads(&route("0.0.0.0/0", Some("10.0.0.2"))) && !seen.leads(&route("::/0", None)));
    }

    #[test]
    fn the_loopback_of_this_namespace_is_seen() {
        let seen = look("lo").unwrap();
        assert!(seen.there && seen.addresses.contains(&"127.0.0.1/8".parse().unwrap()), "{seen:?}");
        assert!(!look("nowhere").unwrap().there);
    }
}
