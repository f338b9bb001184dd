//! Names that are not ours: what upstream servers are asked, and what becomes of their answers.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use davit_contracts::network as proto;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record};

use crate::host::{BEYOND, Guest, Host, Space, WORLD};

/// A server that knows addresses for everything; names that begin with `many` have a hundred, more than UDP carries.
pub struct Upstream {
    asked: Arc<AtomicUsize>,
}

impl Upstream {
    /// Serves UDP and TCP at an address in a namespace; every name is at `address`; when that is empty, no name is there.
    pub fn serve(space: &Space, at: &str, address: &str) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let (udp, tcp) =
            space.inside(|| (UdpSocket::bind((at, 53)).unwrap(), TcpListener::bind((at, 53)).unwrap()));
        let (count, ip) = (asked.clone(), address.to_owned());
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((n, peer)) = udp.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                let Some(reply) = reply_to(&buffer[..n], &ip) else { continue };
                let bytes = reply.to_vec().unwrap();
                let bytes = if bytes.len() > 1232 { reply.truncate().to_vec().unwrap() } else { bytes };
                let _ = udp.send_to(&bytes, peer);
            }
        });
        let (count, ip) = (asked.clone(), address.to_owned());
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let Ok(stream) = stream else { return };
                let (count, ip) = (count.clone(), ip.clone());
                std::thread::spawn(move || converse(stream, &count, &ip));
            }
        });
        Self { asked }
    }

    /// How many questions came.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn converse(mut stream: TcpStream, asked: &AtomicUsize, ip: &str) {
    let mut len = [0; 2];
    while stream.read_exact(&mut len).is_ok() {
        let mut query = vec![0; u16::from_be_bytes(len).into()];
        stream.read_exact(&mut query).unwrap();
        asked.fetch_add(1, Ordering::SeqCst);
        let bytes = reply_to(&query, ip).unwrap().to_vec().unwrap();
        let _ = stream.write_all(&[&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat());
    }
}

pub fn reply_to(query: &[u8], ip: &str) -> Option<Message> {
    let query = Message::from_vec(query).ok()?;
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.add_queries(query.queries.clone());
    let name = query.queries[0].name().clone();
    let many = name.to_ascii().starts_with("many");
    if ip.is_empty() {
        reply.metadata.response_code = ResponseCode::NXDomain;
        return Some(reply);
    }
    for n in 0..if many { 100 } else { 1 } {
        let ip = if many { format!("198.51.100.{n}") } else { ip.to_owned() };
        reply.add_answer(Record::from_rdata(name.clone(), 60, RData::A(ip.parse().unwrap())));
    }
    Some(reply)
}

