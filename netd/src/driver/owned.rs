//! Which interfaces of the host are ours, whatever became of their names and marks: anybody who administers the host may
//! have given ours another name, or the name to something else.
//!
//! ```text
//! our end of a pair    has its name and our mark, or its other end is the endpoint's interface inside
//! bridge               has its name and our mark, or more that only it would have
//! ```

use std::os::fd::BorrowedFd;

use davit_sys::netns;
use nix::errno::Errno;

use super::{DriverError, bridge};
use crate::endpoint::Endpoint;
use crate::netlink::view::{self, Link};
use crate::netlink::{Batch, NetlinkError, Protocol, Socket, adjust, route};
use crate::network::Network;

/// A sandbox's namespace, as far as it tells what leads into it.
#[derive(Debug, Default)]
pub struct Within {
    /// The number that the host's namespace has for it.
    number: Option<i32>,
    links: Vec<Link>,
}

impl Within {
    /// Looks into a namespace; `socket` is one of the host's.
    pub fn look(socket: &Socket, netns: BorrowedFd<'_>) -> Result<Self, DriverError> {
        let number = view::namespace_number(socket, netns)?;
        let links = netns::visit(netns, || view::links(&Socket::open(Protocol::Route)?))??;
        Ok(Self { number, links })
    }

    /// Whether a link of the host is the other end of an endpoint's interface in it.
    pub fn is_end(&self, link: &Link, endpoint: &Endpoint) -> bool {
        let leads_here = link.kind == "veth" && self.number.is_some() && link.beyond == self.number;
        let known = |l: &Link| l.name == endpoint.interface || (l.mac.is_some() && l.mac == endpoint.mac);
        leads_here && self.links.iter().any(|l| Some(l.index) == link.parent && known(l))
    }
}

/// What is there of our end of an endpoint's pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End<'a> {
    /// Nothing.
    Gone,
    /// It.
    Ours(&'a Link),
    /// It, by another name.
    Renamed(&'a Link),
    /// Something else that has its name.
    Foreign(&'a Link),
}

impl<'a> End<'a> {
    /// Finds it among the host's links. The namespace is looked into where name and mark do not tell.
    pub fn find(
        links: &'a [Link],
        endpoint: &Endpoint,
        group: u32,
        within: impl FnOnce() -> Result<Within, DriverError>,
    ) -> Result<Self, DriverError> {
        let named = links.iter().find(|l| l.name == endpoint.host_interface);
        if let Some(link) = named.filter(|l| l.kind == "veth" && l.group == group) {
            return Ok(Self::Ours(link));
        }
        let within = within()?;
        let end = links.iter().find(|l| within.is_end(l, endpoint));
        Ok(match (named, end) {
            (None, None) => Self::Gone,
            (None, Some(end)) => Self::Renamed(end),
            (Some(named), Some(end)) if named == end => Self::Ours(end),
            (Some(named), _) => Self::Foreign(named),
        })
    }
}

/// Finds a network's bridge among the host's links. `index` is the one that it had when it was found last, `ends` are the names
/// of our ends on it.
pub fn bridge<'a>(
    links: &'a [Link],
    network: &Network,
    group: u32,
    index: Option<u32>,
    ends: &[&str],
) -> Option<&'a Link> {
    let marked = |l: &&Link| l.name == network.interface && l.group == group;
    let mut bridges = links.iter().filter(|l| l.kind == "bridge");
    let is_one = |link: &&Link| {
        let has_ends =
            || links.iter().any(|l| l.master == Some(link.index) && ends.contains(&l.name.as_str()));
        let (same, mac) = (index == Some(link.index), link.mac == Some(bridge::mac(network)));
        // One sign may be a coincidence, or somebody's attempt to help.
        let signs = [same, mac, link.group == group, has_ends(), link.name == network.interface];
        (same || mac) && signs.iter().filter(|sign| **sign).count() > 1
    };
    bridges.clone().find(marked).or_else(|| bridges.find(is_one))
}

/// Gives an interface its name back.
pub fn rename(socket: &Socket, link: &Link, name: &str) -> Result<(), NetlinkError> {
    let named = |batch: &mut Batch| adjust::set_name(batch, link.index, name);
    let mut batch = Batch::new();
    named(&mut batch);
    match socket.run(&batch) {
        // Kernels before 6.2 rename only what is down.
        Err(e) if e.errno() == Some(Errno::EBUSY) => {
            let mut batch = Batch::new();
            adjust::set_down(&mut batch, link.index);
            named(&mut batch);
            route::set_up(&mut batch, link.index);
            socket.run(&batch)
        }
        other => other,
    }
}
