//! The table `inet davit` of the host.
//!
//! ```text
//! loopback     nat -110          containers may not reach the host's 127/8 (route_localnet is on for bridges):
//! input        filter -10        neither the first packet of a connection, nor what is not tracked
//! prerouting   nat -100          for this host? -> ports        (never for 127/8: that would open it to neighbours)
//! output       nat -100          for this host? -> ports
//! ports        (jumped to)       (address, transport, port) or (transport, port) -> address and port, by map; not at ::1
//! forward      filter -10        established, same bridge, published: yes; other bridge or internal: no; out: yes
//! postrouting  nat 100           127/8 and hairpin sources, and what leaves a network with NAT
//! ```
//! What is bridged (with br_netfilter) or routed walks `forward` alone: a rule before connection tracking would be asked for
//! each packet, while `loopback` sees the first of a connection, before it could be redirected, and `input` what arrives.
//!
//! Rules do not grow with ports nor with containers; `postrouting` alone has two for each network, and only the first
//! packet of a connection walks it. `forward` comes before the chains that hosts have by habit (priority 0): what it
//! drops they never see, and what it accepts they still judge, see [`super::foreign`].

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::expr::{Version, ifname, octets};
use super::rule::Rule;
use super::{Base, Datatype, Element, Family, Hook, Set, Transaction};
use crate::firewall::rules::{Forward, Rules, Segment, Source};

const BRIDGES: Set = Set { name: Cow::Borrowed("bridges"), key: &[Datatype::Ifname], data: &[] };
const INTERNAL: Set = Set { name: Cow::Borrowed("internal"), key: &[Datatype::Ifname], data: &[] };
const SAME: Set = Set { name: Cow::Borrowed("same"), key: &[Datatype::Ifname, Datatype::Ifname], data: &[] };
const PORTS4: Set = Set {
    name: Cow::Borrowed("ports4"),
    key: &[Datatype::Proto, Datatype::Service],
    data: &[Datatype::Ipv4, Datatype::Service],
};
const PORTS6: Set = Set {
    name: Cow::Borrowed("ports6"),
    key: &[Datatype::Proto, Datatype::Service],
    data: &[Datatype::Ipv6, Datatype::Service],
};
const ADDR_PORTS4: Set = Set {
    name: Cow::Borrowed("addr_ports4"),
    key: &[Datatype::Ipv4, Datatype::Proto, Datatype::Service],
    data: &[Datatype::Ipv4, Datatype::Service],
};
const ADDR_PORTS6: Set = Set {
    name: Cow::Borrowed("addr_ports6"),
    key: &[Datatype::Ipv6, Datatype::Proto, Datatype::Service],
    data: &[Datatype::Ipv6, Datatype::Service],
};
/// Ports of containers that are reached without NAT.
const OPEN4: Set = Set {
    name: Cow::Borrowed("open4"),
    key: &[Datatype::Ipv4, Datatype::Proto, Datatype::Service],
    data: &[],
};
const OPEN6: Set = Set {
    name: Cow::Borrowed("open6"),
    key: &[Datatype::Ipv6, Datatype::Proto, Datatype::Service],
    data: &[],
};
/// Bridges whose containers are open to the outside.
const UNPROTECTED: [Set; 2] = [
    Set { name: Cow::Borrowed("unprotected4"), key: &[Datatype::Ifname], data: &[] },
    Set { name: Cow::Borrowed("unprotected6"), key: &[Datatype::Ifname], data: &[] },
];
const SETS: [&Set; 11] = [
    &BRIDGES,
    &INTERNAL,
    &SAME,
    &UNPROTECTED[0],
    &UNPROTECTED[1],
    &PORTS4,
    &PORTS6,
    &ADDR_PORTS4,
    &ADDR_PORTS6,
    &OPEN4,
    &OPEN6,
];

const CHAINS: [(&str, Option<Base>); 7] = [
    ("ports", None),
    ("loopback", Some(Base { kind: "nat", hook: Hook::Prerouting, priority: -110 })),
    ("input", Some(Base { kind: "filter", hook: Hook::Input, priority: -10 })),
    ("prerouting", Some(Base { kind: "nat", hook: Hook::Prerouting, priority: -100 })),
    ("output", Some(Base { kind: "nat", hook: Hook::Output, priority: -100 })),
    ("forward", Some(Base { kind: "filter", hook: Hook::Forward, priority: -10 })),
    ("postrouting", Some(Base { kind: "nat", hook: Hook::Postrouting, priority: 100 })),
];

fn loopback() -> IpNet {
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into()
}

