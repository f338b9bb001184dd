//! Against real sockets on loopback, where the test plays the servers; time is what the test says it is.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, Query as Question, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name as TheirName, RData, Record, RecordType};

use super::*;
use crate::dns::poll::Source;
use crate::dns::wire::{Query, Read};

struct World {
    poll: Poll,
    forwarder: Forwarder,
    own: Vec<NameServer>,
    servers: Vec<UdpSocket>,
    port: u16,
    done: Vec<(usize, Message)>,
}

fn bind_all(count: u8) -> Option<(Vec<UdpSocket>, u16)> {
    let first = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = first.local_addr().unwrap().port();
    let others = (2..=count).map(|n| UdpSocket::bind((IpAddr::from([127, 0, 0, n]), port)));
    let all: Result<Vec<_>, _> = std::iter::once(Ok(first)).chain(others).collect();
    all.ok().map(|all| (all, port))
}

impl World {
    fn new(count: u8) -> Self {
        let (servers, port) = (0..50).find_map(|_| bind_all(count)).unwrap();
        for server in &servers {
            server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        let own: Vec<_> = (1..=count).map(|n| NameServer::from(IpAddr::from([127, 0, 0, n]))).collect();
        let mut forwarder = Forwarder::new(Arc::new(HostConf::new(false)), port);
        forwarder.servers = Servers::of_host(own.clone());
        Self { poll: Poll::new().unwrap(), forwarder, own, servers, port, done: Vec::new() }
    }

    /// A question of a client that is known by its number, and the way it comes.
    fn ask(&mut self, name: &str, client: u16, way: Way, now: u64) -> Option<Message> {
        let mut message = Message::query();
        message.metadata.id = client;
        message.metadata.recursion_desired = true;
        message.add_query(Question::query(TheirName::from_ascii(name).unwrap(), RecordType::A));
        let bytes = message.to_vec().unwrap();
        let Read::Query(query) = Query::read(&bytes) else { panic!() };
        let to = match way {
            Way::Udp => To::Address(SocketAddrV4::new([127, 0, 0, 1].into(), client)),
            Way::Tcp => To::Client(client.into(), 1),
        };
        let asker = || Asker { server: (0, 1), to, head: query.head.into(), edns: query.edns };
        let asking = Asking { query: &query, inside: None, way };
        let mut out = Vec::new();
        match self.forwarder.ask(&self.poll, asking, now, &mut out, asker) {
            Asked::Reply => Some(Message::from_vec(&out).unwrap()),
            Asked::Later | Asked::Twice => None,
        }
    }

    /// Handles what is ready until `enough` says so.
    fn pump(&mut self, now: u64, enough: impl Fn(&Self) -> bool) {
        let mut ready = Vec::new();
        for _ in 0..500 {
            self.collect();
            if enough(self) {
                return;
            }
            self.poll.wait(Some(10), &mut ready).unwrap();
            for source in &ready {
                match source {
                    Source::Datagrams(at) => self.forwarder.datagrams_ready(&self.poll, *at, now),
                    Source::Stream(at) => self.forwarder.stream_ready(&self.poll, *at, now),
                    other => panic!("{other:?}"),
                }
            }
        }
        panic!("it does not come about");
    }

    fn collect(&mut self) {
        for Done { askers, answer } in self.forwarder.take_done() {
            for asker in askers {
                let query = asker.query().unwrap();
                let mut out = Vec::new();
                match &answer {
                    Ok(answer) => answer.write(&query, 0, asker.way().limit(&query), &mut out),
                    Err(code) => crate::dns::answer::fail(&query, *code, &mut out),
                }
                let message = Message::from_vec(&out).unwrap();
                self.done.push((message.metadata.id.into(), message));
            }
        }
    }

    /// The next question at a server, and who asks.
    fn question(&self, server: usize) -> (Message, SocketAddr) {
        let mut buffer = [0; 1500];
        let (len, from) = self.servers[server].recv_from(&mut buffer).unwrap();
        (Message::from_vec(&buffer[..len]).unwrap(), from)
    }

    fn no_question(&self, server: usize) -> bool {
        self.servers[server].set_nonblocking(true).unwrap();
        let none = self.servers[server].recv_from(&mut [0; 1500]).is_err();
        self.servers[server].set_nonblocking(false).unwrap();
        none
    }

    fn no_question_peek(&self, server: usize) -> bool {
        self.servers[server].set_nonblocking(true).unwrap();
        let none = self.servers[server].peek_from(&mut [0; 1500]).is_err();
        self.servers[server].set_nonblocking(false).unwrap();
        none
    }

    fn answer(&self, server: usize, reply: &Message, to: SocketAddr) {
        self.servers[server].send_to(&reply.to_vec().unwrap(), to).unwrap();
    }
}

fn reply_to(query: &Message, code: ResponseCode, address: Option<[u8; 4]>) -> Message {
    let mut reply = Message::response(query.metadata.id, OpCode::Query);
    reply.add_queries(query.queries.clone());
    reply.metadata.response_code = code;
    if let Some(ip) = address {
        let name = query.queries[0].name().clone();
        reply.add_answer(Record::from_rdata(name, 60, RData::A(A(ip.into()))));
    }
    reply
}

fn address_of(message: &Message) -> String {
    message.answers.iter().map(|r| r.data.to_string()).collect()
}

#[test]
fn equal_questions_are_asked_once_and_the_answer_is_kept() {
    let mut w = World::new(1);
    assert!(w.ask("A.example.", 1, Way::Udp, 0).is_none());
    assert!(w.ask("a.EXAMPLE.", 2, Way::Udp, 0).is_none());
    assert!(w.ask("a.EXAMPLE.", 2, Way::Udp, 0).is_none(), "the same client asks again");
    let (query, from) = w.question(0);
    assert!(w.no_question(0));
    assert!(query.metadata.recursion_desired && query.edns.is_some());
    w.answer(0, &reply_to(&query, ResponseCode::NoError, Some([10, 0, 0, 7])), from);
    w.pump(0, |w| w.done.len() >= 2);
    assert_eq!(w.done.len(), 2);
    for (client, message) in &w.done {
        assert_eq!(address_of(message), "10.0.0.7");
        let asked = if *client == 1 { "A.example." } else { "a.EXAMPLE." };
        assert_eq!(message.queries[0].name().to_ascii(), asked);
    }
    let kept = w.ask("a.example.", 3, Way::Udp, 10_000).expect("from the cache");
    assert_eq!((address_of(&kept), kept.answers[0].ttl), ("10.0.0.7".to_owned(), 50));
    assert!(w.ask("a.example.", 4, Way::Tcp, 60_000).is_none(), "expired");
}

#[test]
fn only_the_reply_to_the_very_question_counts() {
    let mut w = World::new(2);
    assert!(w.ask("a.example.", 1, Way::Udp, 0).is_none());
    let (query, from) = w.question(0);
    let evil = reply_to(&query, ResponseCode::NoError, Some([6, 6, 6, 6]));
    w.answer(1, &evil, from);
    let mut other_id = evil.clone();
    other_id.metadata.id ^= 1;
    w.answer(0, &other_id, from);
    let mut other_name = evil.clone();
    other_name.queries[0].set_name(TheirName::from_ascii("b.example.").unwrap());
    w.answer(0, &other_name, from);
    let mut other_kind = evil.clone();
    other_kind.queries[0].set_query_type(RecordType::AAAA);
    w.answer(0, &other_kind, from);
    w.servers[0].send_to(&query.to_vec().unwrap(), from).unwrap();
    w.servers[0].send_to(b"x", from).unwrap();
    w.answer(0, &reply_to(&query, ResponseCode::NoError, Some([10, 0, 0, 7])), from);
    w.pump(0, |w| !w.done.is_empty());
    assert_eq!(address_of(&w.done[0].1), "10.0.0.7");
}

#[test]
fn questions_go_out_from_several_ports_with_differing_ids() {
    let mut w = World::new(1);
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..40 {
        assert!(w.ask(&format!("n{n}.example."), n, Way::Udp, 0).is_none());
        let (query, from) = w.question(0);
        seen.insert((from.port(), query.metadata.id));
    }
    let ports: std::collections::BTreeSet<_> = seen.iter().map(|(port, _)| port).collect();
    assert!(seen.len() == 40 && ports.len() > 1 && ports.len() <= 4, "{seen:?}");
}

#[test]
fn after_a_silent_server_the_next_is_asked_and_first_from_then_on() {
    let mut w = World::new(2);
    assert!(w.ask("a.example.", 1, Way::Udp, 0).is_none());
    w.question(0);
    w.forwarder.expire(&w.poll, 1999);
    assert!(w.no_question(1));
    w.forwarder.expire(&w.poll, 2000);
    let (query, from) = w.question(1);
    w.answer(1, &reply_to(&query, ResponseCode::NXDomain, None), from);
    w.pump(2001, |w| !w.done.is_empty());
    assert_eq!(w.done[0].1.metadata.response_code, ResponseCode::NXDomain);
    assert!(w.ask("b.example.", 1, Way::Udp, 2002).is_none());
    w.question(1);
    assert!(w.no_question(0));
    assert!(w.ask("c.example.", 1, Way::Udp, 4001).is_none());
    w.question(0);
}

#[test]
fn silence_everywhere_is_a_failure_after_each_was_asked_twice() {
    let mut w = World::new(2);
    assert!(w.ask("a.example.", 1, Way::Udp, 0).is_none());
    for (n, server) in [0, 1, 0, 1].into_iter().enumerate() {
        let (query, _) = w.question(server);
        assert_eq!(query.edns.is_some(), n < 2, "a second try is without EDNS");
        w.forwarder.expire(&w.poll, 2000 * (n as u64 + 1));
    }
    w.collect();
    assert_eq!(w.done[0].1.metadata.response_code, ResponseCode::ServFail);
    assert!(
        w.forwarder.asks.is_empty() && w.forwarder.by_question.is_empty() && w.forwarder.deadlines.is_empty()
    );
}

#[test]
fn a_server_that_refuses_or_fails_is_passed_over_at_once() {
    let mut w = World::new(3);
    w.servers.remove(0);
    assert!(w.ask("a.example.", 1, Way::Udp, 0).is_none());
    // ICMP says that nobody listens at the first.
    w.pump(0, |w| w.forwarder.asks.iter().all(|(_, a)| a.server.is_some_and(|s| s.server == w.own[1])));
    let (query, from) = w.question(0);
    w.answer(0, &reply_to(&query, ResponseCode::ServFail, None), from);
    w.pump(0, |w| !w.no_question_peek(1));
    let (query, from) = w.question(1);
    w.answer(1, &reply_to(&query, ResponseCode::NoError, Some([10, 0, 0, 7])), from);
    w.pump(0, |w| !w.done.is_empty());
    assert_eq!(address_of(&w.done[0].1), "10.0.0.7");
}

#[test]
fn a_reply_that_cannot_be_read_is_not_waited_out() {
    let mut w = World::new(2);
    assert!(w.ask("a.example.", 1, Way::Udp, 0).is_none());
    let (query, from) = w.question(0);
    let mut torn = reply_to(&query, ResponseCode::NoError, Some([6, 6, 6, 6])).to_vec().unwrap();
    torn.truncate(torn.len() - 1);
    w.servers[0].send_to(&torn, from).unwrap();
    w.pump(0, |w| !w.no_question_peek(1));
    let (query, from) = w.question(1);
    w.answer(1, &reply_to(&query, ResponseCode::NoError, Some([10, 0, 0, 7])), from);
    w.pump(0, |w| !w.done.is_empty());
    assert_eq!(address_of(&w.done[0].1), "10.0.0.7");
}

#[test]
fn an_old_server_is_asked_again_without_edns_and_from_then_on() {
    let mut w = World::new(1);
    for name in ["a.example.", "b.example."] {
        assert!(w.ask(name, 1, Way::Udp, 0).is_none());
        let (mut query, mut from) = w.question(0);
        if name.starts_with('a') {
            assert!(query.edns.is_some());
            w.answer(0, &reply_to(&query, ResponseCode::FormErr, None), from);
            w.pump(0, |w| !w.no_question_peek(0));
            (query, from) = w.question(0);
        }
        assert!(query.edns.is_none());
        w.answer(0, &reply_to(&query, ResponseCode::NoError, Some([10, 0, 0, 7])), from);
        w.pump(0, |w| !w.done.is_empty());
        assert_eq!(address_of(&w.done.pop().unwrap().1), "10.0.0.7");
    }
}

fn take_tcp(stream: &mut TcpStream) -> Message {
    let mut len = [0; 2];
    stream.read_exact(&mut len).unwrap();
    let mut bytes = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut bytes).unwrap();
    Message::from_vec(&bytes).unwrap()
}

