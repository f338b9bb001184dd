//! CHECK: what ADD answered, against netd's record and against the kernel.

use std::fs;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::Path;

use davit_contracts::network::{ListSandboxesRequest, Sandbox};
use davit_sys::netns;
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::identity::sandbox_id;
use crate::call::Attachment;
use crate::config::Config;
use crate::failure::{Code, Failure};
use crate::netd::{Netd, answer};
use crate::result::{Expected, expected};

/// Compares; the first difference is the answer.
pub(super) async fn check(at: &Attachment, config: &Config) -> Result<(), Failure> {
    let previous = config
        .previous
        .as_ref()
        .ok_or_else(|| Failure::new(Code::Config, "CHECK needs the field 'prevResult'"))?;
    let wanted = expected(previous, &at.interface)?;
    let netd = Netd::connect(config.socket.as_deref()).await?;
    let id = sandbox_id(&config.name, &at.container, &at.interface);
    let all = answer(netd.endpoints().list(ListSandboxesRequest {})).await?.sandboxes;
    let sandbox = all.iter().find(|s| s.id == id).ok_or_else(|| {
        differs(at, format!("netd knows nothing of it on network '{}'", config.network))
            .with_details("DEL and ADD attach it again")
    })?;
    compare_record(at, &wanted, sandbox)?;
    let path = at.netns.as_deref().unwrap_or(Path::new(""));
    let fd = netns::open(path).map_err(|e| Failure::new(Code::Unknown, e.to_string()))?;
    let seen = netns::visit(fd.as_fd(), || look(&at.interface))
        .map_err(|e| Failure::new(Code::Unknown, e.to_string()))?
        .map_err(|e| Failure::new(Code::Io, format!("cannot look into {}: {e}", path.display())))?;
    compare_kernel(at, &wanted, &seen)
}

fn differs(at: &Attachment, what: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Differs, format!("{} of container {}: {what}", at.interface, at.container))
}

fn compare_record(at: &Attachment, wanted: &Expected, sandbox: &Sandbox) -> Result<(), Failure> {
    let Some(endpoint) = sandbox.endpoints.first() else {
        return Err(differs(at, "it is not connected any more"));
    };
    for address in &wanted.addresses {
        let text = address.to_string();
        if endpoint.ip != text && endpoint.ip6 != text {
            return Err(differs(at, format!("{text} is not its address at netd")));
        }
    }
    Ok(())
}

/// What there is of an interface.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    there: bool,
    up: bool,
    mac: Option<String>,
    addresses: Vec<IpNet>,
    /// Default routes of any interface: IPv4, IPv6. Another network may have brought the one that counts.
    ways_out: (bool, bool),
}

/// Looks at an interface of the calling thread's namespace.
fn look(name: &str) -> std::io::Result<Seen> {
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
    seen.ways_out = (leads_out_v4(&table("route")), leads_out_v6(&table("ipv6_route")));
    Ok(seen)
}

/// /proc/net/route: interface, destination, gateway, flags, ..., mask.
fn leads_out_v4(table: &str) -> bool {
    table.lines().skip(1).any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000")
    })
}

/// /proc/net/ipv6_route: destination, prefix length, ..., interface. The kernel has a route of `lo` that refuses.
fn leads_out_v6(table: &str) -> bool {
    table.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let everywhere =
            fields.first().is_some_and(|d| d.bytes().all(|b| b == b'0')) && fields.get(1) == Some(&"00");
        everywhere && fields.last() != Some(&"lo")
    })
}

fn compare_kernel(at: &Attachment, wanted: &Expected, seen: &Seen) -> Result<(), Failure> {
    if !seen.there {
        return Err(differs(at, "the interface is gone"));
    }
    if !seen.up {
        return Err(differs(at, "the interface is down"));
    }
    if let (Some(wanted), Some(mac)) = (&wanted.mac, &seen.mac)
        && !wanted.eq_ignore_ascii_case(mac)
    {
        return Err(differs(at, format!("its mac is {mac}, not {wanted}")));
    }
    if let Some(lost) = wanted.addresses.iter().find(|a| !seen.addresses.contains(a)) {
        return Err(differs(at, format!("it has lost its address {lost}")));
    }
    for gateway in &wanted.gateways {
        let there = if gateway.is_ipv4() { seen.ways_out.0 } else { seen.ways_out.1 };
        if !there {
            return Err(differs(at, format!("no default route is there, which was to lead to {gateway}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_found_in_the_kernels_tables() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n";
        assert!(!leads_out_v4(v4));
        assert!(!leads_out_v4(&format!("{v4}eth0\t0000590A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n")));
        assert!(leads_out_v4(&format!("{v4}eth0\t00000000\t0100590A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n")));
        let zero = "0".repeat(32);
        let line = |interface: &str| {
            format!("{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 {interface}\n")
        };
        assert!(!leads_out_v6(&line("lo")) && leads_out_v6(&line("eth0")));
    }

    #[test]
    fn the_loopback_of_this_namespace_is_seen() {
        let seen = look("lo").unwrap();
        assert!(seen.there && seen.addresses.contains(&"127.0.0.1/8".parse().unwrap()), "{seen:?}");
        assert!(!look("nowhere").unwrap().there);
    }
}
