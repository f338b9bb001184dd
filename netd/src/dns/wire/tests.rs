use hickory_proto::op::{Edns as TheirEdns, Message, Query as Question};
use hickory_proto::rr::{DNSClass, Name as TheirName, RData, Record, RecordType};
use proptest::prelude::*;

use super::*;

#[test]
fn a_key_is_what_a_question_has_in_lower_case() {
    assert_eq!(&*key("DB.My-Bridge").unwrap(), b"\x02db\x09my-bridge");
    assert_eq!(key("db."), key("db"));
    for impossible in ["", ".", "a..b", ".a", &"x".repeat(64), &vec!["x".repeat(63); 4].join(".")] {
        assert_eq!(key(impossible), None, "{impossible}");
    }
    let longest =
        [&"x".repeat(63), &"x".repeat(63), &"x".repeat(63), &"x".repeat(61)].map(|s| &**s).join(".");
    assert_eq!(key(&longest).unwrap().len(), 254);
    assert_eq!(text(b"\x02db\x01n"), "db.n");
}

#[test]
fn reverse_names_are_addresses_only_when_they_are_whole_and_proper() {
    let of = |name: &str| arpa(&key(name).unwrap()).map(|ip| ip.to_string());
    assert_eq!(of("4.3.2.10.in-addr.arpa").as_deref(), Some("10.2.3.4"));
    assert_eq!(
        of("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.F.ip6.arpa").as_deref(),
        Some("fd00::1")
    );
    for other in [
        "3.2.10.in-addr.arpa",
        "5.4.3.2.10.in-addr.arpa",
        "256.3.2.10.in-addr.arpa",
        "04.3.2.10.in-addr.arpa",
        "in-addr.arpa",
        "0.d.f.ip6.arpa",
        "example.org",
    ] {
        assert_eq!(of(other), None, "{other}");
    }
}

#[test]
fn an_opt_record_is_found_behind_others_and_only_once() {
    let mut message = Message::query();
    message.add_query(Question::query(TheirName::from_ascii("a.b.").unwrap(), RecordType::A));
    message.add_additional(Record::from_rdata(
        TheirName::root(),
        1,
        RData::A(std::net::Ipv4Addr::new(10, 0, 0, 1).into()),
    ));
    let mut edns = TheirEdns::new();
    edns.set_max_payload(1400).set_dnssec_ok(true);
    message.edns = Some(edns);
    let bytes = message.to_vec().unwrap();
    let Read::Query(query) = Query::read(&bytes) else { panic!() };
    assert_eq!(query.edns, Some(Edns { payload: 1400, version: 0, dnssec: true }));
    assert_eq!((query.limit(), query.name.labels()), (1232, 2));
    let mut twice = bytes.clone();
    twice.extend([0, 0, 41, 4, 0, 0, 0, 0, 0, 0, 0]);
    twice[11] += 1;
    assert!(matches!(Query::read(&twice), Read::Refuse(Code::FormErr)));
}

fn label() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_-]{1,20}"
}

proptest! {
    #[test]
    fn a_query_is_read_as_another_library_reads_it(
        labels in prop::collection::vec(label(), 1..5),
        kind in any::<u16>(),
        id in any::<u16>(),
        payload in prop::option::of(any::<u16>()),
    ) {
        prop_assume!(kind != kind::OPT);
        let name = TheirName::from_labels(labels.iter().map(String::as_bytes)).unwrap();
        let mut message = Message::query();
        message.metadata.id = id;
        let mut question = Question::query(name, RecordType::from(kind));
        question.set_query_class(DNSClass::IN);
        message.add_query(question);
        if let Some(payload) = payload {
            let mut edns = TheirEdns::new();
            edns.set_max_payload(payload);
            message.edns = Some(edns);
        }
        let bytes = message.to_vec().unwrap();
        let Read::Query(query) = Query::read(&bytes) else { panic!() };
        prop_assert_eq!(&*query.name, &*key(&labels.join(".")).unwrap());
        prop_assert_eq!((query.kind, query.class), (kind, class::IN));
        prop_assert_eq!(query.id(), id.to_be_bytes());
        prop_assert_eq!(query.edns.map(|e| e.payload), payload.map(|p| p.max(512)));
    }

    #[test]
    fn any_bytes_are_read_and_surveyed_within_their_bounds(mut bytes in prop::collection::vec(any::<u8>(), 0..300), tidy in any::<bool>()) {
        if tidy && bytes.len() > 12 {
            // Nearer to a message, so that more of the walk is walked.
            bytes[2] = 0x80;
            bytes[4..12].copy_from_slice(&[0, 1, 0, 2, 0, 1, 0, 1]);
            bytes[12] = 0;
        }
        let _ = Query::read(&bytes);
        if let Some(found) = survey(&bytes) {
            prop_assert!(found.question_end <= bytes.len());
            prop_assert!(found.ttls.iter().all(|at| usize::from(*at) + 6 <= bytes.len()));
            prop_assert!(found.opt.is_none_or(|(start, end)| start < end && end <= bytes.len()));
        }
    }
}