/// The whole table, in place of what is there.
pub fn whole(table: &str, rules: &Rules) -> Transaction {
    let mut t = Transaction::new(Family::Inet, table);
    t.fresh_table();
    for (name, base) in CHAINS {
        t.chain(name, base);
    }
    for set in SETS {
        t.set(set);
    }
    constant_rules(&mut t);
    for segment in &rules.segments {
        segment_rules(&mut t, segment);
    }
    interfaces(&mut t, &rules.segments);
    for (set, elements) in by_map(&rules.forwards) {
        t.add(set, &elements);
    }
    t
}

/// Fills the sets of bridges.
fn interfaces(t: &mut Transaction, segments: &[Segment]) {
    let mut fill = |set: &Set, times: usize, wanted: &dyn Fn(&Segment) -> bool| {
        let element = |s: &Segment| Element { key: ifname(&s.bridge).repeat(times), value: Vec::new() };
        t.add(set, &segments.iter().filter(|s| wanted(s)).map(element).collect::<Vec<_>>());
    };
    fill(&BRIDGES, 1, &|_| true);
    fill(&INTERNAL, 1, &|s| s.internal);
    fill(&SAME, 2, &|s| s.icc);
    fill(&UNPROTECTED[0], 1, &|s| s.unprotected(false));
    fill(&UNPROTECTED[1], 1, &|s| s.unprotected(true));
}

/// Adds published ports to the maps.
pub fn publish(table: &str, forwards: &[Forward]) -> Transaction {
    let mut t = Transaction::new(Family::Inet, table);
    for (set, elements) in by_map(forwards) {
        t.add(set, &elements);
    }
    t
}

/// Takes published ports out of the maps.
pub fn withdraw(table: &str, forwards: &[Forward]) -> Transaction {
    let mut t = Transaction::new(Family::Inet, table);
    for (set, elements) in by_map(forwards) {
        // A key is enough to remove by.
        let keys: Vec<_> = elements.into_iter().map(|e| Element { value: Vec::new(), ..e }).collect();
        t.remove(set, &keys);
    }
    t
}

/// Removes the table, whether it is there or not.
pub fn removal(table: &str) -> Transaction {
    let mut t = Transaction::new(Family::Inet, table);
    t.table();
    t.delete_table();
    t
}

fn constant_rules(t: &mut Transaction) {
    // What answers the host's own loopback has its address again when it arrives.
    let answers = Rule::new("answers").version(Version::V4).destination(loopback());
    t.rule("input", &answers.established().accept());
    for chain in ["loopback", "input"] {
        let rule = Rule::new("containers do not reach the host's loopback").version(Version::V4);
        t.rule(chain, &rule.destination(loopback()).in_set(BRIDGES.name).drop());
    }
    let shield = Rule::new("neighbours do not reach ports of the loopback");
    t.rule("prerouting", &shield.version(Version::V4).destination(loopback()).leave());
    for chain in ["prerouting", "output"] {
        t.rule(chain, &Rule::new("to this host").for_this_host().jump("ports"));
    }
    let relayed = Rule::new("answered by netd").version(Version::V6);
    t.rule("ports", &relayed.destination(IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST))).leave());
    for (version, with_address, any) in
        [(Version::V4, ADDR_PORTS4.name, PORTS4.name), (Version::V6, ADDR_PORTS6.name, PORTS6.name)]
    {
        let rule = Rule::new("ports of one address").version(version);
        t.rule("ports", &rule.dnat_by(version, with_address, true));
        let rule = Rule::new("ports of all addresses").version(version);
        t.rule("ports", &rule.dnat_by(version, any, false));
    }

    t.rule("forward", &Rule::new("answers").established().accept());
    t.rule("forward", &Rule::new("within a network").in_out_set(SAME.name).accept());
    t.rule("forward", &Rule::new("internal: no way out").in_set(INTERNAL.name).drop());
    t.rule("forward", &Rule::new("internal: no way in").out_set(INTERNAL.name).drop());
    t.rule("forward", &Rule::new("published").out_set(BRIDGES.name).translated().accept());
    for (version, open, all) in
        [(Version::V4, OPEN4.name, &UNPROTECTED[0]), (Version::V6, OPEN6.name, &UNPROTECTED[1])]
    {
        let rule = Rule::new("published without NAT").version(version).out_set(BRIDGES.name);
        t.rule("forward", &rule.target_set(version, open).accept());
        let rule =
            Rule::new("unprotected").version(version).in_no_set(BRIDGES.name).out_set(all.name.clone());
        t.rule("forward", &rule.accept());
    }
    t.rule("forward", &Rule::new("networks are apart").out_set(BRIDGES.name).drop());
    t.rule("forward", &Rule::new("out").in_set(BRIDGES.name).accept());

    let local = Rule::new("from the host's loopback").version(Version::V4).out_set(BRIDGES.name);
    t.rule("postrouting", &local.source(loopback()).masquerade());
}

