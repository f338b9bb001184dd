//! The table `inet davit-guard`: a host that forwards for its containers does not for others.
//!
//! ```text
//! forward  filter -10   by IP version -> strangers4, strangers6
//! strangersN            from or to our interfaces: yes; bridged, or by a bridge that others made later: yes; else no
//! ```
//! It says nothing of networks, and so is not written anew when they come and go. It stays for as long as forwarding does.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::expr::{Version, ifname};
use super::rule::Rule;
use super::{Base, Datatype, Element, Family, Hook, Set, Transaction};
use crate::firewall::guard::Guard;

const FORWARD: Base = Base { kind: "filter", hook: Hook::Forward, priority: -10 };

/// The whole table, in place of what is there.
pub fn whole(table: &str, group: u32, guard: &Guard) -> Transaction {
    let mut t = Transaction::new(Family::Inet, table);
    t.fresh_table();
    t.chain("forward", Some(FORWARD));
    for (version, number, bridges) in
        [(Version::V4, 4, guard.bridges(false)), (Version::V6, 6, guard.bridges(true))]
    {
        if let Some(bridges) = bridges {
            strangers(&mut t, version, number, group, bridges);
        }
    }
    t
}

fn strangers(t: &mut Transaction, version: Version, number: u8, group: u32, bridges: &BTreeSet<String>) {
    let name = |what: &str| Cow::<'static, str>::Owned(format!("{what}{number}"));
    let (chain, there, pairs) = (name("strangers"), name("bridges"), name("bridged"));
    t.chain(&chain, None);
    for (name, key, times) in
        [(&there, &[Datatype::Ifname][..], 1), (&pairs, &[Datatype::Ifname, Datatype::Ifname][..], 2)]
    {
        let set = Set { name: name.clone(), key, data: &[] };
        t.set(&set);
        let element = |b: &String| Element { key: ifname(b).repeat(times), value: Vec::new() };
        t.add(&set, &bridges.iter().map(element).collect::<Vec<_>>());
    }
    t.rule("forward", &Rule::new("forwarding is for our networks").version(version).jump(chain.clone()));
    t.rule(&chain, &Rule::new("from our networks").in_group(group).accept());
    t.rule(&chain, &Rule::new("to our networks").out_group(group).accept());
    t.rule(&chain, &Rule::new("bridged, not routed").in_out_set(pairs).accept());
    for (comment, incoming) in [("from a bridge made later", true), ("to a bridge made later", false)] {
        t.rule(&chain, &Rule::new(comment).other_bridge(incoming, there.clone()).accept());
    }
    t.rule(&chain, &Rule::new("strangers").drop());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::messages;

    #[test]
    fn only_versions_that_are_guarded_have_a_chain() {
        let kinds = |guard: &Guard| {
            let batch = whole("x-guard", 7, guard).finish();
            messages(batch.bytes()).filter(|(kind, ..)| *kind == super::super::NEWCHAIN).count()
        };
        let mut guard = Guard::default();
        guard.note(false, ["br0".to_owned()].into());
        assert_eq!(kinds(&guard), 2);
        guard.note(true, BTreeSet::new());
        assert_eq!(kinds(&guard), 3);
    }
}
