use hickory_proto::op::{Edns, Message, Query as Question, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use proptest::prelude::*;

use super::*;
use crate::dns::services::Service;
use crate::dns::zone::{Presence, Publication};

fn presence(network: &str, third: u8, last: u8, names: &[&str]) -> Presence {
    Presence {
        network: format!("id-{network}"),
        network_name: network.to_owned(),
        subnets: vec![
            format!("10.{third}.0.0/24").parse().unwrap(),
            format!("fd00:{third}::/64").parse().unwrap(),
        ],
        names: names.iter().map(|n| (*n).to_owned()).collect(),
        ipv4: Some([10, third, 0, last].into()),
        ipv6: (third == 3).then(|| format!("fd00:{third}::{last}").parse().unwrap()),
    }
}

/// `web` on the network "front", `db` (twice) on "back"; the sandbox "me" sees front only, with a link linked -> web.
/// `dual` on "six" has two families; it and both of `db` offer ports.
fn world() -> Tables {
    let mut world = Tables::default();
    let of = |sandbox: &str, endpoints: Vec<Presence>| Publication {
        sandbox: sandbox.to_owned(),
        endpoints,
        outside: true,
        services: vec![Service { protocol: 6, port: 5432 }, Service { protocol: 17, port: 53 }],
        ..Publication::default()
    };
    world.publish(&of("w", vec![presence("front", 1, 2, &["web", "www"])]));
    world.publish(&of("d1", vec![presence("back", 2, 2, &["db-1", "db"])]));
    world.publish(&of("d2", vec![presence("back", 2, 3, &["db-2", "db"])]));
    world.publish(&of("s", vec![presence("six", 3, 9, &["dual"])]));
    for n in 10..90 {
        world.publish(&of(&format!("m{n}"), vec![presence("back", 2, n, &[&format!("m{n}"), "many"])]));
    }
    let links = vec![("linked".to_owned(), "Web".to_owned())];
    world
        .publish(&Publication { links: links.clone(), ..of("me", vec![presence("front", 1, 100, &["me"])]) });
    let both = ["front", "back", "six"].iter().zip(1u8..).map(|(n, i)| presence(n, i, 101, &["both"]));
    world.publish(&Publication { links, outside: false, ..of("both", both.collect()) });
    world.publish(&Publication { outside: false, ..of("alone", Vec::new()) });
    world
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(Name::from_ascii(name).unwrap(), kind));
    message
}

/// The reply's bytes; `None` when an upstream is to be asked.
fn bytes_of(sandbox: &str, query: &[u8], way: Way) -> Option<Vec<u8>> {
    let world = world();
    let view = world.view(world.view_of(sandbox).unwrap()).unwrap();
    let mut out = Vec::new();
    match answer(query, &world, view, way, 0, &mut out) {
        Outcome::Reply => Some(out),
        Outcome::Forward(_) => None,
        Outcome::Ignore => panic!("ignored"),
    }
}

fn reply_to(sandbox: &str, query: &Message, way: Way) -> Message {
    let bytes = bytes_of(sandbox, &query.to_vec().unwrap(), way).expect("answered here");
    let reply = Message::from_vec(&bytes).unwrap();
    assert_eq!(reply.metadata.id, query.metadata.id);
    assert_eq!(reply.queries, query.queries);
    reply
}

fn reply(sandbox: &str, name: &str, kind: RecordType, way: Way) -> Message {
    reply_to(sandbox, &query(name, kind), way)
}

fn code(sandbox: &str, name: &str, kind: RecordType) -> (ResponseCode, usize) {
    let reply = reply(sandbox, name, kind, Way::Udp);
    (reply.metadata.response_code, reply.answers.len())
}

fn data(reply: &Message) -> Vec<String> {
    let mut found: Vec<_> = reply.answers.iter().map(|r| r.data.to_string()).collect();
    found.sort();
    found
}

#[test]
fn names_aliases_links_and_the_networks_name_resolve_in_any_case() {
    for name in ["web.", "WWW.", "linked.", "web.front.", "Web.FRONT."] {
        assert_eq!(data(&reply("me", name, RecordType::A, Way::Tcp)), ["10.1.0.2"], "{name}");
    }
    assert_eq!(data(&reply("both", "db.", RecordType::A, Way::Udp)), ["10.2.0.2", "10.2.0.3"]);
    assert_eq!(data(&reply("both", "dual.", RecordType::ANY, Way::Udp)), ["10.3.0.9", "fd00:3::9"]);
    // The client finds the letters that it sent (0x20).
    let bytes = bytes_of("me", &query("wEb.", RecordType::A).to_vec().unwrap(), Way::Udp).unwrap();
    assert_eq!(bytes[12..17], *b"\x03wEb\0");
}

