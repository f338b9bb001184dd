//! What is set up inside a sandbox: one visit of a thread to its namespace, which brings back the DNS sockets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::BorrowedFd;

use davit_sys::netns::{self, NetnsError};
use ipnet::IpNet;
use nix::errno::Errno;

use super::{DriverError, inward};
use crate::endpoint::{Endpoint, Way};
use crate::firewall;
use crate::netlink::tc::{self, Limit};
use crate::netlink::{Batch, NetlinkError, Protocol, Socket, adjust, route, view};
use crate::sysctl::{self, SysctlError};

/// Where containers ask for names.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// What stands for the interface's name in a setting, as docker has it.
pub const IFNAME: &str = "IFNAME";
/// The loopback's index: it is the first interface of every namespace.
const LOOPBACK: u32 = 1;

/// An interface to configure.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Its name inside.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Settings, with `IFNAME` in place of its name, and values.
    pub sysctls: Vec<(String, String)>,
    /// Of what leaves by it.
    pub limit: Option<Limit>,
    /// Of what enters by it, where no other end holds that back.
    pub inward: Option<Limit>,
    /// Whether neighbours may know its addresses with another mac: then they are told when it comes up, and by
    /// [`announce`]. On a bridge those packets go to every port, and the attach waits for them.
    pub announced: bool,
}

impl Interface {
    /// How an endpoint's interface is set up.
    pub fn of(endpoint: &Endpoint, announced: bool) -> Self {
        Self {
            name: endpoint.interface.clone(),
            addresses: endpoint.addresses().collect(),
            sysctls: endpoint.sysctls.clone(),
            limit: endpoint.bandwidth.as_ref().and_then(|b| b.egress()),
            inward: endpoint.bandwidth.as_ref().and_then(|b| b.ingress()).filter(|_| !endpoint.is_bridged()),
            announced,
        }
    }

    /// Whether IPv6 is on, in the calling thread's namespace. Also not with an MTU below 1280.
    pub fn has_ipv6(&self) -> bool {
        sysctl::get(&self.ipv6_setting()).is_ok_and(|off| off == "0")
    }

    /// The setting that turns IPv6 off for it: on without an IPv6 address.
    pub fn ipv6_setting(&self) -> String {
        format!("net/ipv6/conf/{}/disable_ipv6", self.name)
    }
}

/// What a visit is to do.
#[derive(Debug, Clone, Default)]
pub struct Visit {
    /// Interfaces to configure and set up.
    pub interfaces: Vec<Interface>,
    /// Default routes to remove.
    pub routes_out: Vec<Way>,
    /// Default routes to add.
    pub routes_in: Vec<Way>,
    /// Whether a default route that is there already stays the only one of its family.
    pub yields: bool,
    /// Whether to open the resolver, and the ports that it had before.
    pub resolver: Option<Option<(u16, u16)>>,
}

/// The resolver's sockets, opened inside.
#[derive(Debug)]
pub struct Resolver {
    /// UDP.
    pub udp: UdpSocket,
    /// TCP.
    pub tcp: TcpListener,
    /// Their ports.
    pub ports: (u16, u16),
}

/// What came of a visit.
#[derive(Debug)]
pub struct Visited {
    /// The resolver, when it was to be opened.
    pub resolver: Option<Resolver>,
    /// Default routes that were not added, since others are there.
    pub yielded: Vec<Way>,
}

