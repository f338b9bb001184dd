//! Who reaches whom.

use davit_contracts::network as proto;

use crate::host::{BEYOND, Guest, HOST, Host, WORLD, ip};

#[tokio::test]
pub async fn containers_of_a_network_reach_each_other_and_the_world_through_nat() {
    let host = Host::new().await;
    host.net_create("my-bridge").await;
    let (db, web) = (Guest::new("db"), Guest::new("web"));
    let db_at = host.attach(&db, &["my-bridge"], &[]).await.unwrap();
    let web_at = host.attach(&web, &["my-bridge"], &[]).await.unwrap();
    db.space.serve_tcp("0.0.0.0:5432");
    assert_eq!(web.space.ask_tcp(&format!("{}:5432", ip(&db_at, 0))), Some(ip(&web_at, 0)));

    // The world has no route to the container: an answer proves NAT, and the source it saw too.
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    assert_eq!(web.space.ask_tcp(&format!("{BEYOND}:80")).as_deref(), Some(HOST));
    // The uplink's MTU is taken over.
    assert!(web.space.run("ip link show eth0").contains("mtu 1400"));
    for stage in ["plan", "veth", "inside"] {
        assert!(web_at.stage_us.contains_key(stage), "{:?}", web_at.stage_us);
    }
}

#[tokio::test]
pub async fn networks_are_apart_and_nobody_routes_in() {
    let host = Host::new().await;
    host.net_create("red").await;
    host.net_create("blue").await;
    let (red, blue) = (Guest::new("red"), Guest::new("blue"));
    let red_at = host.attach(&red, &["red"], &[]).await.unwrap();
    host.attach(&blue, &["blue"], &[]).await.unwrap();
    red.space.serve_tcp("0.0.0.0:80");
    let red_at = format!("{}:80", ip(&red_at, 0));
    assert_eq!(blue.space.ask_tcp(&red_at), None);
    host.world.run(&format!("ip route add 172.16.0.0/12 via {HOST}"));
    assert_eq!(host.world.ask_tcp(&red_at), None);
    // The host itself does reach it, so that the silence above is the rules' doing.
    assert!(host.space.ask_tcp(&red_at).is_some());
}

#[tokio::test]
pub async fn an_internal_network_leads_nowhere() {
    let host = Host::new().await;
    let request = proto::CreateNetworkRequest { name: "in".into(), internal: true, ..Default::default() };
    host.create(request).await.unwrap();
    let (a, b) = (Guest::new("a"), Guest::new("b"));
    let a_at = host.attach(&a, &["in"], &[]).await.unwrap();
    host.attach(&b, &["in"], &[]).await.unwrap();
    a.space.serve_tcp("0.0.0.0:80");
    assert!(b.space.ask_tcp(&format!("{}:80", ip(&a_at, 0))).is_some());
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    // Also not with a route that the container made itself.
    let gateway = host.networks().inspect(proto::InspectNetworkRequest { name: "in".into() }).await.unwrap();
    b.space.run(&format!("ip route add default via {}", gateway.into_inner().subnets[0].gateway));
    assert_eq!(b.space.ask_tcp(&format!("{BEYOND}:80")), None);
    assert_eq!(b.space.ask_tcp(&format!("{WORLD}:80")), None);
}

