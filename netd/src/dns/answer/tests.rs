use std::collections::BTreeMap;
use std::sync::Arc;

use davit_contracts::id::EndpointId;
use hickory_proto::op::Query;
use proptest::prelude::*;

use super::*;
use crate::dns::zone::Zone;
use crate::endpoint::Endpoint;
use crate::network::{Network, example};

fn endpoint(network: &Network, ip: &str, names: &[&str]) -> Endpoint {
    Endpoint {
        id: EndpointId::from_random([1; 32]),
        network: network.id.clone(),
        interface: "eth0".into(),
        host_interface: "dvh0".into(),
        mac: None,
        ip: Some(ip.parse().unwrap()),
        gateway: None,
        ip6: None,
        gateway6: None,
        names: names.iter().map(|n| (*n).to_owned()).collect(),
        links: BTreeMap::new(),
        gateway_priority: 0,
        routed: false,
        bandwidth: None,
        sysctls: Vec::new(),
        pending: false,
    }
}

/// `web` on the network "front", `db` (twice) on "back"; the sandbox "me" sees front only, with a link db -> web.
fn world() -> Snapshot {
    let (front, back) = (example("front", "10.1.0.0/24"), example("back", "10.2.0.0/24"));
    let (mut f, mut b) = (Zone::of(&front), Zone::of(&back));
    f.add("w", &endpoint(&front, "10.1.0.2/24", &["web", "www"]));
    b.add("d1", &endpoint(&back, "10.2.0.2/24", &["db"]));
    b.add("d2", &endpoint(&back, "10.2.0.3/24", &["db"]));
    for n in 10..90 {
        b.add(&format!("m{n}"), &endpoint(&back, &format!("10.2.0.{n}/24"), &["many"]));
    }
    let mut world = Snapshot::default();
    let view = |networks: &[&Network], outside| {
        let networks = networks.iter().map(|n| n.id.clone()).collect();
        Arc::new(View {
            networks,
            outside,
            links: [("linked".into(), "web".into())].into(),
            ..View::default()
        })
    };
    world.views.insert("me".into(), view(&[&front], true));
    world.views.insert("both".into(), view(&[&front, &back], false));
    world.zones.insert(front.id.clone(), Arc::new(f));
    world.zones.insert(back.id.clone(), Arc::new(b));
    world
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn reply(sandbox: &str, name: &str, kind: RecordType, way: Way) -> Message {
    match answer(&query(name, kind), &world(), sandbox, way) {
        Outcome::Reply(bytes) => Message::from_vec(&bytes).unwrap(),
        other => panic!("{name}: {other:?}"),
    }
}

fn addresses(sandbox: &str, name: &str) -> Vec<String> {
    let reply = reply(sandbox, name, RecordType::A, Way::Tcp);
    let mut found: Vec<_> = reply.answers.iter().map(|r| r.data.to_string()).collect();
    found.sort();
    found
}

#[test]
fn names_aliases_links_and_the_networks_name_resolve_in_any_case() {
    for name in ["web.", "WWW.", "linked.", "web.front."] {
        assert_eq!(addresses("me", name), ["10.1.0.2"], "{name}");
    }
    assert_eq!(addresses("both", "db."), ["10.2.0.2", "10.2.0.3"]);
}

#[test]
fn a_name_of_another_network_is_not_seen() {
    assert!(matches!(
        answer(&query("db.", RecordType::A), &world(), "me", Way::Udp),
        Outcome::Forward { .. }
    ));
    // Nothing leaves a sandbox that has only internal networks.
    assert_eq!(
        reply("both", "example.org.", RecordType::A, Way::Udp).metadata.response_code,
        ResponseCode::NXDomain
    );
}

#[test]
fn a_known_name_without_such_a_record_has_no_data() {
    for kind in [RecordType::AAAA, RecordType::MX] {
        let reply = reply("me", "web.", kind, Way::Udp);
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 0));
    }
}

#[test]
fn addresses_of_our_subnets_have_names_or_none() {
    let known = reply("me", "2.0.1.10.in-addr.arpa.", RecordType::PTR, Way::Udp);
    assert_eq!(known.answers[0].data.to_string(), "web.front.");
    let unknown = reply("me", "9.0.1.10.in-addr.arpa.", RecordType::PTR, Way::Udp);
    assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
    let foreign = answer(&query("8.8.8.8.in-addr.arpa.", RecordType::PTR), &world(), "me", Way::Udp);
    assert!(matches!(foreign, Outcome::Forward { .. }));
}

#[test]
fn a_long_reply_is_cut_over_udp_only() {
    let cut = reply("both", "many.", RecordType::A, Way::Udp);
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let whole = reply("both", "many.", RecordType::A, Way::Tcp);
    assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, 80));
}

#[test]
fn a_forgotten_sandbox_has_no_names_left() {
    let mut world = world();
    let back = world.views["both"].networks[1].clone();
    world.views.insert("d1".into(), Arc::new(View { networks: vec![back], ..View::default() }));
    world.forget("d1");
    let Outcome::Reply(bytes) = answer(&query("db.", RecordType::A), &world, "both", Way::Udp) else {
        panic!()
    };
    assert_eq!(Message::from_vec(&bytes).unwrap().answers.len(), 1);
}

proptest! {
    #[test]
    fn garbage_never_panics_and_a_response_is_never_answered(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = answer(&bytes, &world(), "me", Way::Udp);
        if bytes.len() > 2 {
            bytes[2] |= 0x80;
            prop_assert_eq!(answer(&bytes, &world(), "me", Way::Udp), Outcome::Ignore);
        }
    }
}
