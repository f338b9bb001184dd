//! Which interfaces of the host are ours, whatever became of their names and marks: anybody who administers the host may
//! have given ours another name, or the name to something else.
//!
//! ```text
//! our end of a pair    has its name and our mark; or it leads into the sandbox, is no other endpoint's, and its other end is
//!                      the endpoint's interface inside, or it has our mark and no other endpoint of the namespace lacks one
//! bridge               has its name and our mark, or more that only it would have
//! ```

use std::os::fd::BorrowedFd;

use davit_contracts::id::EndpointId;
use davit_sys::netns;
use nix::errno::Errno;

use super::{DriverError, Ground, bridge, claims};
use crate::endpoint::Endpoint;
use crate::netlink::view::{self, Link};
use crate::netlink::{Batch, NetlinkError, Protocol, Socket, adjust, route};
use crate::network::Network;

/// The name of our end of an endpoint's pair.
pub fn end_name(endpoint: &EndpointId) -> String {
    format!("dvh{}", &endpoint.as_str()[..12])
}

/// Whether a name is one of our ends'. Of what bears our mark too it tells which endpoint's it is, of all that there are: no
/// container can change either.
fn is_end_name(name: &str) -> bool {
    name.strip_prefix("dvh").is_some_and(|id| id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Whether a link is our end of an endpoint's pair beyond doubt.
pub fn is_named(link: &Link, endpoint: &Endpoint, group: u32) -> bool {
    link.kind == "veth" && link.group == group && link.name == endpoint.host_interface
}

/// A sandbox's namespace, as far as it tells what leads into it.
#[derive(Debug, Default)]
pub struct Within {
    /// The number that the host's namespace has for it.
    number: Option<i32>,
    links: Vec<Link>,
    /// The mark.
    group: u32,
    /// All endpoints there that have an end on the host, also other sandboxes'.
    endpoints: Vec<Endpoint>,
}

impl Within {
    /// Looks into a namespace; `socket` is one of the host's.
    pub fn look<'a>(
        ground: Ground<'_>,
        netns: BorrowedFd<'_>,
        endpoints: impl Iterator<Item = &'a Endpoint>,
    ) -> Result<Self, DriverError> {
        let number = view::namespace_number(ground.socket, netns)?;
        let links = netns::visit(netns, || view::links(&Socket::open(Protocol::Route)?))??;
        let endpoints = endpoints.filter(|e| e.is_bridged()).cloned().collect();
        Ok(Self { number, links, group: ground.group, endpoints })
    }

    /// The link of the host that is our end of an endpoint's pair, where name and mark do not tell.
    pub fn end_of<'a>(&self, links: &'a [Link], endpoint: &Endpoint) -> Option<&'a Link> {
        let has_end = |e: &Endpoint| links.iter().any(|l| is_named(l, e, self.group));
        let lost: Vec<_> = self.endpoints.iter().filter(|e| !has_end(e)).collect();
        let at = lost.iter().position(|e| e.id == endpoint.id)?;
        let ends: Vec<_> = links.iter().filter(|l| self.is_claimable(l)).collect();
        let given = claims::give(lost.len(), ends.len(), |e, l| self.signs(lost[e], ends[l]));
        let last = || {
            // With nobody else to whom it could belong.
            let only = given.iter().enumerate().all(|(e, given)| e == at || given.is_some());
            let free = |(l, end): &(usize, &&Link)| end.group == self.group && !given.contains(&Some(*l));
            ends.iter().enumerate().find(free).filter(|_| only).map(|(l, _)| l)
        };
        given[at].or_else(last).map(|l| ends[l])
    }

    /// Whether it leads here, and is not another endpoint's beyond doubt.
    fn is_claimable(&self, link: &Link) -> bool {
        let leads_here = link.kind == "veth" && self.number.is_some() && link.beyond == self.number;
        leads_here && !(link.group == self.group && is_end_name(&link.name))
    }

    /// How strong an endpoint's claim to an end is. What only the host can change counts for more than what is inside, and
    /// there the mac for more than the name.
    fn signs(&self, endpoint: &Endpoint, end: &Link) -> u8 {
        let inside = self.links.iter().find(|l| Some(l.index) == end.parent);
        let named = end.name == endpoint.host_interface;
        let mac = inside.is_some_and(|l| l.mac.is_some() && l.mac == endpoint.mac);
        let name = inside.is_some_and(|l| l.name == endpoint.interface);
        4 * u8::from(named && inside.is_some()) + 2 * u8::from(mac) + u8::from(name)
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
        if let Some(link) = named.filter(|l| is_named(l, endpoint, group)) {
            return Ok(Self::Ours(link));
        }
        let within = within()?;
        let end = within.end_of(links, endpoint);
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
