//! Bridges, and veth pairs whose one end is on a bridge in the namespace that netd runs in.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::errno::Errno;

use super::owned::{self, Within};
use super::{Base, DriverError, Ground, Plug, Plumbing, Unplug};
use crate::endpoint::{Endpoint, Sandbox};
use crate::netlink::route::{self, Mac, PortMode, Veth};
use crate::netlink::tc::{self, Limit};
use crate::netlink::view::Fate;
use crate::netlink::{Batch, NetlinkError, Socket, adjust, link, view};
use crate::network::{Network, Subnet};
use crate::sysctl;

/// What an MTU is when no uplink tells.
pub const DEFAULT_MTU: u32 = 1500;
/// Prefixes of the interfaces that netd makes: bridges, and our ends of veth pairs.
pub const PREFIXES: [&str; 2] = ["dv-", "dvh"];

/// `BR_STATE_FORWARDING`.
const FORWARDING: u8 = 3;
/// How long what the kernel does by itself may take, such as having a port forward; normally well under a millisecond.
const PORT_PATIENCE: Duration = Duration::from_millis(300);

/// A mac that follows from an address: an address that is given to another container later keeps its mac, so that no
/// neighbour cache is ever stale. Of an IPv6 address all 128 bits count: two subnets may end alike.
pub fn mac_of(ip: IpAddr) -> Mac {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            Mac([0x02, 0xda, a, b, c, d])
        }
        IpAddr::V6(v6) => hashed(0x06, &v6.octets()),
    }
}

/// The mac to try when this one of an address is another's.
pub fn mac_after(mac: Mac, ip: IpAddr) -> Mac {
    let octets = match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    hashed(0x0a, &[&mac.0[..], &octets].concat())
}

/// `first` and 40 bits of the FNV-1a hash of `bytes`: the same in every build, unlike the standard library's hashes.
fn hashed(first: u8, bytes: &[u8]) -> Mac {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, step);
    // The high bits of the product are the best mixed; the low ones are folded in.
    let mut mac = [first; 6];
    mac[1..].copy_from_slice(&(hash ^ (hash >> 24)).to_be_bytes()[3..]);
    Mac(mac)
}

/// The MTU of the way out: of the interface that has the default route.
pub fn uplink_mtu(socket: &Socket) -> Result<u32, NetlinkError> {
    let routes = route::routes(socket)?;
    let Some(default) = routes.iter().find(|r| r.net.prefix_len() == 0 && r.net.addr().is_ipv4()) else {
        return Ok(DEFAULT_MTU);
    };
    let links = route::links(socket)?;
    Ok(links.iter().find(|l| l.index == default.index).map_or(DEFAULT_MTU, |l| l.mtu))
}

/// Networks with a bridge of their own.
#[derive(Debug, Clone, Copy)]
pub struct BridgeDriver;

impl Plumbing for BridgeDriver {
    fn find(&self, ground: Ground<'_>, network: &Network) -> Result<Option<Base>, DriverError> {
        let Some(base) = look_up(ground, network)? else { return Ok(None) };
        complete(ground.socket, network, base)?;
        Ok(Some(base))
    }

    fn make(&self, ground: Ground<'_>, network: &Network) -> Result<Base, DriverError> {
        let mtu = match network.mtu() {
            Some(mtu) => mtu,
            None => uplink_mtu(ground.socket)?,
        };
        let mut batch = Batch::new();
        route::add_bridge(&mut batch, &network.interface, mac(network), mtu, ground.group);
        ground.socket.run(&batch)?;
        let gone = || DriverError::Vanished(network.interface.clone());
        let base = look_up(ground, network)?.ok_or_else(gone)?;
        if mtu != DEFAULT_MTU {
            // An MTU that was changed stays; one that was only given at birth is 1500 again when the last port leaves,
            // and the next start would take that for ours.
            let mut batch = Batch::new();
            adjust::set_mtu(&mut batch, base.index, DEFAULT_MTU);
            adjust::set_mtu(&mut batch, base.index, mtu);
            ground.socket.run(&batch)?;
        }
        complete(ground.socket, network, base)?;
        Ok(base)
    }