#[tokio::test]
pub async fn containers_without_icc_reach_the_world_but_not_each_other() {
    let host = Host::new().await;
    let options = [("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned())].into();
    let request = proto::CreateNetworkRequest { name: "n".into(), options, ..Default::default() };
    host.create(request).await.unwrap();
    let (a, b) = (Guest::new("a"), Guest::new("b"));
    let a_at = host.attach(&a, &["n"], &[]).await.unwrap();
    host.attach(&b, &["n"], &[]).await.unwrap();
    a.space.serve_tcp("0.0.0.0:80");
    assert_eq!(b.space.ask_tcp(&format!("{}:80", ip(&a_at, 0))), None);
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    assert!(b.space.ask_tcp(&format!("{BEYOND}:80")).is_some());
}

#[tokio::test]
pub async fn containers_do_not_reach_the_hosts_loopback() {
    let host = Host::new().await;
    let guest = host.guest("g", &["bridge"], &[]).await;
    host.space.serve_tcp("127.0.0.1:9000");
    host.space.serve_tcp("0.0.0.0:9001");
    let gateway = guest.space.run("ip route show default").split_whitespace().nth(2).unwrap().to_owned();
    assert!(guest.space.ask_tcp(&format!("{gateway}:9001")).is_some());
    // Packets for 127/8 sent over the wire: the container gives up its own loopback for it.
    guest.space.run(
        "sysctl -qw net.ipv4.conf.all.route_localnet=1; ip addr flush dev lo;
         ip route flush table local 127.0.0.0/8 2>/dev/null; ip route del local 127.0.0.0/8 table local 2>/dev/null; true",
    );
    guest.space.run(&format!("ip route add 127.0.0.1/32 via {gateway} dev eth0"));
    assert_eq!(guest.space.ask_tcp("127.0.0.1:9000"), None);
    // Nor where others have rules for that address: a redirection that is meant for the host itself, no tracking.
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    host.space.run(&format!(
        "nft add table ip theirs; nft add chain ip theirs pre '{{ type nat hook prerouting priority -105; }}';
         nft add rule ip theirs pre ip daddr 127.0.0.1 tcp dport 9002 dnat to {BEYOND}:80"
    ));
    assert_eq!(guest.space.ask_tcp("127.0.0.1:9002"), None);
    host.space.run(
        "nft delete table ip theirs; nft add table ip theirs;
         nft add chain ip theirs pre '{ type filter hook prerouting priority -310; }';
         nft add chain ip theirs out '{ type filter hook output priority -310; }';
         nft add rule ip theirs pre ip daddr 127.0.0.1 notrack; nft add rule ip theirs out ip saddr 127.0.0.1 notrack",
    );
    assert_eq!(guest.space.ask_tcp("127.0.0.1:9000"), None);
}

#[tokio::test]
pub async fn ipv6_is_dual_stack_with_nat() {
    let host = Host::with("ip addr add fd99::2/64 dev uplink nodad; ip route add default via fd99::1").await;
    host.world.run("ip addr add fd99::1/64 dev eth0 nodad; ip addr add 2001:db8::9/128 dev lo nodad");
    let request = proto::CreateNetworkRequest { name: "six".into(), ipv6: true, ..Default::default() };
    let made = host.create(request).await.unwrap();
    assert_eq!(made.subnets.len(), 2);
    let (a, b) = (Guest::new("alpha"), Guest::new("beta"));
    let a_at = host.attach(&a, &["six"], &["8080:80"]).await.unwrap();
    host.attach(&b, &["six"], &[]).await.unwrap();
    a.space.serve_tcp("[::]:80");
    let a6 = a_at.endpoints[0].ip6.split('/').next().unwrap().to_owned();
    assert!(b.space.ask_tcp(&format!("[{a6}]:80")).is_some());
    assert_eq!(b.space.dig("alpha AAAA"), a6);
    host.world.serve_tcp("[2001:db8::9]:80");
    assert_eq!(b.space.ask_tcp("[2001:db8::9]:80").as_deref(), Some("fd99::2"));
    assert!(host.world.ask_tcp("[fd99::2]:8080").is_some());
    assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some());
}

#[tokio::test]
pub async fn none_has_loopback_only_and_host_is_left_alone() {
    let host = Host::new().await;
    let none = Guest::new("none");
    host.attach(&none, &[], &[]).await.unwrap();
    assert!(none.space.run("ip -o link show up").contains("lo"));
    assert_eq!(none.space.run("ip -o link").lines().count(), 1);
    // On the network "host" the holder is in the host's namespace and stays as it is.
    let mut request = Host::request(&Guest::new("h"), vec![], &["80:80"]);
    let process = davit_sys::process::ProcessRef::of(host.space.pid()).unwrap();
    request.holder =
        Some(proto::Holder { pid: process.pid, start_time: process.start_time, ..Default::default() });
    request.endpoints = vec![proto::EndpointSpec { network: "host".into(), ..Default::default() }];
    let answer = host.attach_request(request.clone()).await.unwrap();
    assert_eq!(answer.resolv_conf.unwrap().nameservers, [WORLD]);
    assert_eq!(host.traces(), Vec::<String>::new());
    // The same holder on a bridge would change the host itself.
    request.sandbox_id = "other".into();
    request.endpoints[0].network = "bridge".into();
    let e = host.attach_request(request).await.unwrap_err();
    assert!(e.to_string().contains("no network namespace of its own"), "{e}");
}

#[tokio::test]
pub async fn networks_come_and_go_while_a_container_runs() {
    let host = Host::new().await;
    host.net_create("one").await;
    host.net_create("two").await;
    let guest = host.guest("g", &["one"], &["8080:80"]).await;
    guest.space.serve_tcp("0.0.0.0:80");
    let peer = host.guest("peer", &["two"], &[]).await;
    let spec = |network: &str| proto::EndpointSpec { network: network.into(), ..Default::default() };
    let connect = proto::ConnectRequest { sandbox_id: guest.id.clone(), endpoint: Some(spec("two")) };
    let endpoint = host.endpoints().connect(connect.clone()).await.unwrap().into_inner();
    assert_eq!(endpoint.interface, "eth1");
    assert_eq!(peer.space.dig("g"), endpoint.ip.split('/').next().unwrap());
    assert!(host.endpoints().connect(connect).await.is_err());
    assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some());

    let leave =
        proto::DisconnectRequest { sandbox_id: guest.id.clone(), network: "one".into(), force: false };
    host.endpoints().disconnect(leave.clone()).await.unwrap();
    // The default route and the published port moved to the network that is left.
    assert!(guest.space.run("ip route show default").contains("eth1"));
    assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some());
    assert!(host.endpoints().disconnect(leave).await.is_err());
    host.detach(&guest).await;
    host.detach(&peer).await;
    host.net_remove("one").await.unwrap();
    host.net_remove("two").await.unwrap();
    host.becomes_clean().await;
}