/// Why a sandbox could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InsideError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A setting that was asked for.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// What enters could not be limited.
    #[error(transparent)]
    Inward(#[from] DriverError),
    /// An interface that we made is not there.
    #[error("the sandbox has no interface {0}")]
    Missing(String),
    /// The resolver's port could not be redirected.
    #[error(transparent)]
    Redirect(#[from] firewall::FirewallError),
    /// A resolver's socket.
    #[error("cannot open the resolver's socket in the sandbox")]
    Resolver(#[source] io::Error),
}

/// Visits a sandbox.
pub fn visit(sandbox: BorrowedFd<'_>, visit: &Visit) -> Result<Visited, InsideError> {
    netns::visit(sandbox, || match work(visit) {
        // An address of IPv6 where that is off.
        Err(InsideError::Netlink(e)) if e.errno() == Some(Errno::EACCES) => work(&allowed(visit)?),
        other => other,
    })?
}

/// A visit without IPv6 on interfaces that are to have none, by a setting of the endpoint or of the container's own for all
/// interfaces. On others it is turned on: what new ones begin with may come from the host.
fn allowed(visit: &Visit) -> Result<Visit, InsideError> {
    let mut visit = visit.clone();
    for interface in visit.interfaces.iter_mut().filter(|i| !i.has_ipv6()) {
        let path = interface.ipv6_setting();
        let asked = interface
            .sysctls
            .iter()
            .any(|(setting, value)| setting_path(setting, &interface.name) == path && value != "0");
        if asked || sysctl::get("net/ipv6/conf/all/disable_ipv6").is_ok_and(|v| v != "0") {
            interface.addresses.retain(|a| a.addr().is_ipv4());
            visit.routes_in.retain(|way| way.ipv4 || way.interface != interface.name);
        } else {
            sysctl::set_inside(&path, "0")?;
        }
    }
    Ok(visit)
}

fn work(visit: &Visit) -> Result<Visited, InsideError> {
    let socket = Socket::open(Protocol::Route)?;
    let mut batch = Batch::new();
    route::set_up(&mut batch, LOOPBACK);
    for interface in &visit.interfaces {
        let missing = || InsideError::Missing(interface.name.clone());
        let link = route::link(&socket, &interface.name)?.ok_or_else(missing)?;
        let index = link.index;
        if let Some(limit) = interface.inward {
            inward::hold_back(&socket, &link, limit)?;
        }
        if interface.announced {
            // A kernel that cannot loses little: neighbours find out after some seconds.
            for setting in ["ipv4/conf/IFNAME/arp_notify", "ipv6/conf/IFNAME/ndisc_notify"] {
                let _ = sysctl::set_inside(&format!("net/{}", setting.replace(IFNAME, &interface.name)), "1");
            }
        }
        if interface.addresses.iter().all(|a| a.addr().is_ipv4()) {
            // As docker: without IPv6 on the network no link-local address either, whose solicitations and group
            // reports would go to every port of a bridge. A kernel without IPv6 has no such setting.
            let _ = sysctl::set_inside(&interface.ipv6_setting(), "1");
        }
        for (setting, value) in &interface.sysctls {
            sysctl::set_inside(&setting_path(setting, &interface.name), value)?;
        }
        for address in &interface.addresses {
            route::add_address(&mut batch, index, *address);
        }
        route::set_up(&mut batch, index);
        if let Some(limit) = interface.limit {
            tc::limit(&mut batch, &interface.name, index, limit);
        }
    }
    let present = if visit.yields { route::routes(&socket)? } else { Vec::new() };
    let mut yielded = Vec::new();
    for way in &visit.routes_in {
        if present.iter().any(|r| r.net.prefix_len() == 0 && r.net.addr().is_ipv4() == way.ipv4) {
            yielded.push(way.clone());
            continue;
        }
        let index = index_of(&socket, &way.interface)?;
        route::add_default_route(&mut batch, way, index);
    }
    remove_routes(&socket, &visit.routes_out)?;
    socket.run(&batch)?;
    Ok(Visited { resolver: visit.resolver.map(open_resolver).transpose()?, yielded })
}

/// Tells neighbours once more what macs these interfaces have. What the kernel says when one comes up is lost when its
/// bridge port does not forward yet; it says it again when a mac is set, to what it is already (`arp_notify`,
/// `ndisc_notify` in ip-sysctl).
pub fn announce(sandbox: BorrowedFd<'_>, interfaces: &[String]) -> Result<(), InsideError> {
    netns::visit(sandbox, || {
        let socket = Socket::open(Protocol::Route)?;
        let mut batch = Batch::new();
        for link in view::links(&socket)?.into_iter().filter(|l| interfaces.contains(&l.name)) {
            if let Some(mac) = link.mac {
                adjust::set_mac(&mut batch, link.index, mac);
            }
        }
        if batch.is_empty() { Ok(()) } else { Ok(socket.run(&batch)?) }
    })?
}

/// `net.ipv4.conf.IFNAME.forwarding` of `eth0.5`: the name is one part of the path, dots and all.
pub fn setting_path(setting: &str, interface: &str) -> String {
    let parts: Vec<_> = setting.split('.').map(|p| if p == IFNAME { interface } else { p }).collect();
    parts.join("/")
}

fn index_of(socket: &Socket, name: &str) -> Result<u32, InsideError> {
    route::link(socket, name)?.map(|l| l.index).ok_or_else(|| InsideError::Missing(name.to_owned()))
}

/// A route may have gone with its interface, or by the container's own hand.
fn remove_routes(socket: &Socket, routes: &[Way]) -> Result<(), InsideError> {
    for way in routes {
        let Some(link) = route::link(socket, &way.interface)? else { continue };
        let mut batch = Batch::new();
        route::delete_default_route(&mut batch, way, link.index);
        match socket.run(&batch) {
            Err(e) if !e.is_missing() => return Err(e.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Opens the sockets, on the former ports when they are free, so that connections of clients go on; the redirection
/// is written when the ports are new.
fn open_resolver(former: Option<(u16, u16)>) -> Result<Resolver, InsideError> {
    let at = |port| SocketAddr::new(RESOLVER.into(), port);
    let open = |(udp, tcp): (u16, u16)| -> io::Result<Resolver> {
        let (udp, tcp) = (UdpSocket::bind(at(udp))?, TcpListener::bind(at(tcp))?);
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let ports = (udp.local_addr()?.port(), tcp.local_addr()?.port());
        Ok(Resolver { udp, tcp, ports })
    };
    let again = former.and_then(|ports| open(ports).ok());
    if let Some(resolver) = again {
        return Ok(resolver);
    }
    let resolver = open((0, 0)).map_err(InsideError::Resolver)?;
    firewall::redirect_dns(RESOLVER.into(), resolver.ports.0, resolver.ports.1)?;
    Ok(resolver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_names_its_interface() {
        let path = setting_path("net.ipv4.conf.IFNAME.log_martians", "eth0.5");
        assert_eq!(path, "net/ipv4/conf/eth0.5/log_martians");
    }
}
