//! The tables `inet X-policy` and `bridge X-policy`, see [`crate::firewall::policy`].

use std::borrow::Cow;
use std::net::IpAddr;

use super::expr::{Version, ifname, octets};
use super::rule::Rule;
use super::{Base, Datatype, Element, Family, Hook, Set, Transaction};
use crate::firewall::policy::{Member, Policed};
use crate::network::policy::{PolicyRule, Selector};

const POLICED: Set =
    Set { name: Cow::Borrowed("policed"), key: &[Datatype::Ifname, Datatype::Ifname], data: &[] };
const PORTS: Set = Set { name: Cow::Borrowed("ports"), key: &[Datatype::Ifname], data: &[] };
const MACS: Set = Set { name: Cow::Borrowed("macs"), key: &[Datatype::Ifname, Datatype::Ether], data: &[] };
const AT: [Set; 2] = [
    Set { name: Cow::Borrowed("at4"), key: &[Datatype::Ifname, Datatype::Ipv4], data: &[] },
    Set { name: Cow::Borrowed("at6"), key: &[Datatype::Ifname, Datatype::Ipv6], data: &[] },
];
const VERSIONS: [Version; 2] = [Version::V4, Version::V6];

/// ICMPv6 that keeps a link alive: listeners of multicast groups, neighbours. Not 134 and 137, by which a container would
/// make itself another's router.
const LINK: [(u8, u8); 3] = [(130, 133), (135, 136), (143, 143)];

