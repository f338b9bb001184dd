//! Servers of a container's own (`--dns`): asked from inside of it, and what they say is told to nobody else.

mod bounds;

use std::net::UdpSocket;
use std::time::Duration;

use davit_contracts::Kind;
use davit_contracts::network as proto;

use crate::host::{BEYOND, Guest, Host, Space, WORLD, ip};
use crate::upstream::Upstream;

/// An address that several servers have, each on a network of its own.
const SHARED: &str = "10.77.0.53";

pub async fn internal(host: &Host, name: &str, ipv6: bool) {
    let request =
        proto::CreateNetworkRequest { name: name.into(), internal: true, ipv6, ..Default::default() };
    host.create(request).await.unwrap();
}

/// A guest on a network, with servers of its own.
pub async fn asker(host: &Host, name: &str, network: &str, servers: &[&str]) -> Guest {
    let guest = Guest::new(name);
    attach(host, &guest, network, servers).await;
    guest
}

async fn attach(host: &Host, guest: &Guest, network: &str, servers: &[&str]) {
    let mut request = Host::request(guest, vec![endpoint(network)], &[]);
    request.dns_servers = servers.iter().map(|s| (*s).to_owned()).collect();
    host.attach_request(request).await.unwrap();
}

fn endpoint(network: &str) -> proto::EndpointSpec {
    proto::EndpointSpec { network: network.into(), ..Default::default() }
}

/// A guest on a network that answers everything with an address.
async fn server(host: &Host, name: &str, network: &str, answer: &str) -> (Guest, String, Upstream) {
    let guest = Guest::new(name);
    let at = ip(&host.attach(&guest, &[network], &[]).await.unwrap(), 0);
    let upstream = Upstream::serve(&guest.space, &at, answer);
    (guest, at, upstream)
}

/// The same at the address that several have.
async fn shared(host: &Host, name: &str, network: &str, answer: &str) -> (Guest, Upstream) {
    let guest = Guest::new(name);
    host.attach(&guest, &[network], &[]).await.unwrap();
    guest.space.run(&format!("ip addr add {SHARED}/32 dev eth0"));
    let upstream = Upstream::serve(&guest.space, SHARED, answer);
    (guest, upstream)
}

/// Asks with patience for servers that are silent.
fn ask(space: &Space, question: &str) -> String {
    space.run(&format!("dig +time=60 +tries=1 @127.0.0.11 {question}"))
}

#[tokio::test]
async fn a_neighbour_on_a_macvlan_is_asked() {
    let host = Host::new().await;
    let request = proto::CreateNetworkRequest {
        name: "wire".into(),
        driver: "macvlan".into(),
        subnets: vec![proto::Subnet {
            subnet: "10.99.0.0/24".into(),
            gateway: WORLD.into(),
            ..Default::default()
        }],
        options: [("parent".to_owned(), "uplink".to_owned())].into(),
        ..Default::default()
    };
    host.create(request).await.unwrap();
    let (_server, at, upstream) = server(&host, "server", "wire", "198.51.100.7").await;
    // From the host nobody reaches it.
    let (_, text) = host.space.attempt(&format!("dig +time=1 +tries=1 @{at} example.org"));
    assert!(text.contains("no servers could be reached") && upstream.asked() == 0, "{text}");
    let a = asker(&host, "a", "wire", &[&at]).await;
    assert_eq!(a.space.dig("example.org"), "198.51.100.7");
    assert_eq!(a.space.dig("+tcp many.example.org").lines().count(), 100);
}

#[tokio::test]
async fn its_own_loopback_is_not_the_hosts() {
    let host = Host::new().await;
    let hosts = Upstream::serve(&host.space, "127.0.0.1", "198.51.100.1");
    for (name, at) in [("a", "127.0.0.1"), ("b", "::1"), ("c", "127.0.0.53")] {
        let a = asker(&host, name, "bridge", &[at]).await;
        let own = Upstream::serve(&a.space, at, "198.51.100.7");
        assert_eq!(a.space.dig("example.org"), "198.51.100.7", "{at}");
        // What is too long for UDP comes over TCP, from there too.
        assert_eq!(a.space.dig("many.example.org").lines().count(), 100, "{at}");
        let asked = own.asked();
        assert_eq!(a.space.dig("example.org"), "198.51.100.7", "{at}");
        assert_eq!(own.asked(), asked, "it is kept");
    }
    assert_eq!(hosts.asked(), 0);
    // Nobody is there: told at once, and containers are found.
    let d = asker(&host, "d", "bridge", &["127.0.0.1"]).await;
    assert!(ask(&d.space, "example.org").contains("SERVFAIL"));
    assert!(!d.space.dig("d").is_empty());
}