#[test]
fn of_several_addresses_each_is_the_first_in_its_turn() {
    let world = world();
    let view = world.view(world.view_of("both").unwrap()).unwrap();
    let query = query("db.", RecordType::A).to_vec().unwrap();
    let mut out = Vec::new();
    let firsts: Vec<String> = (0..4)
        .map(|turn| {
            assert!(matches!(answer(&query, &world, view, Way::Udp, turn, &mut out), Outcome::Reply));
            Message::from_vec(&out).unwrap().answers[0].data.to_string()
        })
        .collect();
    assert_eq!(firsts, ["10.2.0.2", "10.2.0.3", "10.2.0.2", "10.2.0.3"]);
}

#[test]
fn a_name_of_another_network_is_not_seen() {
    assert!(bytes_of("me", &query("db.", RecordType::A).to_vec().unwrap(), Way::Udp).is_none());
    assert!(bytes_of("me", &query("db.back.", RecordType::A).to_vec().unwrap(), Way::Udp).is_none());
    // Nothing leaves a sandbox that has only internal networks.
    assert_eq!(code("both", "example.org.", RecordType::A), (ResponseCode::NXDomain, 0));
    // While one is on no network, nothing is known.
    assert_eq!(code("alone", "web.", RecordType::A), (ResponseCode::ServFail, 0));
}

#[test]
fn localhost_is_here_and_nobody_else_is_asked() {
    for (sandbox, name) in [("me", "localhost."), ("me", "a.LocalHost."), ("both", "localhost.")] {
        assert_eq!(data(&reply(sandbox, name, RecordType::A, Way::Udp)), ["127.0.0.1"], "{name}");
        assert_eq!(data(&reply(sandbox, name, RecordType::AAAA, Way::Tcp)), ["::1"], "{name}");
        assert_eq!(code(sandbox, name, RecordType::MX), (ResponseCode::NoError, 0));
    }
    let other = query("localhost.example.", RecordType::A).to_vec().unwrap();
    assert!(bytes_of("me", &other, Way::Udp).is_none());
}

#[test]
fn a_known_name_without_such_a_record_has_no_data() {
    for kind in [RecordType::AAAA, RecordType::MX, RecordType::HTTPS] {
        assert_eq!(code("me", "web.", kind), (ResponseCode::NoError, 0));
    }
}

#[test]
fn addresses_of_our_subnets_have_names_or_none() {
    let known = reply("me", "2.0.1.10.in-addr.arpa.", RecordType::PTR, Way::Udp);
    assert_eq!(known.answers[0].data.to_string(), "web.front.");
    let nibbles = "9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.0.0.0.0.0.d.f.ip6.arpa.";
    let known = reply("both", nibbles, RecordType::PTR, Way::Udp);
    assert_eq!(known.answers[0].data.to_string(), "dual.six.");
    assert_eq!(code("me", "9.0.1.10.in-addr.arpa.", RecordType::PTR), (ResponseCode::NXDomain, 0));
    assert_eq!(code("me", "2.0.1.10.in-addr.arpa.", RecordType::TXT), (ResponseCode::NoError, 0));
    let foreign = query("8.8.8.8.in-addr.arpa.", RecordType::PTR).to_vec().unwrap();
    assert!(bytes_of("me", &foreign, Way::Udp).is_none());
}

#[test]
fn a_published_service_is_found_by_name_and_number_with_the_addresses_of_each() {
    for name in ["_postgresql._tcp.db.", "_5432._tcp.db.back.", "_POSTGRESQL._TCP.DB."] {
        let reply = reply("both", name, RecordType::SRV, Way::Udp);
        assert_eq!(data(&reply), ["0 0 5432 db-1.back.", "0 0 5432 db-2.back."], "{name}");
        let mut extra: Vec<_> = reply.additionals.iter().map(|r| format!("{} {}", r.name, r.data)).collect();
        extra.sort();
        assert_eq!(extra, ["db-1.back. 10.2.0.2", "db-2.back. 10.2.0.3"]);
    }
    let udp = reply("both", "_domain._udp.dual.", RecordType::SRV, Way::Udp);
    assert_eq!((data(&udp), udp.additionals.len()), (vec!["0 0 53 dual.six.".to_owned()], 2));
    for absent in ["_http._tcp.db.", "_domain._tcp.db.", "_nosuch._tcp.db."] {
        assert_eq!(code("both", absent, RecordType::SRV), (ResponseCode::NXDomain, 0), "{absent}");
    }
    assert_eq!(code("both", "_5432._tcp.db.", RecordType::A), (ResponseCode::NoError, 0));
    let foreign = query("_ldap._tcp.example.org.", RecordType::SRV).to_vec().unwrap();
    assert!(bytes_of("me", &foreign, Way::Udp).is_none());
}

