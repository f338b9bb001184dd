//! The table `inet davit-guard`: a host that forwards for its containers does not for others.
//!
//! ```text
//! forward  filter -10   from our interfaces: yes; by IP version -> strangers4, strangers6
//! strangersN            to our interfaces: yes; bridged, or by what came later: yes; else no
//! ```
//! It says nothing of networks, and so is not written anew when they come and go. It stays for as long as forwarding does.

use std::borrow::Cow;

use super::expr::{Version, ifname};
use super::rule::Rule;
use super::{Base, Datatype, Element, Family, Hook, Set, Transaction};
use crate::firewall::guard::{Guard, There};

const FORWARD: Base = Base { kind: "filter", hook: Hook::Forward, priority: -10 };

/// The whole table, in place of what is there.
pub fn whole(table: &str, group: u32, guard: &Guard) -> Transaction {
    let mut t = Transaction::new(Family::Inet, table);
    t.fresh_table();
    t.chain("forward", Some(FORWARD));
    // Most packets end here, those between neighbours (with br_netfilter) among them.
    t.rule("forward", &Rule::new("from our networks").in_group(group).accept());
    for (version, number, there) in
        [(Version::V4, 4, guard.there(false)), (Version::V6, 6, guard.there(true))]
    {
        if let Some(there) = there {
            strangers(&mut t, version, number, group, there);
        }
    }
    t
}

fn strangers(t: &mut Transaction, version: Version, number: u8, group: u32, there: &There) {
    let name = |what: &str| Cow::<'static, str>::Owned(format!("{what}{number}"));
    let (chain, pairs, known) = (name("strangers"), name("bridged"), name("known"));
    t.chain(&chain, None);
    for (name, key, times, interfaces) in [
        (&pairs, &[Datatype::Ifname, Datatype::Ifname][..], 2, &there.bridges),
        (&known, &[Datatype::Ifname][..], 1, &there.interfaces),
    ] {
        let set = Set { name: name.clone(), key, data: &[] };
        t.set(&set);
        let element = |i: &String| Element { key: ifname(i).repeat(times), value: Vec::new() };
        t.add(&set, &interfaces.iter().map(element).collect::<Vec<_>>());
    }
    let ours = Rule::new("forwarding is for our networks").version(version);
    t.rule("forward", &ours.jump(chain.clone()));
    t.rule(&chain, &Rule::new("to our networks").out_group(group).accept());
    t.rule(&chain, &Rule::new("bridged, not routed").in_out_set(pairs).accept());
    t.rule(&chain, &Rule::new("from what came later").in_no_set(known.clone()).accept());
    t.rule(&chain, &Rule::new("to what came later").out_no_set(known).accept());
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
        guard.note(false, There { bridges: ["br0".to_owned()].into(), ..There::default() });
        assert_eq!(kinds(&guard), 2);
        guard.note(true, There::default());
        assert_eq!(kinds(&guard), 3);
    }
}