#[tokio::test]
async fn on_an_internal_network_a_neighbour_is_asked_and_the_world_is_not_reached() {
    let host = Host::new().await;
    let world = Upstream::serve(&host.world, WORLD, "198.51.100.1");
    internal(&host, "in", false).await;
    let (_server, at, _upstream) = server(&host, "server", "in", "198.51.100.7").await;
    let a = asker(&host, "a", "in", &[&at]).await;
    assert_eq!(a.space.dig("example.org"), "198.51.100.7");
    assert!(!a.space.dig("server").is_empty(), "names of containers are ours to answer");
    let b = asker(&host, "b", "in", &[WORLD]).await;
    assert!(ask(&b.space, "example.org").contains("SERVFAIL"), "there is no way out");
    let c = asker(&host, "c", "in", &[]).await;
    assert!(ask(&c.space, "example.org").contains("NXDOMAIN"));
    assert_eq!(world.asked(), 0);
    // Both ask as the world is asked in an explanation.
    let explain = |from: &'static str| {
        let request = proto::ExplainRequest {
            from: from.into(),
            to: "example.org".into(),
            port: 80,
            protocol: "tcp".into(),
        };
        let mut client = host.networks();
        async move { client.explain(request).await.unwrap().into_inner().hops[0].what.clone() }
    };
    assert_eq!(explain("a").await, "'example.org' is 198.51.100.7: its own servers say so");
    let told = explain("b").await;
    assert!(told.contains(&format!("its own servers ({WORLD}) do not tell: SERVFAIL")), "{told}");
    // With a way out it is asked by that way.
    let request = proto::ConnectRequest { sandbox_id: b.id.clone(), endpoint: Some(endpoint("bridge")) };
    host.endpoints().connect(request).await.unwrap();
    assert_eq!(b.space.dig("example.org"), "198.51.100.1");
}

#[tokio::test]
async fn a_link_local_server_is_asked_by_the_interface_that_is_named() {
    let host = Host::new().await;
    internal(&host, "in", true).await;
    let (server, ..) = server(&host, "server", "in", "198.51.100.1").await;
    server.space.run("ip addr add fe80::53/64 dev eth0 nodad");
    let _upstream = Upstream::serve(&server.space, "fe80::53%eth0", "198.51.100.7");
    let a = asker(&host, "a", "in", &["fe80::53%eth0"]).await;
    let index = a.space.index("eth0");
    let b = asker(&host, "b", "in", &["fe80::53%4321", &format!("fe80::53%{index}")]).await;
    let c = asker(&host, "c", "in", &["fe80::53%none"]).await;
    for guest in [&a, &b] {
        // Its own link-local address may not be ready yet.
        host.eventually("it is answered", || ask(&guest.space, "example.org").contains("198.51.100.7")).await;
        assert!(ask(&guest.space, "many.example.org").contains("ANSWER: 100"));
    }
    assert!(ask(&c.space, "example.org").contains("SERVFAIL"));
}

#[tokio::test]
async fn a_zone_of_the_hosts_own_configuration_is_an_interface_of_the_host() {
    let script = "sysctl -qw net.ipv6.conf.uplink.disable_ipv6=0
        ip addr add fe80::2/64 dev uplink nodad; echo 'nameserver fe80::1%uplink' > /etc/resolv.conf";
    let host = Host::with(script).await;
    host.world.run("ip addr add fe80::1/64 dev eth0 nodad");
    let _upstream = Upstream::serve(&host.world, "fe80::1%eth0", "198.51.100.7");
    let a = host.guest("a", &["bridge"], &[]).await;
    assert_eq!(a.space.dig("example.org"), "198.51.100.7");
}

#[tokio::test]
async fn the_same_address_is_another_server_elsewhere() {
    let host = Host::new().await;
    for network in ["red", "blue"] {
        internal(&host, network, false).await;
    }
    let (_red, of_red) = shared(&host, "red-server", "red", "198.51.100.1").await;
    let (_blue, of_blue) = shared(&host, "blue-server", "blue", "198.51.100.2").await;
    let (a, b) = (asker(&host, "a", "red", &[SHARED]).await, asker(&host, "b", "blue", &[SHARED]).await);
    let route = format!("ip route add {SHARED}/32 dev eth0");
    a.space.run(&route);
    b.space.run(&route);
    for _ in 0..2 {
        assert_eq!(a.space.dig("example.org"), "198.51.100.1");
        assert_eq!(b.space.dig("example.org"), "198.51.100.2");
    }
    assert_eq!((of_red.asked(), of_blue.asked()), (1, 1));
    // One that moves is told what is so where it is now.
    let connect = proto::ConnectRequest { sandbox_id: a.id.clone(), endpoint: Some(endpoint("blue")) };
    host.endpoints().connect(connect).await.unwrap();
    let disconnect =
        proto::DisconnectRequest { sandbox_id: a.id.clone(), network: "red".into(), force: false };
    host.endpoints().disconnect(disconnect).await.unwrap();
    a.space.run(&format!("ip route add {SHARED}/32 dev eth1"));
    assert_eq!(a.space.dig("example.org"), "198.51.100.2");
}

