use hickory_proto::op::{Edns, Message, Query as Question, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;

use super::*;
use crate::dns::wire::{Read, survey};

fn message(name: &str) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message
}

fn response(name: &str, code: ResponseCode, ttls: &[u32], soa: Option<(u32, u32)>) -> Vec<u8> {
    let mut reply = message(name).to_response();
    reply.metadata.response_code = code;
    let owner = Name::from_ascii(name).unwrap();
    for ttl in ttls {
        reply.add_answer(Record::from_rdata(owner.clone(), *ttl, RData::A(A([10, 0, 0, 1].into()))));
    }
    if let Some((ttl, minimum)) = soa {
        let data = SOA::new(owner.clone(), owner.clone(), 1, 1, 1, 1, minimum);
        reply.add_authority(Record::from_rdata(owner, ttl, RData::SOA(data)));
    }
    let mut edns = Edns::new();
    edns.set_max_payload(1400);
    reply.edns = Some(edns);
    reply.to_vec().unwrap()
}

trait Response {
    fn to_response(&self) -> Message;
}

impl Response for Message {
    fn to_response(&self) -> Message {
        let mut reply = Message::response(self.metadata.id, self.metadata.op_code);
        reply.add_queries(self.queries.iter().cloned());
        reply
    }
}

fn written(answer: &Answer, query: &Message, age: u64, limit: usize) -> Message {
    let bytes = query.to_vec().unwrap();
    let Read::Query(query) = Query::read(&bytes) else { panic!() };
    let mut out = Vec::new();
    answer.write(&query, age, limit, &mut out);
    Message::from_vec(&out).unwrap()
}

fn answer(bytes: &[u8]) -> (Answer, u64) {
    let survey = survey(bytes).unwrap();
    (Answer::of(bytes, &survey), lifetime(&survey))
}

#[test]
fn an_answer_ages_and_fits_the_client() {
    let (kept, lifetime) = answer(&response("a.b.", ResponseCode::NoError, &[60, 90], None));
    assert_eq!(lifetime, 60_000);
    let mut query = message("A.b.");
    query.metadata.id = 77;
    let reply = written(&kept, &query, 7_900, 512);
    assert_eq!(reply.metadata.id, 77);
    assert_eq!(reply.queries[0].name().to_ascii(), "A.b.", "in the client's letters");
    assert_eq!(reply.answers.iter().map(|r| r.ttl).collect::<Vec<_>>(), [53, 83]);
    assert!(reply.edns.is_none(), "the client does not speak it");
    query.edns = Some(Edns::new());
    assert_eq!(written(&kept, &query, 0, 512).edns.unwrap().max_payload(), 1232);
    let cut = written(&kept, &query, 0, 50);
    assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.edns.is_some());
}

#[test]
fn a_no_is_kept_for_as_long_as_its_soa_says() {
    let of = |code, ttls: &[u32], soa| answer(&response("a.", code, ttls, soa)).1;
    assert_eq!(of(ResponseCode::NXDomain, &[], Some((100, 30))), 30_000);
    assert_eq!(of(ResponseCode::NXDomain, &[], Some((20, 30))), 20_000);
    assert_eq!(of(ResponseCode::NoError, &[], Some((20, 30))), 20_000);
    assert_eq!(of(ResponseCode::NXDomain, &[], Some((9999, 9999))), 300_000, "five minutes at most");
    assert_eq!(of(ResponseCode::NoError, &[], None), 0, "RFC 2308, 5: not without a SOA");
    assert_eq!(of(ResponseCode::NXDomain, &[], None), 0);
    assert_eq!(of(ResponseCode::ServFail, &[], Some((20, 30))), 0);
    assert_eq!(of(ResponseCode::NoError, &[0, 60], None), 0);
    assert_eq!(of(ResponseCode::NoError, &[86_400], None), 3_600_000, "an hour at most");
    assert_eq!(of(ResponseCode::NoError, &[1 << 31], None), 0, "RFC 2181, 8");
}

/// Found by fuzzing: our OPT record went behind what followed the last record.
#[test]
fn what_follows_the_last_record_is_left_out() {
    let mut bytes = response("a.b.", ResponseCode::NoError, &[60], None);
    bytes.truncate(bytes.len() - 11);
    bytes[11] = 0;
    bytes.extend([0, 1, 2, 3]);
    let mut query = message("a.b.");
    query.edns = Some(Edns::new());
    assert!(written(&answer(&bytes).0, &query, 0, 512).edns.is_some());
}

#[test]
fn what_has_expired_is_not_given_out() {
    let mut cache = Cache::default();
    let (kept, _) = answer(&response("a.", ResponseCode::NoError, &[60], None));
    let kept = Arc::new(kept);
    cache.put(b"q", kept.clone(), 1000, 5000);
    assert_eq!(cache.get(b"q", 5999), Some((&kept, 999)));
    assert_eq!(cache.get(b"q", 6000), None);
    cache.put(b"z", kept, 0, 5000);
    assert_eq!(cache.get(b"z", 5000), None, "not to be kept at all");
}

#[test]
fn a_full_cache_loses_what_nobody_asks_for() {
    let mut cache = Cache::default();
    let (kept, _) = answer(&response("a.", ResponseCode::NoError, &[60], None));
    let kept = Arc::new(kept);
    cache.put(b"wanted", kept.clone(), 1_000_000, 0);
    for n in 0..3 * ENTRIES as u64 {
        cache.put(&n.to_be_bytes(), kept.clone(), 1_000_000, n);
        assert!(cache.get(b"wanted", n).is_some(), "{n}");
    }
    assert!(cache.entries.len() <= ENTRIES && cache.bytes <= BYTES);
    assert_eq!(cache.order.len(), cache.entries.len());
    let long = Answer { reply: vec![0; 60_000].into(), ..Answer::default() };
    for n in 0..40u64 {
        cache.put(&n.to_le_bytes(), Arc::new(long.clone()), 1_000_000, n);
    }
    assert!(cache.bytes <= BYTES);
    let sum: usize = cache.entries.iter().map(|(q, e)| size(q, &e.answer)).sum();
    assert_eq!(cache.bytes, sum);
}

proptest! {
    #[test]
    fn any_reply_that_is_taken_can_be_given(mut bytes in prop::collection::vec(any::<u8>(), 0..300), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), real in any::<bool>()) {
        if real {
            bytes = response("a.b.", ResponseCode::NoError, &[60, 90], Some((3, 4)));
            for (at, byte) in flips {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        if let Some(survey) = survey(&bytes) {
            let answer = Answer::of(&bytes, &survey);
            let _ = lifetime(&survey);
            let mut head = bytes[..survey.question_end].to_vec();
            head[2] = 1;
            head[6..12].fill(0);
            if let Read::Query(query) = Query::read(&head) {
                let mut out = Vec::new();
                answer.write(&query, 1500, 512, &mut out);
                prop_assert!(out.len() <= 512);
                prop_assert_eq!(&out[..2], &head[..2]);
            }
        }
    }
}