/// Polls what `dig` prints until it is as wanted.
async fn becomes(guest: &Guest, question: &str, wanted: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let found = guest.space.dig(question);
        if found == wanted {
            return;
        }
        assert!(Instant::now() < until, "{question}: {found}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_answer_is_asked_for_once_for_all_containers_and_counts_down() {
    let host = Host::new().await;
    let upstream = Upstream::serve(&host.world, WORLD, "198.51.100.7");
    host.net_create("n").await;
    let (a, b) = (host.guest("a", &["n"], &[]).await, host.guest("b", &["bridge"], &[]).await);
    for guest in [&a, &b, &a] {
        for question in ["example.org", "EXAMPLE.org", "+tcp example.org"] {
            assert_eq!(guest.space.dig(question), "198.51.100.7");
        }
    }
    assert_eq!(upstream.asked(), 1);
    let line = a.space.run("dig +noall +answer @127.0.0.11 example.org");
    let ttl: u32 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(ttl <= 60, "{line}");
}

#[tokio::test]
async fn what_is_too_long_for_udp_is_whole_over_tcp() {
    let host = Host::new().await;
    let _upstream = Upstream::serve(&host.world, WORLD, "198.51.100.7");
    let a = host.guest("a", &["bridge"], &[]).await;
    // dig comes back over TCP by itself when it is told that there is more.
    for question in ["many.example.org", "+tcp many.example.org", "+tcp many.example.net", "many.example.net"]
    {
        assert_eq!(a.space.dig(question).lines().count(), 100, "{question}");
    }
    let cut = a.space.run("dig +ignore @127.0.0.11 many.example.org");
    assert!(cut.contains(" tc ") && cut.contains("ANSWER: 0"), "{cut}");
}

#[tokio::test]
async fn the_hosts_servers_are_asked_as_its_configuration_says_now() {
    let script = format!(
        "printf 'nameserver 10.99.0.77\\nnameserver {WORLD}\\noptions timeout:1\\n' > /etc/resolv.conf"
    );
    let host = Host::with(&script).await;
    let _first = Upstream::serve(&host.world, WORLD, "198.51.100.7");
    let _other = Upstream::serve(&host.world, BEYOND, "198.51.100.8");
    let a = Guest::new("a");
    let answer = host.attach(&a, &["bridge"], &[]).await.unwrap();
    let conf = answer.resolv_conf.unwrap();
    assert_eq!((conf.nameservers, conf.search), (vec!["127.0.0.11".to_owned()], vec![]));
    assert_eq!(conf.options, ["timeout:1", "ndots:0"]);
    // Nobody has the first server's address.
    assert_eq!(a.space.dig("example.org"), "198.51.100.7");
    host.space.run(&format!("printf 'nameserver {BEYOND}\\n' > /etc/resolv.conf"));
    becomes(&a, "example.org", "198.51.100.8").await;
}

#[tokio::test]
async fn a_stub_resolver_on_the_hosts_loopback_is_asked_from_the_host() {
    let host =
        Host::with("printf 'nameserver 127.0.0.53\\noptions edns0 trust-ad\\n' > /etc/resolv.conf").await;
    let _stub = Upstream::serve(&host.space, "127.0.0.53", "198.51.100.53");
    let a = host.guest("a", &["bridge"], &[]).await;
    assert_eq!(a.space.dig("example.org"), "198.51.100.53");
}

#[tokio::test]
async fn a_plain_users_netd_asks_the_servers_behind_the_stub() {
    let script = "mount -t tmpfs none /run; mkdir -p /run/systemd/resolve
        echo 'nameserver 10.7.7.7' > /run/systemd/resolve/resolv.conf
        echo 'nameserver 127.0.0.53' > /run/resolv.conf; mount --bind /run/resolv.conf /etc/resolv.conf
        ip addr add 10.7.7.7/32 dev lo";
    let host = Host::rootless_with(script).await;
    let _behind = Upstream::serve(&host.space, "10.7.7.7", "198.51.100.9");
    let guest = Guest { space: Space::beneath(&host.space), ..Guest::new("g") };
    host.attach(&guest, &["bridge"], &[]).await.unwrap();
    assert_eq!(guest.space.dig("example.org"), "198.51.100.9");
}

#[tokio::test]
async fn servers_of_its_own_and_search_domains_are_a_containers_own() {
    let host = Host::new().await;
    let usual = Upstream::serve(&host.world, WORLD, "198.51.100.7");
    let own = Upstream::serve(&host.world, BEYOND, "198.51.100.8");
    let guest = Guest::new("g");
    let endpoint = proto::EndpointSpec { network: "bridge".into(), ..Default::default() };
    let mut request = Host::request(&guest, vec![endpoint], &[]);
    request.dns_servers = vec![BEYOND.to_owned()];
    request.dns_search = vec![".".to_owned()];
    request.dns_options = vec!["ndots:2".to_owned()];
    let conf = host.attach_request(request).await.unwrap().resolv_conf.unwrap();
    assert_eq!(conf.nameservers, ["127.0.0.11"]);
    assert_eq!((conf.search, conf.options), (vec![], vec!["ndots:2".to_owned()]));
    assert_eq!(guest.space.dig("example.org"), "198.51.100.8");
    let other = host.guest("other", &["bridge"], &[]).await;
    assert_eq!(other.space.dig("example.org"), "198.51.100.7", "what another asked is not its answer");
    assert_eq!((usual.asked(), own.asked()), (1, 1));
}

#[tokio::test]
async fn nothing_is_asked_for_a_container_of_internal_networks_until_it_has_another() {
    let host = Host::new().await;
    let upstream = Upstream::serve(&host.world, WORLD, "198.51.100.7");
    let internal = proto::CreateNetworkRequest { name: "in".into(), internal: true, ..Default::default() };
    host.create(internal).await.unwrap();
    let a = host.guest("alone", &["in"], &[]).await;
    let text = a.space.run("dig @127.0.0.11 example.org");
    assert!(text.contains("NXDOMAIN"), "{text}");
    assert!(!a.space.dig("alone").is_empty());
    assert_eq!(upstream.asked(), 0);
    let endpoint = proto::EndpointSpec { network: "bridge".into(), ..Default::default() };
    let request = proto::ConnectRequest { sandbox_id: a.id.clone(), endpoint: Some(endpoint) };
    host.endpoints().connect(request).await.unwrap();
    assert_eq!(a.space.dig("example.org"), "198.51.100.7");
}

/// More questions than may wait, at a server that never answers: the rest is told so at once, and our own names too.
#[tokio::test]
async fn a_flood_for_a_silent_server_delays_nothing_of_ours() {
    // For as long as the test may take, none of the questions is given up.
    let script = format!("printf 'nameserver {WORLD}\\noptions timeout:30\\n' > /etc/resolv.conf");
    let host = Host::with(&script).await;
    let _silent = host.world.inside(|| UdpSocket::bind((WORLD, 53))).unwrap();
    host.net_create("n").await;
    let a = host.guest("alpha", &["n"], &[]).await;
    let socket = a.space.inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut buffer = [0; 512];
    // A burst may be more than a socket holds: what counts is that some question is refused before any is given up.
    let refused = (0..5000u16).find(|n| {
        socket.send_to(&crate::names::query(&format!("n{n}.example."), *n), "127.0.0.11:53").unwrap();
        socket.recv(&mut buffer).is_ok()
    });
    assert!(refused.is_some_and(|n| n >= 256) && buffer[3] & 0xf == 2, "{refused:?}");
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.send_to(&crate::names::query("alpha.", 9999), "127.0.0.11:53").unwrap();
    let reply = loop {
        let len = socket.recv(&mut buffer).unwrap();
        let reply = Message::from_vec(&buffer[..len]).unwrap();
        if reply.metadata.id == 9999 {
            break reply;
        }
    };
    assert_eq!(reply.answers.len(), 1);
}