/// The same question of two containers, while one of the servers is silent.
#[tokio::test]
async fn what_is_under_way_for_one_is_not_waited_for_by_another() {
    let host = Host::new().await;
    let a = asker(&host, "a", "bridge", &["127.0.0.1"]).await;
    let b = asker(&host, "b", "bridge", &["127.0.0.1"]).await;
    let silent = a.space.inside(|| UdpSocket::bind("127.0.0.1:53")).unwrap();
    // A question that never comes fails the test, and does not keep it.
    silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let _upstream = Upstream::serve(&b.space, "127.0.0.1", "198.51.100.2");
    let asking = std::thread::spawn(move || (ask(&a.space, "example.org"), a));
    let mut query = [0; 512];
    let mut question = silent.recv_from(&mut query).unwrap();
    assert_eq!(b.space.dig("example.org"), "198.51.100.2");
    // It answers after all, and differently; it may have been asked again.
    silent.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    while !asking.is_finished() {
        let reply = crate::upstream::reply_to(&query[..question.0], "198.51.100.1").unwrap();
        silent.send_to(&reply.to_vec().unwrap(), question.1).unwrap();
        question = silent.recv_from(&mut query).unwrap_or(question);
    }
    let (told, _a) = asking.join().unwrap();
    assert!(told.contains("198.51.100.1"), "{told}");
}

#[tokio::test]
async fn after_a_silent_server_the_next_is_asked_and_none_is_a_failure() {
    let host = Host::new().await;
    let a = asker(&host, "a", "bridge", &["127.0.0.1", "127.0.0.2"]).await;
    let silent = a.space.inside(|| UdpSocket::bind("127.0.0.1:53")).unwrap();
    // A question that never comes fails the test, and does not keep it.
    silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let second = Upstream::serve(&a.space, "127.0.0.2", "198.51.100.7");
    assert!(ask(&a.space, "example.org").contains("198.51.100.7"));
    assert!(silent.recv(&mut [0; 512]).is_ok() && second.asked() == 1);
    let b = asker(&host, "b", "bridge", &["127.0.0.1"]).await;
    let _silent = b.space.inside(|| UdpSocket::bind("127.0.0.1:53")).unwrap();
    assert!(ask(&b.space, "example.org").contains("SERVFAIL"));
    assert!(!b.space.dig("b").is_empty());
}

#[tokio::test]
async fn they_are_asked_again_after_a_restart() {
    let mut host = Host::new().await;
    internal(&host, "in", false).await;
    let (_server, at, upstream) = server(&host, "server", "in", "198.51.100.7").await;
    let a = asker(&host, "a", "in", &["fe80::1%none", &at]).await;
    for n in 1..=3 {
        assert_eq!(a.space.dig("+tries=3 example.org"), "198.51.100.7");
        assert_eq!(upstream.asked(), n);
        host.kill();
        host.start().await;
    }
}

/// As an older netd took it.
#[tokio::test]
async fn a_record_by_which_a_resolver_would_ask_itself_does_no_harm() {
    let mut host = Host::new().await;
    let upstream = Upstream::serve(&host.world, WORLD, "198.51.100.7");
    let a = asker(&host, "a", "bridge", &["127.0.0.99"]).await;
    host.kill();
    let records = host.file("run/network/sandboxes");
    let changed = host.space.run(&format!(
        "grep -rl 127.0.0.99 {0} | xargs sed -i s/127.0.0.99/127.0.0.11/; grep -rl 127.0.0.11 {0}",
        records.display()
    ));
    assert_eq!(changed.lines().count(), 1);
    host.start().await;
    assert_eq!(a.space.dig("example.org"), "198.51.100.7");
    assert!(upstream.asked() == 1 && host.log().contains("passed over"));
}

#[tokio::test]
async fn a_plain_users_netd_asks_inside_too() {
    let host = Host::rootless().await;
    let guest = Guest { space: Space::beneath(&host.space), ..Guest::new("g") };
    attach(&host, &guest, "bridge", &["127.0.0.1"]).await;
    let _own = Upstream::serve(&guest.space, "127.0.0.1", "198.51.100.7");
    assert_eq!(guest.space.dig("example.org"), "198.51.100.7");
    assert_eq!(guest.space.dig("many.example.org").lines().count(), 100);
}

#[tokio::test]
async fn servers_that_nobody_can_ask_are_refused() {
    let host = Host::new().await;
    let guest = Guest::new("g");
    for (bad, why) in [
        ("127.0.0.11", "own resolver"),
        ("0.0.0.0", "any address"),
        ("::", "any address"),
        ("224.0.0.1", "a group"),
        ("ff02::1%eth0", "link-local address"),
        ("fe80::1", "fe80::1%eth0"),
        ("fe80::1%", "neither an interface's name"),
        ("10.0.0.1%eth0", "link-local address"),
        ("name", "not an IP address"),
    ] {
        let mut request = Host::request(&guest, vec![endpoint("bridge")], &[]);
        request.dns_servers = vec![BEYOND.to_owned(), bad.to_owned()];
        let e = host.attach_request(request).await.unwrap_err();
        assert!(e.kind() == Kind::InvalidArgument && e.to_string().contains(why), "{bad}: {e}");
    }
}
