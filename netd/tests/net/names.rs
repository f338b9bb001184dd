//! Names inside containers.

use std::net::UdpSocket;

use davit_contracts::network as proto;
use hickory_proto::op::Message;
use hickory_proto::rr::{RData, Record};

use crate::host::{Guest, Host, WORLD, ip};

/// A server of the world that knows one address for everything; TCP is not spoken.
fn upstream(host: &Host) {
    let socket = host.world.inside(|| UdpSocket::bind(format!("{WORLD}:53"))).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((n, peer)) = socket.recv_from(&mut buffer) {
            let Ok(query) = Message::from_vec(&buffer[..n]) else { continue };
            let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
            reply.add_queries(query.queries.clone());
            let data = RData::A("198.51.100.7".parse().unwrap());
            reply.add_answer(Record::from_rdata(query.queries[0].name().clone(), 60, data));
            let _ = socket.send_to(&reply.to_vec().unwrap(), peer);
        }
    });
}

#[tokio::test]
async fn names_aliases_and_short_ids_resolve_and_vanish() {
    let host = Host::new().await;
    host.net_create("my-bridge").await;
    let db = Guest::new("db");
    let aliases = vec!["database".to_owned()];
    let endpoint = proto::EndpointSpec { network: "my-bridge".into(), aliases, ..Default::default() };
    let answer = host.attach_request(Host::request(&db, vec![endpoint], &[])).await.unwrap();
    let resolv = answer.resolv_conf.clone().unwrap();
    assert_eq!(resolv.nameservers, ["127.0.0.11"]);
    assert_eq!(resolv.search, ["example.test"]);
    let db_ip = ip(&answer, 0);
    let web = host.guest("web", &["my-bridge"], &[]).await;
    for name in ["db", "database", "db-host", "DB", "db.my-bridge", &db.id[..12]] {
        assert_eq!(web.space.dig(name), db_ip, "{name}");
        assert_eq!(web.space.dig(&format!("+tcp {name}")), db_ip, "{name} over TCP");
    }
    assert_eq!(web.space.dig(&format!("-x {db_ip}")), "db.my-bridge.");
    assert_eq!(db.space.dig("db"), db_ip, "its own name");
    let status = |question: &str| {
        let text = web.space.run(&format!("dig +time=3 +tries=1 @127.0.0.11 {question}"));
        text.split("status: ").nth(1).unwrap().split(',').next().unwrap().to_owned()
    };
    assert_eq!(status("db AAAA"), "NOERROR");
    host.detach(&db).await;
    assert_eq!(web.space.dig("+tries=1 db"), "");
}

#[tokio::test]
async fn other_names_are_forwarded_and_a_container_may_serve_port_53() {
    let host = Host::new().await;
    upstream(&host);
    let guest = host.guest("g", &["bridge"], &[]).await;
    assert_eq!(guest.space.dig("example.org"), "198.51.100.7");
    // The container's own server on every address keeps ours from nothing, nor ours it.
    guest.space.serve_udp("0.0.0.0:53");
    assert_eq!(guest.space.dig("example.org"), "198.51.100.7");
    assert_eq!(guest.space.ask_udp("127.0.0.1:53").as_deref(), Some("127.0.0.1"));
}

#[tokio::test]
async fn an_unreachable_upstream_fails_without_delaying_our_names() {
    let host = Host::with("ip route del default; ip route add blackhole 10.99.0.1/32").await;
    host.net_create("n").await;
    let a = host.guest("alpha", &["n"], &[]).await;
    let text = a.space.run("dig +time=4 +tries=1 @127.0.0.11 example.org");
    assert!(text.contains("SERVFAIL"), "{text}");
    assert_ne!(a.space.dig("alpha"), "");
}

#[tokio::test]
async fn a_renamed_sandbox_answers_to_its_new_name_and_aliases_only() {
    let mut host = Host::new().await;
    host.net_create("my-bridge").await;
    let db = Guest::new("db");
    let aliases = vec!["database".to_owned()];
    let endpoint = proto::EndpointSpec { network: "my-bridge".into(), aliases, ..Default::default() };
    let db_ip = ip(&host.attach_request(Host::request(&db, vec![endpoint], &[])).await.unwrap(), 0);
    let web = host.guest("web", &["my-bridge"], &[]).await;
    let request = |id: &str| proto::RenameSandboxRequest { sandbox_id: id.to_owned(), name: "store".into() };
    let renamed = host.endpoints().rename(request(&db.id)).await.unwrap().into_inner();
    assert_eq!(renamed.endpoints[0].name, "store");
    for _ in 0..2 {
        for name in ["store", "database", "db-host", "store.my-bridge"] {
            assert_eq!(web.space.dig(name), db_ip, "{name}");
        }
        assert_eq!(web.space.dig("+tries=1 db"), "", "the old name");
        assert_eq!(web.space.dig(&format!("-x {db_ip}")), "store.my-bridge.");
        // What was acknowledged is still so after a kill.
        host.kill();
        host.start().await;
    }
    let unknown = host.endpoints().rename(request("0123")).await.unwrap().into_inner();
    assert!(unknown.endpoints.is_empty());
}