fn segment_rules(t: &mut Transaction, segment: &Segment) {
    for subnet in &segment.subnets {
        let version = Version::of(subnet.addr());
        let hairpin = Rule::new("back into the same network through a published port").version(version);
        t.rule("postrouting", &hairpin.out(&segment.bridge, true).source(*subnet).translated().masquerade());
        let out = Rule::new("out").version(version).out(&segment.bridge, false).source(*subnet);
        match segment.source(subnet) {
            Source::Kept => {}
            Source::WayOut => t.rule("postrouting", &out.masquerade()),
            Source::Fixed(address) => t.rule("postrouting", &out.snat(address)),
        }
    }
}

/// Sorts published ports into maps and sets.
fn by_map(forwards: &[Forward]) -> Vec<(&'static Set, Vec<Element>)> {
    const MAPS: [[&Set; 3]; 2] = [[&PORTS4, &ADDR_PORTS4, &OPEN4], [&PORTS6, &ADDR_PORTS6, &OPEN6]];
    let mut sorted: [[Vec<Element>; 3]; 2] = Default::default();
    for forward in forwards {
        let transport = [forward.transport.number(), 0, 0, 0];
        let to = [octets(forward.to.ip()), word(forward.to.port()).to_vec()];
        let (index, key, value) = match forward.host {
            None => (2, [&to[0][..], &transport, &to[1]].concat(), Vec::new()),
            Some(host) => {
                let any = host.ip().is_unspecified();
                let address = if any { Vec::new() } else { octets(host.ip()) };
                (usize::from(!any), [&address[..], &transport, &word(host.port())].concat(), to.concat())
            }
        };
        sorted[usize::from(forward.to.is_ipv6())][index].push(Element { key, value });
    }
    let sets = MAPS.into_iter().flatten().zip(sorted.into_iter().flatten());
    sets.filter(|(_, elements)| !elements.is_empty()).collect()
}

fn word(port: u16) -> [u8; 4] {
    let [a, b] = port.to_be_bytes();
    [a, b, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::rules::Transport;

    #[test]
    fn publishing_a_port_is_one_element_byte_for_byte() {
        let forward = Forward {
            transport: Transport::Tcp,
            host: Some("0.0.0.0:8080".parse().unwrap()),
            to: "172.17.0.2:80".parse().unwrap(),
        };
        let batch = publish("davit", &[forward]).finish();
        #[rustfmt::skip]
        let expected: Vec<u8> = [
            // NFNL_MSG_BATCH_BEGIN for subsystem 10
            &[20, 0, 0, 0, 0x10, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10][..],
            // NFT_MSG_NEWSETELEM, create + ack, family inet
            &[100, 0, 0, 0, 12, 10, 5, 4, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
            &[10, 0, 1, 0], b"davit\0\0\0",
            &[11, 0, 2, 0], b"ports4\0\0",
            &[56, 0, 3, 0x80, 52, 0, 1, 0x80],
            &[16, 0, 1, 0x80, 12, 0, 1, 0, 6, 0, 0, 0, 0x1f, 0x90, 0, 0],
            &[16, 0, 2, 0x80, 12, 0, 1, 0, 172, 17, 0, 2, 0, 80, 0, 0],
            // NFNL_MSG_BATCH_END
            &[20, 0, 0, 0, 0x11, 0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10],
        ].concat();
        let mut expected = expected;
        // Lengths follow from the content; they are checked here rather than counted by hand above.
        let body = expected.len() - 40;
        expected[20] = body as u8;
        expected[64] = (body - 44) as u8;
        expected[68] = (body - 48) as u8;
        assert_eq!(batch.bytes(), expected);
    }

    #[test]
    fn an_address_sorts_a_port_into_another_map() {
        let forward = |host: &str, to: &str| Forward {
            transport: Transport::Udp,
            host: host.parse().ok(),
            to: to.parse().unwrap(),
        };
        let sorted = by_map(&[
            forward("0.0.0.0:1", "10.0.0.2:1"),
            forward("127.0.0.1:1", "10.0.0.2:1"),
            forward("[::]:1", "[fd00::2]:1"),
            forward("", "10.0.0.2:1"),
        ]);
        let shape: Vec<_> =
            sorted.iter().map(|(s, e)| (&*s.name, e[0].key.len(), e[0].value.len())).collect();
        assert_eq!(shape, [("ports4", 8, 8), ("addr_ports4", 12, 8), ("open4", 12, 0), ("ports6", 8, 20)]);
    }
}