/// Both tables, in place of what is there.
pub fn whole(table: &str, networks: &[Policed<'_>]) -> Transaction {
    let mut t = Transaction::new(Family::Inet, table);
    t.fresh_table();
    t.chain("forward", Some(Base { kind: "filter", hook: Hook::Forward, priority: -20 }));
    t.set(&POLICED);
    constant_rules(&mut t);
    for network in networks {
        network_chain(&mut t, network);
    }
    t.turn_to(Family::Bridge, table);
    t.fresh_table();
    t.chain("prerouting", Some(Base { kind: "filter", hook: Hook::Prerouting, priority: -300 }));
    t.chain("forward", Some(Base { kind: "filter", hook: Hook::Forward, priority: -300 }));
    for set in [&PORTS, &MACS, &AT[0], &AT[1]] {
        t.set(set);
    }
    sender_rules(&mut t);
    receiver_rules(&mut t);
    for network in networks {
        elements(&mut t, table, network, true);
    }
    t
}

/// One member more or less.
pub fn change(table: &str, network: &Policed<'_>, add: bool) -> Transaction {
    let mut t = Transaction::new(Family::Bridge, table);
    elements(&mut t, table, network, add);
    t
}

/// Removes both tables, whether they are there or not.
pub fn removal(table: &str) -> Transaction {
    let mut t = Transaction::new(Family::Inet, table);
    t.table();
    t.delete_table();
    t.turn_to(Family::Bridge, table);
    t.table();
    t.delete_table();
    t
}

fn constant_rules(t: &mut Transaction) {
    t.rule("forward", &Rule::new("not within a network with a policy").in_out_no_set(POLICED.name).accept());
    t.rule("forward", &Rule::new("errors of what passed").related().accept());
    t.rule("forward", &Rule::new("answers").answer().accept());
    t.rule("forward", &Rule::new("neighbours").version(Version::V6).icmpv6(130, 143).accept());
    // Begun before the policy, or forgotten since: nobody can tell who began it.
    t.rule("forward", &Rule::new("middle of a connection").tcp_without_beginning().reset());
}

fn set_name(bridge: &str, index: usize, side: &str, version: Version) -> String {
    let digit = if version == Version::V4 { 4 } else { 6 };
    format!("{bridge}_{}_{side}{digit}", index + 1)
}

fn network_chain(t: &mut Transaction, network: &Policed<'_>) {
    let bridge = network.bridge;
    t.chain(bridge, None);
    for (index, rule) in network.policy.rules.iter().enumerate() {
        for version in VERSIONS {
            for (side, selector) in [("from", &rule.from), ("to", &rule.to)] {
                if !selector.is_everyone() {
                    t.set(&address_set(bridge, index, side, version));
                }
            }
            t.rule(bridge, &policy_rule(bridge, index, rule, version));
        }
    }
    let end = Rule::new("all else");
    t.rule(bridge, &if network.policy.default_allow { end.accept() } else { end.drop() });
    let both = Element { key: ifname(bridge).repeat(2), value: Vec::new() };
    t.add(&POLICED, &[both]);
    t.rule("forward", &Rule::new("its policy").out(bridge, true).jump(bridge.to_owned()));
}

fn address_set(bridge: &str, index: usize, side: &str, version: Version) -> Set {
    let key: &[Datatype] = if version == Version::V4 { &[Datatype::Ipv4] } else { &[Datatype::Ipv6] };
    Set { name: set_name(bridge, index, side, version).into(), key, data: &[] }
}

fn policy_rule(bridge: &str, index: usize, rule: &PolicyRule, version: Version) -> Rule {
    let mut out = Rule::new(format!("{}: {rule}", index + 1)).version(version);
    if !rule.from.is_everyone() {
        out = out.source_set(version, set_name(bridge, index, "from", version));
    }
    if !rule.to.is_everyone() {
        out = out.destination_set(version, set_name(bridge, index, "to", version));
    }
    if let Some(protocol) = rule.protocol {
        out = out.protocol(protocol.number(version == Version::V6));
    }
    if let Some((first, last)) = rule.ports {
        out = out.port_range(first, last);
    }
    if rule.allow { out.accept() } else { out.drop() }
}

/// What a port may send.
fn sender_rules(t: &mut Transaction) {
    let mut rule = |rule: Rule| t.rule("prerouting", &rule);
    rule(Rule::new("no policy here").in_no_set(PORTS.name).accept());
    rule(Rule::new("another's mac").sender_mac_no_set(MACS.name).drop());
    rule(Rule::new("its own address").ether(0x0800).sender_set(Version::V4, AT[0].name.clone()).accept());
    let arp = Rule::new("its own address, announced").ether(0x0806);
    rule(arp.arp_mac_set(MACS.name).arp_address_set(AT[0].name.clone()).accept());
    let told = || Rule::new("its own address, told to a neighbour").ether(0x86dd).icmpv6(136, 136);
    rule(told().neighbour_set(AT[1].name.clone()).accept());
    rule(told().neighbour_in_link().accept());
    for (kind, what) in [(134, "a router"), (136, "another's address"), (137, "another way")] {
        rule(Rule::new(what).ether(0x86dd).icmpv6(kind, kind).drop());
    }
    rule(Rule::new("its own address").ether(0x86dd).sender_set(Version::V6, AT[1].name.clone()).accept());
    for (first, last) in LINK {
        let link = || Rule::new("link").ether(0x86dd).icmpv6(first, last);
        rule(link().source("fe80::/10".parse().expect("a network")).accept());
        rule(link().source("::/128".parse().expect("a network")).accept());
    }
    rule(Rule::new("all else").drop());
}

/// What a port may be sent by other ports.
fn receiver_rules(t: &mut Transaction) {
    let mut rule = |rule: Rule| t.rule("forward", &rule);
    rule(Rule::new("no policy here").out_no_set(PORTS.name).accept());
    rule(Rule::new("who has").ether(0x0806).accept());
    for (version, ether) in [(Version::V4, 0x0800), (Version::V6, 0x86dd)] {
        let set = AT[usize::from(version == Version::V6)].name.clone();
        rule(Rule::new("its own address").ether(ether).receiver_set(version, set).accept());
    }
    for (first, last) in LINK {
        rule(Rule::new("link").ether(0x86dd).icmpv6(first, last).accept());
    }
    rule(Rule::new("all else").drop());
}

/// The elements of all members, with `add` to be there, else to be gone.
fn elements(t: &mut Transaction, table: &str, network: &Policed<'_>, add: bool) {
    let change = |t: &mut Transaction, set: &Set, keys: Vec<Vec<u8>>| {
        let elements: Vec<_> = keys.into_iter().map(|key| Element { key, value: Vec::new() }).collect();
        if add { t.add(set, &elements) } else { t.remove(set, &elements) }
    };
    t.turn_to(Family::Bridge, table);
    let members = &network.members;
    change(t, &PORTS, members.iter().map(|m| ifname(&m.port)).collect());
    change(
        t,
        &MACS,
        members.iter().map(|m| [ifname(&m.port), m.mac.0.to_vec(), vec![0; 2]].concat()).collect(),
    );
    for (ipv6, set) in [false, true].into_iter().zip(&AT) {
        let keys =
            |m: &&Member| addresses(m, ipv6).map(|a| [ifname(&m.port), a].concat()).collect::<Vec<_>>();
        change(t, set, members.iter().flat_map(keys).collect());
    }
    t.turn_to(Family::Inet, table);
    for (index, rule) in network.policy.rules.iter().enumerate() {
        for (side, selector) in [("from", &rule.from), ("to", &rule.to)] {
            for version in VERSIONS {
                let keys = chosen(selector, members, version);
                if !keys.is_empty() {
                    change(t, &address_set(network.bridge, index, side, version), keys);
                }
            }
        }
    }
}

fn chosen(selector: &Selector, members: &[&Member], version: Version) -> Vec<Vec<u8>> {
    let meant = members.iter().filter(|m| !selector.is_everyone() && selector.matches(&m.labels));
    meant.flat_map(|m| addresses(m, version == Version::V6).collect::<Vec<_>>()).collect()
}

fn addresses(member: &Member, ipv6: bool) -> impl Iterator<Item = Vec<u8>> + '_ {
    member.addresses.iter().filter(move |ip| matches!(ip, IpAddr::V6(_)) == ipv6).map(|ip| octets(*ip))
}