    fn remove(&self, ground: Ground<'_>, network: &Network, _shared: bool) -> Result<(), DriverError> {
        // Only what is ours: the name may be somebody else's by now.
        match look_up(ground, network) {
            Ok(Some(_)) => Ok(remove_link(ground.socket, &network.interface)?),
            Ok(None) | Err(DriverError::Foreign(_)) => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn is_lasting(&self) -> bool {
        true
    }

    fn plug(&self, ground: Ground<'_>, plug: &Plug<'_>) -> Result<Option<Endpoint>, DriverError> {
        let endpoint = plug.endpoint;
        let fallback = endpoint.addresses().next().map_or(Mac([2, 0xda, 0, 0, 0, 1]), |a| mac_of(a.addr()));
        let mut batch = Batch::new();
        let veth = Veth {
            host: &endpoint.host_interface,
            inside: &endpoint.interface,
            mac: endpoint.mac.unwrap_or(fallback),
            mtu: plug.base.mtu,
            bridge: plug.base.index,
            group: ground.group,
            netns: plug.netns,
        };
        route::add_veth(&mut batch, &veth);
        let mode = port_mode(plug.network, plug.sandbox);
        if mode != PortMode::default() {
            route::set_port_mode(&mut batch, &endpoint.host_interface, mode);
        }
        ground.socket.run(&batch).map_err(|e| name_taken(ground.socket, endpoint, e))?;
        if let Some(limit) = endpoint.bandwidth.as_ref().and_then(|b| b.ingress()) {
            limit_host_end(ground.socket, &endpoint.host_interface, limit)?;
        }
        Ok(None)
    }

    fn await_ready(
        &self,
        ground: Ground<'_>,
        network: &Network,
        endpoint: &Endpoint,
    ) -> Result<(), DriverError> {
        Ok(await_forwarding(ground.socket, &network.interface, &endpoint.host_interface)?)
    }

    fn is_plugged(&self, ground: Ground<'_>, of: &Unplug<'_>) -> Result<bool, DriverError> {
        Ok(own_end(ground, of)?.is_some())
    }

    fn index_inside(&self, ground: Ground<'_>, of: &Unplug<'_>) -> Result<Option<u32>, DriverError> {
        let Some((netns, end)) = of.netns.zip(own_end(ground, of)?) else { return Ok(None) };
        // A container may have moved its own end on.
        let number = view::namespace_number(ground.socket, netns)?;
        Ok(end.parent.filter(|_| number.is_some() && end.beyond == number))
    }

    fn unplug(&self, ground: Ground<'_>, of: &Unplug<'_>) -> Result<(), DriverError> {
        let Some(end) = own_end(ground, of)? else { return Ok(()) };
        let mut batch = Batch::new();
        link::delete(&mut batch, end.index);
        match ground.socket.run(&batch) {
            Err(e) if !e.is_missing() => Err(e.into()),
            _ => Ok(()),
        }
    }
}

/// Which of the two names of a pair was in the way.
fn name_taken(socket: &Socket, endpoint: &Endpoint, error: NetlinkError) -> DriverError {
    if error.errno() != Some(Errno::EEXIST) {
        return error.into();
    }
    match route::link(socket, &endpoint.host_interface) {
        Ok(Some(link)) => DriverError::Foreign(link.name),
        _ => DriverError::NameTaken(endpoint.interface.clone()),
    }
}

/// Our end of an endpoint's pair, if it is there. What else has its name is somebody else's.
fn own_end(ground: Ground<'_>, of: &Unplug<'_>) -> Result<Option<view::Link>, DriverError> {
    let named = view::link(ground.socket, &of.endpoint.host_interface)?;
    if let Some(link) = named.filter(|l| owned::is_named(l, of.endpoint, ground.group)) {
        return Ok(Some(link));
    }
    let opened = if of.netns.is_none() { of.sandbox.holder.namespace().ok() } else { None };
    // With the namespace it is gone.
    let Some(netns) = of.netns.or(opened.as_ref().map(AsFd::as_fd)) else { return Ok(None) };
    let links = view::links(ground.socket)?;
    let all = of.peers.iter().map(|p| p.endpoint).chain([of.endpoint]);
    Ok(Within::look(ground, netns, all)?.end_of(&links, of.endpoint).cloned())
}

/// What leaves our end enters the sandbox.
fn limit_host_end(socket: &Socket, name: &str, limit: Limit) -> Result<(), DriverError> {
    let link = route::link(socket, name)?.ok_or_else(|| DriverError::Vanished(name.to_owned()))?;
    let mut batch = Batch::new();
    tc::limit(&mut batch, name, link.index, limit);
    socket.run(&batch).map_err(|e| match e.errno() {
        // What the kernel answers for a filter that it does not know.
        Some(Errno::ENOENT | Errno::EOPNOTSUPP) => {
            DriverError::Unsupported { kind: "token bucket filter, which limits need", module: "sch_tbf" }
        }
        _ => e.into(),
    })
}

/// Finds the bridge of a network if it is there and ours.
fn look_up(ground: Ground<'_>, network: &Network) -> Result<Option<Base>, DriverError> {
    match route::link(ground.socket, &network.interface)? {
        Some(link) if link.kind == "bridge" && link.group == ground.group => {
            Ok(Some(Base { index: link.index, mtu: link.mtu }))
        }
        Some(_) => Err(DriverError::Foreign(network.interface.clone())),
        None => Ok(None),
    }
}

/// The addresses that the bridge of a network has.
pub fn addresses(network: &Network) -> Vec<IpNet> {
    let own = |s: &Subnet| {
        let gateway = s.gateway.filter(|ip| network.bridge.has_address(ip.is_ipv4()))?;
        Some(IpNet::new(gateway, s.subnet.prefix_len()).expect("the subnet's own prefix"))
    };
    network.subnets.iter().filter_map(own).collect()
}

/// The mac of the bridge of a network.
pub fn mac(network: &Network) -> Mac {
    mac_of(network.subnets.iter().find_map(|s| s.gateway).unwrap_or(IpAddr::from([0; 4])))
}

/// The kernel settings of the bridge of a network, as far as this kernel has them.
pub fn settings(network: &Network) -> Vec<(String, &'static str)> {
    let name = &network.interface;
    // Port 53 of the loopback and published ports of 127.0.0.1 lead over the bridge.
    let mut settings = vec![(format!("net/ipv4/conf/{name}/route_localnet"), "1")];
    let ipv6 = std::path::Path::new("/proc/sys/net/ipv6/conf").join(name).exists();
    if ipv6 && network.ipv6 && network.bridge.has_address(false) {
        // Its link-local address asks for neighbours: waiting for duplicates would make it mute for a second or two.
        settings.push((format!("net/ipv6/conf/{name}/accept_dad"), "0"));
        settings.push((format!("net/ipv6/conf/{name}/accept_ra"), "0"));
        settings.push((format!("net/ipv6/conf/{name}/disable_ipv6"), "0"));
    } else if ipv6 {
        settings.push((format!("net/ipv6/conf/{name}/disable_ipv6"), "1"));
    }
    settings
}

/// How a bridge treats a sandbox's port. One without icc is cut off from others. With br_netfilter a frame to a
/// published port is redirected while it is bridged, and must go back through the port that it came by.
pub fn port_mode(network: &Network, sandbox: &Sandbox) -> PortMode {
    PortMode { isolated: !network.bridge.icc, hairpin: !sandbox.ports.is_empty() }
}

/// Gives a bridge its addresses and settings; repeating it changes nothing.
fn complete(socket: &Socket, network: &Network, bridge: Base) -> Result<(), DriverError> {
    for (setting, value) in settings(network) {
        sysctl::set(&setting, value)?;
    }
    let mut batch = Batch::new();
    for address in addresses(network) {
        route::add_address(&mut batch, bridge.index, address);
    }
    if !batch.is_empty() {
        socket.run(&batch)?;
    }
    Ok(())
}

/// Removes an interface; fine when it is gone.
pub fn remove_link(socket: &Socket, name: &str) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    route::delete_link(&mut batch, name);
    match socket.run(&batch) {
        Err(e) if e.is_missing() => Ok(()),
        other => other,
    }
}

/// Waits until the bridge forwards for a sandbox's port, and passes packets of the host itself.
///
/// The kernel turns both on from its link-watch work, some time after the sandbox's end came up (the bridge itself with
/// its first port). A frame that is sent before is lost, and the neighbour discovery that it was for costs the
/// container a second.
fn await_forwarding(socket: &Socket, bridge: &str, host_interface: &str) -> Result<(), NetlinkError> {
    let start = Instant::now();
    loop {
        let port = route::port_state(socket, host_interface)? == Some(FORWARDING);
        if port && route::link(socket, bridge)?.is_some_and(|l| l.operational) {
            return Ok(());
        }
        if start.elapsed() > PORT_PATIENCE {
            tracing::warn!(bridge, interface = host_interface, "the bridge port does not forward yet");
            return Ok(());
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Whether the bridge forwards for a port, or will by itself: what came up just now takes its time.
pub fn forwards_soon(socket: &Socket, port: &str) -> Result<bool, NetlinkError> {
    soon(|| Ok(route::port_state(socket, port)? == Some(FORWARDING)))
}

/// Whether the host takes what is for an address of its own, or will: of IPv6 that comes some time after the address.
pub fn local_soon(socket: &Socket, ip: IpAddr) -> Result<bool, NetlinkError> {
    soon(|| Ok(view::lookup(socket, ip)?.is_ok_and(|route| route.fate == Fate::Local)))
}

fn soon(is_so: impl Fn() -> Result<bool, NetlinkError>) -> Result<bool, NetlinkError> {
    let start = Instant::now();
    while !is_so()? {
        if start.elapsed() > PORT_PATIENCE {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_follow_from_whole_addresses_and_go_on() {
        let mac = |ip: &str| mac_of(ip.parse().unwrap());
        assert_eq!(mac("10.89.0.2").to_string(), "02:da:0a:59:00:02");
        assert_ne!(mac("fd00:1::2"), mac("fd00:2::2"), "their last 32 bits are the same");
        assert_eq!(mac("fd00:1::2"), mac("fd00:1::2"));
        assert_eq!(mac("fd00:1::2").0[0] & 3, 2, "local, and of one interface");
        let ip = "10.89.0.2".parse().unwrap();
        let (second, third) = (mac_after(mac_of(ip), ip), mac_after(mac_after(mac_of(ip), ip), ip));
        assert!(second != mac_of(ip) && third != second && second.0[0] & 3 == 2);
    }
}
