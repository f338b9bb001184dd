//! Which interface inside is which. A container that may administer its network can give ours other names, and theirs to
//! something else: ours are known by what they are, as a driver sees them from outside.

use super::{Seen, WantedInside, WantedInterface};
use crate::driver::{claims, owned};
use crate::engine::check::{Fault, NOT_OURS};
use crate::netlink::route::Mac;
use crate::netlink::view::{self, Link};
use crate::netlink::{NetlinkError, Socket};

/// By what an interface inside is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Sight {
    /// Its mac, as far as that is known, else its name: plugins made it.
    Name(Option<Mac>),
    /// Its index.
    Index(u32),
    /// It is not there, whatever else has its name.
    Gone,
}

impl WantedInside {
    fn find<'a>(&self, links: &'a [Link], wanted: &WantedInterface) -> Option<&'a Link> {
        match wanted.sight {
            Sight::Name(mac) => self.likeliest(links, &wanted.setup.name, mac),
            Sight::Index(index) => links.iter().find(|l| l.index == index),
            Sight::Gone => None,
        }
    }

    /// Never one that a driver knows as another's.
    fn likeliest<'a>(&self, links: &'a [Link], name: &str, mac: Option<Mac>) -> Option<&'a Link> {
        let known = |l: &Link| {
            let is_one = |i: &WantedInterface| i.sight == Sight::Index(l.index);
            self.others.contains(&l.index) || self.interfaces.iter().any(is_one)
        };
        let signs = |l: &Link| 2 * u8::from(mac.is_some() && l.mac == mac) + u8::from(l.name == name);
        let claims = |_, at: usize| if known(&links[at]) { 0 } else { signs(&links[at]) };
        claims::give(1, links.len(), claims)[0].map(|at| &links[at])
    }

    /// Whether it is one of ours, of this sandbox or another.
    fn is_ours(&self, links: &[Link], link: &Link) -> bool {
        self.others.contains(&link.index)
            || self.interfaces.iter().any(|i| self.find(links, i).is_some_and(|l| l.index == link.index))
    }
}

/// What is wanted of the interfaces that are where they should be, and what is to be told of the others: their addresses and
/// routes went with them, and come back with them.
pub(super) fn place(links: &[Link], wanted: &WantedInside) -> (WantedInside, Vec<Seen>) {
    let mut there = wanted.clone();
    let mut seen = Vec::new();
    for interface in &wanted.interfaces {
        let Some(misplaced) = misplaced(links, wanted, interface) else { continue };
        let name = &interface.setup.name;
        there.interfaces.retain(|i| i.setup.name != *name);
        there.routes.retain(|way| way.interface != *name);
        seen.push(Seen { network: interface.network_name.clone(), ..misplaced });
    }
    (there, seen)
}

fn misplaced(links: &[Link], all: &WantedInside, wanted: &WantedInterface) -> Option<Seen> {
    let name = &wanted.setup.name;
    let object = format!("interface {name} inside");
    let differs = |detail: String| Seen::new(Fault::Differs, object.clone(), detail);
    let in_the_way = is_foreign(links, all, name);
    match all.find(links, wanted) {
        Some(link) if link.name == *name => None,
        Some(link) if in_the_way => {
            let detail = format!("it is called {}, and something that is not ours has its name", link.name);
            Some(Seen { in_the_way, ..differs(detail) })
        }
        Some(link) => Some(differs(format!("it is called {}", link.name))),
        None if in_the_way => Some(Seen { in_the_way, ..differs(NOT_OURS.to_owned()) }),
        None => {
            let seen = Seen::new(Fault::Missing, object.clone(), "the container is not wired");
            Some(Seen { rewire: Some(wanted.network.clone()), ..seen })
        }
    }
}

/// Whether something that is none of ours has a name.
fn is_foreign(links: &[Link], all: &WantedInside, name: &str) -> bool {
    links.iter().any(|l| l.name == name && !all.is_ours(links, l))
}

/// Gives ours their names back that nothing else has.
pub(super) fn rename_back(socket: &Socket, wanted: &WantedInside) -> Result<(), NetlinkError> {
    let links = view::links(socket)?;
    let renamed = |i| Some((wanted.find(&links, i)?, i.setup.name.as_str()));
    let to_do = |(link, name): &(&Link, &str)| link.name != *name && !is_foreign(&links, wanted, name);
    let renamed: Vec<_> = wanted.interfaces.iter().filter_map(renamed).filter(to_do).collect();
    // Of two that have one another's names, each is in the other's way. What is another sandbox's gets its own back when
    // that is mended.
    let blocks = |link: &&Link| renamed.iter().any(|(_, name)| *name == link.name);
    let others = links.iter().filter(|l| wanted.others.contains(&l.index));
    for link in renamed.iter().map(|(link, _)| *link).chain(others).filter(blocks) {
        owned::rename(socket, link, &format!("dvt{}", link.index))?;
    }
    renamed.iter().map(|(link, name)| owned::rename(socket, link, name)).fold(Ok(()), Result::and)
}