#[test]
fn a_long_reply_is_cut_over_udp_only_and_loses_what_is_extra_first() {
    let cut = reply("both", "many.", RecordType::A, Way::Udp);
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let whole = reply("both", "many.", RecordType::A, Way::Tcp);
    assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, 80));
    let mut long = query("many.", RecordType::A);
    long.edns = Some(Edns::new());
    long.edns.as_mut().unwrap().set_max_payload(4096);
    let cut = reply_to("both", &long, Way::Udp);
    assert!(cut.metadata.truncation, "80 addresses are more than 1232 bytes, whatever the client takes");
    assert_eq!(cut.edns.unwrap().max_payload(), 1232);
    let services = reply("both", "_postgresql._tcp.many.", RecordType::SRV, Way::Tcp);
    assert_eq!((services.answers.len(), services.additionals.len()), (80, 80));
}

#[test]
fn what_is_no_question_for_us_is_refused_by_its_kind() {
    let refused = |change: &dyn Fn(&mut Message)| {
        let mut message = query("web.", RecordType::A);
        change(&mut message);
        let bytes = bytes_of("me", &message.to_vec().unwrap(), Way::Udp).unwrap();
        u16::from(Message::from_vec(&bytes).unwrap().metadata.response_code)
    };
    let class = |class| {
        move |m: &mut Message| {
            m.queries[0].set_query_class(class);
        }
    };
    assert_eq!(refused(&class(DNSClass::CH)), Code::Refused as u16);
    assert_eq!(refused(&class(DNSClass::ANY)), Code::NoError as u16);
    assert_eq!(
        refused(&|m| {
            m.queries[0].set_query_type(RecordType::AXFR);
        }),
        Code::Refused as u16
    );
    assert_eq!(refused(&|m| m.metadata.op_code = hickory_proto::op::OpCode::Update), Code::NotImp as u16);
    assert_eq!(refused(&|m| m.queries.clear()), Code::FormErr as u16);
    assert_eq!(
        refused(&|m| {
            m.add_query(m.queries[0].clone());
        }),
        Code::FormErr as u16
    );
    let version = |m: &mut Message| {
        let mut edns = Edns::new();
        edns.set_version(1);
        m.edns = Some(edns);
    };
    assert_eq!(refused(&version), Code::BadVers as u16);
}

#[test]
fn a_question_with_a_byte_less_is_a_format_error() {
    let mut bytes = query("web.", RecordType::A).to_vec().unwrap();
    bytes.pop();
    let reply = Message::from_vec(&bytes_of("me", &bytes, Way::Udp).unwrap()).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
    assert_eq!(reply.metadata.id.to_be_bytes(), bytes[..2]);
}

proptest! {
    #[test]
    fn garbage_never_panics_and_a_response_is_never_answered(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let world = world();
        let view = world.view(world.view_of("me").unwrap()).unwrap();
        let mut out = Vec::new();
        if matches!(answer(&bytes, &world, view, Way::Udp, 0, &mut out), Outcome::Reply) {
            prop_assert!(Message::from_vec(&out).is_ok());
        }
        if bytes.len() > 2 {
            bytes[2] |= 0x80;
            prop_assert!(matches!(answer(&bytes, &world, view, Way::Udp, 0, &mut out), Outcome::Ignore));
        }
    }

    #[test]
    fn any_readable_query_gets_a_readable_reply_within_its_limit(
        name in prop::sample::select(vec!["web", "DB", "many", "dual.six", "_5432._tcp.many", "_53._udp.dual", "nosuch", "3.0.2.10.in-addr.arpa"]),
        kind in prop::sample::select(vec![1u16, 12, 28, 33, 255, 65, 41, 252]),
        payload in prop::option::of(0u16..5000),
        tcp in any::<bool>(),
        turn in any::<usize>(),
    ) {
        let mut message = query(&format!("{name}."), RecordType::from(kind));
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.edns = Some(edns);
        }
        let world = world();
        let view = world.view(world.view_of("both").unwrap()).unwrap();
        let way = if tcp { Way::Tcp } else { Way::Udp };
        let mut out = Vec::new();
        let bytes = message.to_vec().unwrap();
        prop_assert!(matches!(answer(&bytes, &world, view, way, turn, &mut out), Outcome::Reply));
        let reply = Message::from_vec(&out).unwrap();
        prop_assert_eq!(&reply.queries, &message.queries);
        prop_assert_eq!(reply.edns.is_some(), payload.is_some());
        if !tcp {
            prop_assert!(out.len() <= usize::from(payload.unwrap_or(512).clamp(512, 1232)));
        }
    }
}
