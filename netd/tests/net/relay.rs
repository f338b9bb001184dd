//! Published ports where the kernel does not redirect: the host's `[::1]`, and its IPv6 addresses for containers of IPv4.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use davit_contracts::network as proto;

use crate::host::{Guest, HOST, Host, Space, WORLD};

/// The host's IPv6 address on the uplink, and the world's.
const HOST6: &str = "fd99::2";
const WORLD6: &str = "fd99::1";

async fn host_with_ipv6() -> Host {
    let host = Host::with(&format!("ip addr add {HOST6}/64 dev uplink nodad")).await;
    host.world.run(&format!("ip addr add {WORLD6}/64 dev eth0 nodad"));
    host
}

/// Sends back what each client sends until it has said all, and then ends.
fn serve_echo(space: &Space, at: &str) {
    let listener = space.inside(|| TcpListener::bind(at)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut all = Vec::new();
                if stream.read_to_end(&mut all).is_ok() {
                    let _ = stream.write_all(&all);
                }
            });
        }
    });
}

fn connect(space: &Space, to: &str) -> TcpStream {
    let stream = space.inside(|| TcpStream::connect(to)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Asks port 8080 of a link-local address on the link of eth0.
fn ask_near(space: &Space, ip: &str) -> Option<String> {
    let to = std::net::SocketAddrV6::new(ip.parse().unwrap(), 8080, 0, space.index("eth0"));
    let mut text = String::new();
    let mut stream = space.inside(|| TcpStream::connect(to)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Whether its other end closes or resets a connection.
fn ends(mut stream: &TcpStream) -> bool {
    match stream.read(&mut [0; 16]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[tokio::test]
pub async fn a_port_answers_at_the_ipv6_loopback_also_for_a_container_without_ipv6() {
    let host = host_with_ipv6().await;
    let ports = ["8080:80", "5353:53/udp", "127.0.0.1:8081:80", "[::1]:8082:80", "[::1]:5354:53/udp"];
    let web = Guest::new("web");
    let at = host.attach(&web, &["bridge"], &ports).await.unwrap();
    let told: Vec<_> = at.ports.iter().map(|p| (p.host_ip.as_str(), p.host_port)).collect();
    assert_eq!(told[..3], [("0.0.0.0", 8080), ("::", 8080), ("0.0.0.0", 5353)]);
    web.space.serve_tcp("0.0.0.0:80");
    web.space.serve_udp("0.0.0.0:53");
    for port in [8080, 8082] {
        assert!(host.space.ask_tcp(&format!("[::1]:{port}")).is_some(), "{port}: {}", host.log());
    }
    for port in [5353, 5354] {
        assert!(host.space.ask_udp(&format!("[::1]:{port}")).is_some(), "{port}/udp: {}", host.log());
    }
    assert_eq!(host.space.ask_tcp("[::1]:8081"), None, "published at 127.0.0.1 only");
    // The same for others, who reach the host by IPv6; what is published at the loopback is not theirs.
    assert!(host.world.ask_tcp(&format!("[{HOST6}]:8080")).is_some());
    assert!(host.world.ask_udp(&format!("[{HOST6}]:5353")).is_some());
    assert_eq!(host.world.ask_tcp(&format!("[{HOST6}]:8082")), None);
    // By IPv4 a client comes as who it is: the kernel redirects it.
    assert_eq!(host.world.ask_tcp(&format!("{HOST}:8080")).as_deref(), Some(WORLD));
}

#[tokio::test]
pub async fn a_dual_stack_port_is_redirected_but_at_the_loopback() {
    let host = host_with_ipv6().await;
    let request = proto::CreateNetworkRequest { name: "dual".into(), ipv6: true, ..Default::default() };
    host.create(request).await.unwrap();
    let web = host.guest("web", &["dual"], &["8080:80", "5353:53/udp", "[::1]:8082:80"]).await;
    web.space.serve_tcp("[::]:80");
    web.space.serve_udp("[::]:53");
    for to in ["[::1]:8080", "[::1]:8082", "127.0.0.1:8080"] {
        assert!(host.space.ask_tcp(to).is_some(), "{to}: {}", host.log());
    }
    assert!(host.space.ask_udp("[::1]:5353").is_some(), "{}", host.log());
    assert_eq!(host.world.ask_tcp(&format!("[{HOST6}]:8080")).as_deref(), Some(WORLD6));
    assert_eq!(host.world.ask_udp(&format!("[{HOST6}]:5353")).as_deref(), Some(WORLD6));
}

#[tokio::test]
async fn much_at_once_comes_back_whole_after_a_half_close_and_leaves_no_descriptors() {
    let host = Host::new().await;
    let web = host.guest("web", &["bridge"], &["8080:80"]).await;
    serve_echo(&web.space, "0.0.0.0:80");
    let sockets = |host: &Host| host.descriptors().iter().filter(|d| *d == "socket").count();
    let idle = sockets(&host);
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut stream = connect(&host.space, "[::1]:8080");
                stream.write_all(&sent).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let mut got = Vec::new();
                stream.read_to_end(&mut got).unwrap();
                assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
            });
        }
    });
    let until = Instant::now() + Duration::from_secs(20);
    let becomes = async |done: &dyn Fn(usize) -> bool| {
        while !done(sockets(&host)) {
            assert!(Instant::now() < until, "{idle} sockets before: {:?}", host.descriptors());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    becomes(&|n| n <= idle).await;
    let waiting = connect(&host.space, "[::1]:8080");
    becomes(&|n| n > idle).await;
    drop(waiting);
    becomes(&|n| n <= idle).await;
    host.detach(&web).await;
    // The port's two, and the resolver's.
    becomes(&|n| n + 4 <= idle).await;
}

#[tokio::test]
async fn a_withdrawn_port_ends_its_connections_and_is_free_at_once() {
    let host = Host::new().await;
    let web = host.guest("web", &["bridge"], &["8080:80"]).await;
    serve_echo(&web.space, "0.0.0.0:80");
    let open = connect(&host.space, "[::1]:8080");
    host.detach(&web).await;
    assert!(ends(&open));
    host.space.inside(|| TcpListener::bind("[::]:8080")).unwrap();
    let again = host.guest("again", &["bridge"], &["8080:80"]).await;
    again.space.serve_tcp("0.0.0.0:80");
    assert!(host.space.ask_tcp("[::1]:8080").is_some(), "{}", host.log());
}

#[tokio::test]
async fn one_ports_clients_do_not_keep_out_those_of_another() {
    let host = Host::new().await;
    // That leaves 16 connections in all.
    host.leave_descriptors(120);
    let busy = host.guest("busy", &["bridge"], &["8080:80"]).await;
    let web = host.guest("web", &["bridge"], &["8081:80"]).await;
    serve_echo(&busy.space, "0.0.0.0:80");
    web.space.serve_tcp("0.0.0.0:80");
    let open: Vec<_> = (0..20).map(|_| connect(&host.space, "[::1]:8080")).collect();
    assert!(ends(&open[19]));
    assert!(host.space.ask_tcp("[::1]:8081").is_some(), "{}", host.log());
    assert_eq!(host.log().matches("too many connections").count(), 1, "{}", host.log());
}

#[tokio::test]
async fn a_killed_netds_successor_answers_again() {
    let mut host = Host::new().await;
    let web = host.guest("web", &["bridge"], &["8080:80", "5353:53/udp"]).await;
    serve_echo(&web.space, "0.0.0.0:80");
    web.space.serve_udp("0.0.0.0:53");
    let open = connect(&host.space, "[::1]:8080");
    for _ in 0..2 {
        host.kill();
        assert!(ends(&open));
        host.start().await;
        assert!(!host.log().contains("not reserved any more"), "{}", host.log());
        let mut stream = connect(&host.space, "[::1]:8080");
        stream.write_all(b"?").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "?");
        assert!(host.space.ask_udp("[::1]:5353").is_some());
    }
}

#[tokio::test]
async fn a_port_follows_its_container_to_another_network_and_resets_clients_while_there_is_none() {
    let host = Host::new().await;
    for name in ["first", "second"] {
        host.net_create(name).await;
    }
    let web = host.guest("web", &["first"], &["[::1]:8080:80"]).await;
    web.space.serve_tcp("0.0.0.0:80");
    assert!(host.space.ask_tcp("[::1]:8080").is_some());
    let disconnect = |network: &str| proto::DisconnectRequest {
        sandbox_id: web.id.clone(),
        network: network.into(),
        ..Default::default()
    };
    host.endpoints().disconnect(disconnect("first")).await.unwrap();
    assert_eq!(host.space.ask_tcp("[::1]:8080"), None);
    let endpoint = proto::EndpointSpec { network: "second".into(), ..Default::default() };
    let request = proto::ConnectRequest { sandbox_id: web.id.clone(), endpoint: Some(endpoint) };
    host.endpoints().connect(request).await.unwrap();
    assert!(host.space.ask_tcp("[::1]:8080").is_some(), "{}", host.log());
}

#[tokio::test]
async fn an_internal_network_reaches_no_port_by_way_of_the_relay() {
    let host = Host::new().await;
    for (name, internal) in [("inside", true), ("dual", false)] {
        let request =
            proto::CreateNetworkRequest { name: name.into(), ipv6: true, internal, ..Default::default() };
        host.create(request).await.unwrap();
    }
    let web = host.guest("web", &["bridge"], &["8080:80"]).await;
    web.space.serve_tcp("0.0.0.0:80");
    let bridge = |network: proto::Network| {
        let all = host.space.run(&format!("ip -6 -o addr show dev {}", network.interface));
        let find = |start: &str| {
            let mut found = all.split_whitespace().filter(|w| w.starts_with(start));
            found.next().unwrap().split('/').next().unwrap().to_owned()
        };
        (find("fd"), find("fe80"))
    };
    let neighbour = host.guest("neighbour", &["dual"], &[]).await;
    let locked = host.guest("locked", &["inside"], &[]).await;
    let (global, _) = bridge(host.inspect("dual").await);
    assert!(neighbour.space.ask_tcp(&format!("[{global}]:8080")).is_some(), "{}", host.log());
    let (global, local) = bridge(host.inspect("inside").await);
    assert_eq!(locked.space.ask_tcp(&format!("[{global}]:8080")), None);
    assert_eq!(ask_near(&locked.space, &local), None);
    let (_, local) = bridge(host.inspect("dual").await);
    assert!(ask_near(&neighbour.space, &local).is_some(), "{}", host.log());
    // A bridge that was made again has another index.
    host.space.run(&format!("ip link del {}", host.inspect("inside").await.interface));
    let mended = host
        .networks()
        .check(proto::CheckRequest { repair: true, ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    assert!(mended.drifts.iter().all(|d| d.repaired), "{mended:?}");
    let (_, local) = bridge(host.inspect("inside").await);
    assert_eq!(ask_near(&locked.space, &local), None, "{}", host.log());
}

#[tokio::test]
async fn an_internal_network_does_not_reach_a_port_under_a_strangers_address() {
    let host = host_with_ipv6().await;
    let request = proto::CreateNetworkRequest {
        name: "inside".into(),
        ipv6: true,
        internal: true,
        ..Default::default()
    };
    host.create(request).await.unwrap();
    let web = host.guest("web", &["bridge"], &["5353:53/udp"]).await;
    let server = web.space.inside(|| UdpSocket::bind("0.0.0.0:53")).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let locked = host.guest("locked", &["inside"], &[]).await;
    let bridge = host.inspect("inside").await.interface;
    let all = host.space.run(&format!("ip -6 -o addr show dev {bridge} scope global"));
    let gateway = all.split_whitespace().find(|w| w.contains("/64")).unwrap().trim_end_matches("/64");
    locked.space.run(&format!(
        "ip addr add 2001:db8::5/128 dev eth0 nodad
         ip route add {HOST6} via {gateway} src 2001:db8::5"
    ));
    let say = |space: &Space, from: &str, text: &str| {
        let socket = space.inside(|| UdpSocket::bind(from)).unwrap();
        socket.send_to(text.as_bytes(), (HOST6, 5353)).unwrap();
    };
    let asked = || host.space.run("awk '$1 == \"Udp6InDatagrams\"' /proc/thread-self/net/snmp6");
    let before = asked();
    say(&locked.space, "[2001:db8::5]:0", "stranger");
    host.eventually("the stranger's is read", || asked() != before).await;
    say(&host.world, "[::]:0", "neighbour");
    let mut buffer = [0; 16];
    let n = server.recv(&mut buffer).unwrap();
    assert_eq!(std::str::from_utf8(&buffer[..n]), Ok("neighbour"), "{}", host.log());
}

/// An address of one version that is named is that version's only; with none named it is both, as docker has it.
#[tokio::test]
async fn who_names_an_address_of_one_version_gets_no_other() {
    let host = Host::new().await;
    let six = proto::CreateNetworkRequest {
        name: "six".into(),
        ipv6: true,
        disable_ipv4: true,
        ..Default::default()
    };
    host.create(six).await.unwrap();
    host.create(proto::CreateNetworkRequest { name: "dual".into(), ipv6: true, ..Default::default() })
        .await
        .unwrap();
    host.net_create("four").await;
    let told = |at: &proto::AttachResponse| {
        at.ports.iter().map(|p| format!("{} {}", p.host_ip, p.host_port)).collect::<Vec<_>>()
    };
    for (network, ports, expected) in [
        ("dual", &["8080:80"][..], &["0.0.0.0 8080", ":: 8080"][..]),
        ("dual", &["0.0.0.0:8080:80"], &["0.0.0.0 8080"]),
        ("dual", &["0.0.0.0:8080:80", "[::]:8080:80"], &["0.0.0.0 8080", ":: 8080"]),
        ("four", &["0.0.0.0:8080:80"], &["0.0.0.0 8080"]),
        ("six", &["8080:80"], &[":: 8080"]),
    ] {
        let guest = Guest::new("c");
        let at = host.attach(&guest, &[network], ports).await.unwrap();
        assert_eq!(told(&at), expected, "{network} {ports:?}");
        host.detach(&guest).await;
    }
    for port in ["0.0.0.0:8080:80", "127.0.0.1:8080:80"] {
        let e = host.attach(&Guest::new("c"), &["six"], &[port]).await.unwrap_err();
        assert!(e.to_string().contains("it has no IPv4 address"), "{port}: {e}");
    }
    host.eventually("no interface is left", || !host.traces().iter().any(|t| t.starts_with("dvh"))).await;
}
