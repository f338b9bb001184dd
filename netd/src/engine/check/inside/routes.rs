//! Routes inside. A way out that a container made for itself (a VPN's) is its own affair, and is not led past.

use ipnet::IpNet;

use super::{Present, Seen, WantedInside, WantedInterface};
use crate::driver::inside::InsideError;
use crate::endpoint::Way;
use crate::engine::check::Fault;
use crate::netlink::view::{Fate, Route};
use crate::netlink::{Batch, Socket, adjust, route};

/// What is to be done about a default route.
#[derive(Debug, PartialEq, Eq)]
enum Found<'a> {
    /// It is there, or others that are not ours to replace.
    Enough,
    /// It is not, and these of ours are in its place.
    Lacking(Vec<&'a Route>),
}

impl Present {
    fn way(&self, way: &Way, wanted: &WantedInside) -> Found<'_> {
        let default = |r: &&Route| r.net.prefix_len() == 0 && r.net.addr().is_ipv4() == way.ipv4;
        let index = self.index(&way.interface);
        let wanted_one =
            |r: &Route| r.fate == Fate::Unicast && r.gateway == way.gateway && Some(r.index) == index;
        let (ours, others): (Vec<_>, Vec<_>) =
            self.routes.iter().filter(default).partition(|r| self.is_ours(r, wanted));
        let any = wanted.yields && !ours.is_empty();
        let there = any || !others.is_empty() || ours.iter().any(|r| wanted_one(r));
        if there || self.leads_everywhere(way.ipv4) {
            return Found::Enough;
        }
        Found::Lacking(ours)
    }

    /// Whether other routes together do what a default route does: a VPN that leads all by itself adds the two halves of a
    /// family, so that they come before whatever default route there is.
    fn leads_everywhere(&self, ipv4: bool) -> bool {
        let parts = self.routes.iter().map(|r| r.net);
        let parts: Vec<_> =
            parts.filter(|net| net.addr().is_ipv4() == ipv4 && net.prefix_len() > 0).collect();
        IpNet::aggregate(&parts).iter().any(|net| net.prefix_len() == 0)
    }

    /// Whether a default route leads by an interface and a gateway that we gave.
    fn is_ours(&self, route: &Route, wanted: &WantedInside) -> bool {
        let by = wanted.interfaces.iter().any(|i| self.index(&i.setup.name) == Some(route.index));
        let ipv4 = route.net.addr().is_ipv4();
        let via = wanted.ways.iter().any(|w| w.ipv4 == ipv4 && w.gateway == route.gateway);
        route.fate == Fate::Unicast && by && via
    }
}

/// The addresses of an interface that are there without a route to their network. What else a container has that network
/// led by is its own affair.
fn unrouted<'a>(
    present: &'a Present,
    interface: &'a WantedInterface,
) -> impl Iterator<Item = (u32, IpNet)> + 'a {
    let link = present.links.iter().find(|l| l.name == interface.setup.name && l.up);
    let addresses = link.into_iter().flat_map(|l| interface.setup.addresses.iter().map(|a| (l.index, *a)));
    addresses.filter(|(index, net)| {
        net.prefix_len() < net.max_prefix_len()
            && present.addresses.iter().any(|a| a.index == *index && a.net == *net)
            && !present.routes.iter().any(|r| r.net == net.trunc())
    })
}

pub(super) fn differences(present: &Present, wanted: &WantedInside) -> Vec<Seen> {
    let unrouted = wanted.interfaces.iter().flat_map(|interface| {
        unrouted(present, interface).map(|(_, net)| {
            let object = format!("route to {} by {} inside", net.trunc(), interface.setup.name);
            let detail = "the container does not reach its neighbours";
            Seen { network: interface.network_name.clone(), ..Seen::new(Fault::Missing, object, detail) }
        })
    });
    // What goes when an interface is set down is told with it.
    let down = |way: &Way| present.links.iter().any(|l| l.name == way.interface && !l.up);
    let lacking = wanted.routes.iter().filter(|way| !down(way) && present.way(way, wanted) != Found::Enough);
    let told = |way: &Way| {
        let by = way.gateway.map_or_else(|| format!("by {}", way.interface), |ip| format!("via {ip}"));
        let object = format!("default route {by} inside");
        Seen::new(Fault::Missing, object, "the container has no way out")
    };
    unrouted.chain(lacking.map(told)).collect()
}

/// Adds what is missing, in place of what is ours and elsewhere.
pub(super) fn mend(socket: &Socket, present: &Present, wanted: &WantedInside) -> Result<(), InsideError> {
    let mut batch = Batch::new();
    // First: gateways are reached by these.
    for (index, address) in wanted.interfaces.iter().flat_map(|i| unrouted(present, i)) {
        adjust::add_connected_route(&mut batch, index, address);
    }
    for way in &wanted.routes {
        let (Found::Lacking(wrong), Some(index)) = (present.way(way, wanted), present.index(&way.interface))
        else {
            continue;
        };
        for route in wrong {
            adjust::delete_default_route(&mut batch, way.ipv4, route.gateway, route.index);
        }
        route::add_missing_default_route(&mut batch, way, index);
    }
    if batch.is_empty() { Ok(()) } else { Ok(socket.run(&batch)?) }
}
