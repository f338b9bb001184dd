//! Names inside containers.

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use davit_contracts::network as proto;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};

use crate::host::{Guest, Host, WORLD, ip};
use crate::upstream::Upstream;

/// A question for an address.
pub fn query(name: &str, id: u16) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

/// Asks the resolver in a guest; `None` when no reply comes.
struct Client {
    socket: UdpSocket,
    id: u16,
}

impl Client {
    fn new(guest: &Guest, patience: Duration) -> Self {
        let socket = guest.space.inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        socket.set_read_timeout(Some(patience)).unwrap();
        Self { socket, id: 0 }
    }

    fn ask(&mut self, name: &str) -> Option<Vec<String>> {
        self.id = self.id.wrapping_add(1);
        self.socket.send_to(&query(name, self.id), "127.0.0.11:53").ok()?;
        let mut buffer = [0; 1500];
        loop {
            let len = self.socket.recv(&mut buffer).ok()?;
            let reply = Message::from_vec(&buffer[..len]).unwrap();
            if reply.metadata.id == self.id {
                return Some(reply.answers.iter().map(|r| r.data.to_string()).collect());
            }
        }
    }
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

/// A container's own name server, on every address.
struct Dnsmasq(Child);

impl Dnsmasq {
    fn start(guest: &Guest, address: &str) -> Self {
        let pid = guest.space.pid().to_string();
        let child = Command::new("nsenter")
            .args(["-t", &pid, "-n", "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv"])
            .args(["--no-hosts", "--user=root", "--pid-file=", &format!("--address=/own.test/{address}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_container_may_serve_port_53_itself() {
    let host = Host::new().await;
    let _upstream = Upstream::serve(&host.world, WORLD, "198.51.100.7");
    host.net_create("n").await;
    let server = Guest::new("server");
    let address = ip(&host.attach(&server, &["n"], &[]).await.unwrap(), 0);
    let client = host.guest("client", &["n"], &[]).await;
    let _dnsmasq = Dnsmasq::start(&server, "192.0.2.1");
    let own = |guest: &Guest, at: &str| {
        guest.space.attempt(&format!("dig +short +time=1 +tries=1 @{at} own.test")).1.trim().to_owned()
    };
    let until = Instant::now() + Duration::from_secs(10);
    while own(&server, "127.0.0.1") != "192.0.2.1" {
        assert!(Instant::now() < until, "dnsmasq does not answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for way in ["+notcp", "+tcp"] {
        for (guest, at) in [(&server, "127.0.0.1"), (&server, &*address), (&client, &*address)] {
            assert_eq!(own(guest, &format!("{at} {way}")), "192.0.2.1", "{way} {at}");
        }
        assert_eq!(server.space.dig(&format!("{way} example.org")), "198.51.100.7");
        assert_eq!(server.space.dig(&format!("{way} server")), address);
        // Its peers ask for it by name, as it asks itself.
        assert_eq!(client.space.dig(&format!("{way} server")), address);
    }
}

#[tokio::test]
async fn both_families_and_published_services_are_found() {
    let host = Host::new().await;
    let request = proto::CreateNetworkRequest { name: "n".into(), ipv6: true, ..Default::default() };
    host.create(request).await.unwrap();
    let web = Guest::new("web");
    let answer = host.attach(&web, &["n"], &["8080:80", "5353:53/udp"]).await.unwrap();
    let (v4, v6) = (ip(&answer, 0), answer.endpoints[0].ip6.split('/').next().unwrap().to_owned());
    let gateways = [&answer.endpoints[0].gateway, &answer.endpoints[0].gateway6].map(Clone::clone);
    assert_eq!(answer.host_gateway, gateways, "by which the host is reached");
    let client = host.guest("client", &["n"], &[]).await;
    let dig = |question: &str| client.space.dig(question);
    assert_eq!((dig("web A"), dig("web AAAA")), (v4.clone(), v6.clone()));
    assert_eq!((dig(&format!("-x {v4}")), dig(&format!("-x {v6}"))), ("web.n.".into(), "web.n.".into()));
    for question in ["_http._tcp.web SRV", "_80._tcp.web.n SRV", "+tcp _http._tcp.web-host SRV"] {
        assert_eq!(dig(question), "0 0 80 web.n.", "{question}");
    }
    assert_eq!(dig("_domain._udp.web SRV"), "0 0 53 web.n.");
    assert_eq!(dig("_https._tcp.web SRV"), "");
    let whole = client.space.run("dig @127.0.0.11 _http._tcp.web SRV");
    assert!(whole.contains(&v4) && whole.contains(&v6), "addresses come with it: {whole}");
}

/// Asks without pause for names that stay, while others come and go, and for those too.
#[tokio::test]
async fn no_query_is_lost_while_containers_come_and_go_and_each_change_shows_at_once() {
    let host = Host::new().await;
    let _upstream = Upstream::serve(&host.world, WORLD, "");
    host.net_create("n").await;
    host.net_create("m").await;
    let steady = Guest::new("steady");
    let address = ip(&host.attach(&steady, &["n"], &[]).await.unwrap(), 0);
    let web = host.guest("web", &["n"], &[]).await;
    let other = Guest::new("other");
    let other_at = ip(&host.attach(&other, &["m"], &[]).await.unwrap(), 0);
    let stop = Arc::new(AtomicBool::new(false));
    let (told, mut client) = (stop.clone(), Client::new(&web, Duration::from_secs(10)));
    let asking = std::thread::spawn(move || {
        let mut asked = 0;
        while !told.load(Ordering::SeqCst) {
            assert_eq!(client.ask("steady.").expect("a query is lost"), [address.as_str()]);
            let changing = client.ask("changing.").expect("a query is lost");
            assert!(changing.len() <= 1, "{changing:?}");
            asked += 2;
        }
        asked
    });
    let mut asker = Client::new(&web, Duration::from_secs(10));
    for round in 0..25 {
        let guest = Guest::new(&format!("c{round}"));
        let mut request = Host::request(
            &guest,
            vec![proto::EndpointSpec { network: "n".into(), ..Default::default() }],
            &[],
        );
        request.name = "changing".into();
        let at = ip(&host.attach_request(request).await.unwrap(), 0);
        assert_eq!(asker.ask("changing.").unwrap(), [at.as_str()], "round {round}");
        let rename = proto::RenameSandboxRequest { sandbox_id: guest.id.clone(), name: "changed".into() };
        host.endpoints().rename(rename).await.unwrap();
        assert_eq!(asker.ask("changing.").unwrap(), [""; 0]);
        assert_eq!(asker.ask("changed.").unwrap(), [at.as_str()]);
        let endpoint = Some(proto::EndpointSpec { network: "m".into(), ..Default::default() });
        let connect = proto::ConnectRequest { sandbox_id: web.id.clone(), endpoint };
        host.endpoints().connect(connect).await.unwrap();
        assert_eq!(asker.ask("other.").unwrap(), [other_at.as_str()]);
        let disconnect =
            proto::DisconnectRequest { sandbox_id: web.id.clone(), network: "m".into(), force: false };
        host.endpoints().disconnect(disconnect).await.unwrap();
        assert_eq!(asker.ask("other.").unwrap(), [""; 0]);
        host.detach(&guest).await;
        assert_eq!(asker.ask("changed.").unwrap(), [""; 0]);
    }
    stop.store(true, Ordering::SeqCst);
    assert!(asking.join().unwrap() > 100);
}

/// Between a kill and the next start queries get no answer; asked again they get the right one, never "no such name".
#[tokio::test]
async fn a_client_that_asks_again_does_not_notice_a_restart() {
    let mut host = Host::new().await;
    let upstream = Upstream::serve(&host.world, WORLD, "198.51.100.7");
    host.net_create("n").await;
    let asker = host.guest("a-first", &["n"], &[]).await;
    let mut crowd = Vec::new();
    for n in 0..20 {
        crowd.push(host.guest(&format!("crowd{n}"), &["n"], &[]).await);
    }
    let last = Guest::new("last");
    let address = ip(&host.attach(&last, &["n"], &[]).await.unwrap(), 0);
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (told, count) = (stop.clone(), answered.clone());
    let mut client = Client::new(&asker, Duration::from_millis(100));
    let asking = std::thread::spawn(move || {
        while !told.load(Ordering::SeqCst) {
            if let Some(found) = client.ask("last.") {
                assert_eq!(found, [address.as_str()]);
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    for _ in 0..3 {
        host.kill();
        host.start().await;
        assert!(!asker.space.dig("+tries=3 last").is_empty());
        let before = answered.load(Ordering::SeqCst);
        let deadline = Instant::now() + Duration::from_secs(30);
        while answered.load(Ordering::SeqCst) == before {
            assert!(!asking.is_finished() && Instant::now() < deadline, "no answer after a restart");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    stop.store(true, Ordering::SeqCst);
    asking.join().unwrap();
    assert_eq!(upstream.asked(), 0, "a name of ours was asked for outside");
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

/// Sends more than both ends buffer before it reads anything: netd stops and goes on, and forgets no query.
#[tokio::test]
async fn each_of_many_queries_on_a_connection_is_answered_once_its_client_reads() {
    use std::io::{Read as _, Write as _};
    const QUERIES: usize = 120_000;
    let host = Host::new().await;
    host.net_create("n").await;
    let a = host.guest("alpha", &["n"], &[]).await;
    let mut stream = a.space.inside(|| std::net::TcpStream::connect("127.0.0.11:53")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut one = query("alpha.", 7);
    one.splice(..0, u16::try_from(one.len()).unwrap().to_be_bytes());
    let (all, mut sender) = (one.repeat(QUERIES), stream.try_clone().unwrap());
    stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while let Some(n) = stream.write(&all[sent..]).ok().filter(|n| *n > 0) {
        sent += n;
    }
    stream.set_nonblocking(false).unwrap();
    let rest = std::thread::spawn(move || {
        sender.write_all(&all[sent..]).unwrap();
        sender.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut replies = 0;
    let mut reader = std::io::BufReader::new(stream);
    let mut len = [0; 2];
    while reader.read_exact(&mut len).is_ok() {
        reader.read_exact(&mut vec![0; usize::from(u16::from_be_bytes(len))]).unwrap();
        replies += 1;
    }
    rest.join().unwrap();
    assert_eq!(replies, QUERIES);
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

#[tokio::test]
async fn links_and_aliases_that_cannot_be_asked_for_are_refused() {
    let host = Host::new().await;
    host.net_create("n").await;
    let db = host.guest("db", &["n"], &[]).await;
    let web = Guest::new("web");
    let endpoint = |links: &[&str], aliases: &[&str]| {
        let own = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        proto::EndpointSpec {
            network: "n".into(),
            links: own(links),
            aliases: own(aliases),
            ..Default::default()
        }
    };
    let long = format!("db:{}", ["a"; 129].join("."));
    for link in ["db:", ":x", "db:a..b", "db:a b", "a b", &long] {
        let request = Host::request(&web, vec![endpoint(&[link], &[])], &[]);
        let e = host.attach_request(request).await.unwrap_err();
        assert!(e.kind() == davit_contracts::Kind::InvalidArgument && e.to_string().contains("link"), "{e}");
    }
    for alias in ["", "a..b", "a\tb", &"a".repeat(64)] {
        let request = Host::request(&web, vec![endpoint(&[], &[alias])], &[]);
        let e = host.attach_request(request).await.unwrap_err();
        assert!(e.kind() == davit_contracts::Kind::InvalidArgument && e.to_string().contains("alias"), "{e}");
    }
    let whole = format!("{}:by-id", db.id);
    let links = endpoint(&["db:by-name", &whole], &[]);
    let at = host.attach_request(Host::request(&web, vec![links], &[])).await.unwrap();
    assert!(!at.endpoints.is_empty());
    let known = web.space.dig("db");
    assert!(!known.is_empty());
    assert_eq!((web.space.dig("by-name"), web.space.dig("by-id")), (known.clone(), known));
}