fn send_tcp(stream: &mut TcpStream, reply: &Message) {
    let bytes = reply.to_vec().unwrap();
    stream.write_all(&[&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat()).unwrap();
}

#[test]
fn what_is_too_long_for_udp_comes_over_a_connection_that_is_used_again() {
    let mut w = World::new(1);
    let listener = TcpListener::bind(("127.0.0.1", w.port)).unwrap();
    assert!(w.ask("a.example.", 1, Way::Udp, 0).is_none());
    assert!(w.ask("a.example.", 2, Way::Tcp, 0).is_none());
    let (query, from) = w.question(0);
    let mut cut = reply_to(&query, ResponseCode::NoError, None);
    cut.metadata.truncation = true;
    w.answer(0, &cut, from);
    w.pump(0, |w| !w.done.is_empty());
    let (client, told) = w.done.pop().unwrap();
    assert!(client == 1 && told.metadata.truncation, "the UDP client is told to come back");
    let (mut stream, _) = listener.accept().unwrap();
    w.pump(0, |w| w.forwarder.asks.iter().all(|(_, a)| matches!(a.sent, Sent::Stream(..))));
    let mut ready = Vec::new();
    w.poll.wait(Some(1000), &mut ready).unwrap();
    for source in ready {
        let Source::Stream(at) = source else { panic!() };
        w.forwarder.stream_ready(&w.poll, at, 0);
    }
    let query = take_tcp(&mut stream);
    send_tcp(&mut stream, &reply_to(&query, ResponseCode::NoError, Some([10, 0, 0, 7])));
    w.pump(0, |w| !w.done.is_empty());
    assert_eq!(address_of(&w.done.pop().unwrap().1), "10.0.0.7");
    // Cached now, and whole, for both.
    for way in [Way::Udp, Way::Tcp] {
        assert_eq!(address_of(&w.ask("a.example.", 3, way, 1).unwrap()), "10.0.0.7");
    }
    // Another that is known to be too long goes over the same connection; when the server closes it, over a new one.
    w.forwarder.cache.clear();
    assert!(w.ask("b.example.", 1, Way::Udp, 2).is_none());
    let (query, from) = w.question(0);
    let mut cut = reply_to(&query, ResponseCode::NoError, None);
    cut.metadata.truncation = true;
    w.answer(0, &cut, from);
    w.pump(2, |w| !w.done.is_empty());
    assert!(w.ask("b.example.", 1, Way::Udp, 3).unwrap().metadata.truncation);
    w.done.clear();
    assert!(w.ask("b.example.", 4, Way::Tcp, 3).is_none());
    assert!(w.no_question(0), "not over UDP first");
    drop(stream);
    let accepted = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let query = take_tcp(&mut stream);
        send_tcp(&mut stream, &reply_to(&query, ResponseCode::NoError, Some([10, 0, 0, 8])));
        stream
    });
    w.pump(3, |w| !w.done.is_empty());
    assert_eq!(address_of(&w.done.pop().unwrap().1), "10.0.0.8");
    drop(accepted.join().unwrap());
}

#[test]
fn what_is_under_way_is_bounded_and_unused_sockets_go() {
    let mut w = World::new(1);
    let failed = |m: Option<Message>| m.is_some_and(|m| m.metadata.response_code == ResponseCode::ServFail);
    let refused = (0..3000u32).filter(|n| failed(w.ask(&format!("n{n}.example."), 1, Way::Udp, 0))).count();
    assert!(w.forwarder.asks.len() <= ASKS && refused >= 3000 - ASKS, "{refused}");
    for now in (2000..=60_000).step_by(500) {
        w.forwarder.expire(&w.poll, now);
    }
    assert!(w.forwarder.asks.is_empty());
    assert_eq!(w.forwarder.due(60_000), None, "no socket is left to look after");
}
