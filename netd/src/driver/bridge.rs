//! Bridges and our ends of veth pairs, in the namespace that netd runs in.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::endpoint::Endpoint;
use crate::netlink::route::{self, Mac, PortMode, Veth};
use crate::netlink::{Batch, NetlinkError, Socket, adjust};
use crate::network::{Network, Subnet};
use crate::sysctl::{self, SysctlError};

/// What an MTU is when no uplink tells.
pub const DEFAULT_MTU: u32 = 1500;
/// Prefixes of the interfaces that netd makes: bridges, and our ends of veth pairs.
pub const PREFIXES: [&str; 2] = ["dv-", "dvh"];

/// `BR_STATE_FORWARDING`.
const FORWARDING: u8 = 3;
/// How long a port may take to forward; normally well under a millisecond.
const PORT_PATIENCE: Duration = Duration::from_millis(300);

/// A bridge that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bridge {
    /// Its index.
    pub index: u32,
    /// Of it and its ports.
    pub mtu: u32,
}

/// Why a bridge could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A setting could not be made.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// An interface of that name is somebody else's.
    #[error("the host has an interface {0} that is not ours")]
    Foreign(String),
    /// It vanished right after it was made.
    #[error("bridge {0} vanished")]
    Vanished(String),
}

/// A mac that follows from an address: an address that is given to another container later keeps its mac, so that no
/// neighbour cache is ever stale.
pub fn mac_of(ip: IpAddr) -> Mac {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            Mac([0x02, 0xda, a, b, c, d])
        }
        IpAddr::V6(v6) => {
            let o = v6.octets();
            Mac([0x06, 0xda, o[12], o[13], o[14], o[15]])
        }
    }
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

/// Finds the bridge of a network if it is there and ours.
pub fn find(socket: &Socket, network: &Network, group: u32) -> Result<Option<Bridge>, BridgeError> {
    match route::link(socket, &network.interface)? {
        Some(link) if link.kind == "bridge" && link.group == group => {
            Ok(Some(Bridge { index: link.index, mtu: link.mtu }))
        }
        Some(_) => Err(BridgeError::Foreign(network.interface.clone())),
        None => Ok(None),
    }
}

/// Makes the bridge of a network.
pub fn make(socket: &Socket, network: &Network, group: u32) -> Result<Bridge, BridgeError> {
    let mtu = match network.bridge.mtu {
        Some(mtu) => mtu,
        None => uplink_mtu(socket)?,
    };
    let gateway = network.subnets.first().map_or(IpAddr::from([0; 4]), |s| s.gateway);
    let mut batch = Batch::new();
    route::add_bridge(&mut batch, &network.interface, mac_of(gateway), mtu, group);
    socket.run(&batch)?;
    let bridge =
        find(socket, network, group)?.ok_or_else(|| BridgeError::Vanished(network.interface.clone()))?;
    if mtu != DEFAULT_MTU {
        // An MTU that was changed stays; one that was only given at birth is 1500 again when the last port leaves, and
        // the next start would take that for ours.
        let mut batch = Batch::new();
        adjust::set_mtu(&mut batch, bridge.index, DEFAULT_MTU);
        adjust::set_mtu(&mut batch, bridge.index, mtu);
        socket.run(&batch)?;
    }
    complete(socket, network, bridge)?;
    Ok(bridge)
}

/// The addresses that the bridge of a network has.
pub fn addresses(network: &Network) -> Vec<IpNet> {
    let own = |s: &Subnet| IpNet::new(s.gateway, s.subnet.prefix_len()).expect("the subnet's own prefix");
    network.subnets.iter().map(own).collect()
}

/// The kernel settings of the bridge of a network, as far as this kernel has them.
pub fn settings(network: &Network) -> Vec<(String, &'static str)> {
    let name = &network.interface;
    // Port 53 of the loopback and published ports of 127.0.0.1 lead over the bridge.
    let mut settings = vec![(format!("net/ipv4/conf/{name}/route_localnet"), "1")];
    let ipv6 = std::path::Path::new("/proc/sys/net/ipv6/conf").join(name).exists();
    if ipv6 && network.ipv6 {
        // Its link-local address asks for neighbours: waiting for duplicates would make it mute for a second or two.
        settings.push((format!("net/ipv6/conf/{name}/accept_dad"), "0"));
        settings.push((format!("net/ipv6/conf/{name}/accept_ra"), "0"));
    } else if ipv6 {
        settings.push((format!("net/ipv6/conf/{name}/disable_ipv6"), "1"));
    }
    settings
}

/// Gives a bridge its addresses and settings; repeating it changes nothing.
pub fn complete(socket: &Socket, network: &Network, bridge: Bridge) -> Result<(), BridgeError> {
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
pub fn remove(socket: &Socket, name: &str) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    route::delete_link(&mut batch, name);
    match socket.run(&batch) {
        Err(e) if e.is_missing() => Ok(()),
        other => other,
    }
}

/// A sandbox's place on a bridge.
#[derive(Debug)]
pub struct Plug<'a> {
    /// Which bridge.
    pub bridge: Bridge,
    /// Names and addresses.
    pub endpoint: &'a Endpoint,
    /// The sandbox's namespace.
    pub netns: BorrowedFd<'a>,
    /// Whether it is cut off from others, and whether it meets itself: with br_netfilter a frame to a published port
    /// is redirected while it is bridged, and must go back through the port that it came by.
    pub mode: PortMode,
}

/// Plugs a sandbox into a bridge: all in one exchange.
pub fn plug(socket: &Socket, plug: &Plug<'_>, group: u32) -> Result<(), NetlinkError> {
    let endpoint = plug.endpoint;
    let fallback = endpoint.addresses().next().map_or(Mac([2, 0xda, 0, 0, 0, 1]), |a| mac_of(a.addr()));
    let mut batch = Batch::new();
    let veth = Veth {
        host: &endpoint.host_interface,
        inside: &endpoint.interface,
        mac: endpoint.mac.unwrap_or(fallback),
        mtu: plug.bridge.mtu,
        bridge: plug.bridge.index,
        group,
        netns: plug.netns,
    };
    route::add_veth(&mut batch, &veth);
    if plug.mode != PortMode::default() {
        route::set_port_mode(&mut batch, &endpoint.host_interface, plug.mode);
    }
    socket.run(&batch)
}

/// Waits until the bridge forwards for a sandbox's port, and passes packets of the host itself.
///
/// The kernel turns both on from its link-watch work, some time after the sandbox's end came up (the bridge itself with
/// its first port). A frame that is sent before is lost, and the neighbour discovery that it was for costs the
/// container a second.
pub fn await_forwarding(socket: &Socket, bridge: &str, host_interface: &str) -> Result<(), NetlinkError> {
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
