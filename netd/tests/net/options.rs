//! What a person may choose of a network and of a place on it, and what is said when it cannot be.

mod ipv6_off;

use std::fs;
use std::time::{Duration, Instant};

use davit_contracts::Kind;
use davit_contracts::network as proto;

use crate::host::{BEYOND, Guest, Host, ip};

fn spec(network: &str) -> proto::EndpointSpec {
    proto::EndpointSpec { network: network.into(), ..Default::default() }
}

fn with(name: &str, options: &[(&str, &str)]) -> proto::CreateNetworkRequest {
    let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    proto::CreateNetworkRequest { name: name.into(), options, ..Default::default() }
}

fn driver_opt(network: &str, name: &str, value: &str) -> proto::EndpointSpec {
    proto::EndpointSpec { options: [(name.to_owned(), value.to_owned())].into(), ..spec(network) }
}

const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
const IFNAME: &str = "com.docker.network.endpoint.ifname";

#[tokio::test]
async fn an_interface_has_the_name_and_settings_that_were_asked_for() {
    let mut host = Host::new().await;
    host.create(with("n", &[("com.docker.network.container_iface_prefix", "net")])).await.unwrap();
    host.net_create("plain").await;
    let guest = Guest::new("g");
    let set = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.neigh.IFNAME.gc_stale_time=77";
    let specs = vec![driver_opt("n", SYSCTLS, set), driver_opt("plain", IFNAME, "wan.1")];
    let at = host.attach_request(Host::request(&guest, specs, &[])).await.unwrap();
    assert_eq!((at.endpoints[0].interface.as_str(), at.endpoints[1].interface.as_str()), ("net0", "wan.1"));
    let read = |guest: &Guest, name: &str| guest.space.run(&format!("cat /proc/sys/net/ipv4/{name}"));
    assert_eq!(read(&guest, "conf/net0/log_martians").trim(), "1");
    assert_eq!(read(&guest, "neigh/net0/gc_stale_time").trim(), "77");
    // A dot in the name is no step of the path.
    let leave = |network: &str| proto::DisconnectRequest {
        sandbox_id: guest.id.clone(),
        network: network.into(),
        force: false,
    };
    host.endpoints().disconnect(leave("plain")).await.unwrap();
    let mut again = driver_opt("plain", SYSCTLS, "net.ipv4.conf.IFNAME.log_martians=1");
    again.interface = "lan.1".into();
    let connect = proto::ConnectRequest { sandbox_id: guest.id.clone(), endpoint: Some(again) };
    host.endpoints().connect(connect).await.unwrap();
    assert_eq!(read(&guest, "conf/lan.1/log_martians").trim(), "1");
    // What a killed netd has to plug in again has them again.
    host.kill();
    host.space.run(&format!("ip link del {}", at.endpoints[0].host_interface));
    host.start().await;
    assert_eq!(read(&guest, "conf/net0/log_martians").trim(), "1");
}

#[tokio::test]
async fn endpoint_options_that_cannot_be_leave_nothing() {
    let host = Host::new().await;
    host.net_create("n").await;
    let keep = host.guest("keep", &["n"], &[]).await;
    let before = host.traces();
    let mut both = driver_opt("n", IFNAME, "a");
    both.interface = "b".into();
    for (endpoint, kind, text, hint) in [
        (driver_opt("n", SYSCTLS, "net.ipv4.ip_forward=1"), Kind::InvalidArgument, "ip_forward", "IFNAME"),
        (
            driver_opt("n", SYSCTLS, "net.ipv4.conf.IFNAME.nonsense=1"),
            Kind::InvalidArgument,
            "set up",
            "no such setting",
        ),
        (
            driver_opt("n", SYSCTLS, "net.ipv4.conf.IFNAME.forwarding=x"),
            Kind::InvalidArgument,
            "set up",
            "value",
        ),
        (
            driver_opt("n", "com.docker.network.endpoint.sysctl", "x"),
            Kind::InvalidArgument,
            "unknown option",
            SYSCTLS,
        ),
        (driver_opt("n", IFNAME, "a/b"), Kind::InvalidArgument, "interface name", ""),
        (both, Kind::InvalidArgument, "interface name", ""),
        (
            proto::EndpointSpec { ip: "fd00::1".into(), ..spec("n") },
            Kind::InvalidArgument,
            "IPv4 address",
            "",
        ),
        (
            proto::EndpointSpec { ip6: "fd00::1".into(), ..spec("n") },
            Kind::InvalidArgument,
            "no IPv6",
            "--ipv6",
        ),
        (
            proto::EndpointSpec { mac: "01:00:00:00:00:01".into(), ..spec("n") },
            Kind::InvalidArgument,
            "mac",
            "",
        ),
        (
            proto::EndpointSpec { mac: "02:da:ac:12:00:01".into(), ..spec("n") },
            Kind::InUse,
            "bridge itself",
            "",
        ),
        (proto::EndpointSpec { mac: "02:da:ac:12:00:02".into(), ..spec("n") }, Kind::InUse, "'keep'", ""),
    ] {
        let guest = Guest::new("g");
        let said = format!("{endpoint:?}");
        let e = host.attach_request(Host::request(&guest, vec![endpoint], &[])).await.expect_err(&said);
        assert_eq!(e.kind(), kind, "{said}: {e}");
        assert!(e.to_string().contains(text) && e.hint().contains(hint), "{said}: {e} ({})", e.hint());
        let gone = || guest.space.run("ip -o link").lines().count() == 1;
        host.eventually(&format!("nothing is left of {said}"), gone).await;
    }
    // Our end of a refused attach is swept away behind the answer.
    let until = Instant::now() + Duration::from_secs(5);
    while host.traces() != before {
        assert!(Instant::now() < until, "left: {:?}, before: {before:?}", host.traces());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    host.detach(&keep).await;
}

#[tokio::test]
async fn each_family_leaves_by_the_network_of_highest_priority_that_has_it() {
    let uplink6 = "ip addr add fd99::2/64 dev uplink nodad; ip route add default via fd99::1";
    let host = Host::with(uplink6).await;
    let six = proto::CreateNetworkRequest { ipv6: true, disable_ipv4: true, ..with("six", &[]) };
    let made = host.create(six).await.unwrap();
    assert!(made.disable_ipv4 && made.subnets.len() == 1 && made.subnets[0].subnet.starts_with("fd"));
    host.net_create("four").await;
    host.net_create("other").await;
    let guest = Guest::new("g");
    let first = proto::EndpointSpec { gateway_priority: -1, ..spec("other") };
    let last = proto::EndpointSpec { gateway_priority: 7, ..spec("six") };
    let specs = vec![first, spec("four"), last];
    let at = host.attach_request(Host::request(&guest, specs, &[])).await.unwrap();
    assert_eq!((at.endpoints[2].ip.as_str(), at.endpoints[2].gateway.as_str()), ("", ""));
    assert_eq!(at.endpoints[2].gateway_priority, 7);
    assert!(guest.space.run("ip -4 route show default").contains("eth1"));
    assert!(guest.space.run("ip -6 route show default").contains("eth2"));
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    assert!(guest.space.ask_tcp(&format!("{BEYOND}:80")).is_some());
    let peer = host.guest("peer", &["six"], &[]).await;
    assert_eq!(peer.space.dig("g AAAA"), at.endpoints[2].ip6.split('/').next().unwrap());
    assert_eq!(peer.space.dig("g A"), "");
    let leave =
        proto::DisconnectRequest { sandbox_id: guest.id.clone(), network: "four".into(), force: false };
    host.endpoints().disconnect(leave).await.unwrap();
    assert!(guest.space.run("ip -4 route show default").contains("eth0"));
    assert!(guest.space.run("ip -6 route show default").contains("eth2"), "IPv6 did not move");
}

async fn problems(host: &Host, network: &str) -> Vec<String> {
    let request = proto::InspectNetworkRequest { name: network.into() };
    host.networks().inspect(request).await.unwrap().into_inner().problems
}

async fn has_problems(host: &Host, network: &str, wanted: &[&str]) {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let now = problems(host, network).await;
        if now.len() == wanted.len() && now.iter().zip(wanted).all(|(p, w)| p.contains(w)) {
            return;
        }
        assert!(Instant::now() < until, "{now:?}, wanted: {wanted:?}\n{}", host.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_route_of_the_host_that_comes_to_overlap_a_network_is_told() {
    let mut host = Host::new().await;
    let made = host.net_create("n").await;
    assert_eq!(made.subnets[0].subnet, "172.18.0.0/16");
    let guest = host.guest("g", &["n"], &[]).await;
    has_problems(&host, "n", &[]).await;
    host.space.run("ip route add 172.16.0.0/12 via 10.99.0.1");
    has_problems(&host, "n", &["172.18.0.0/16 overlaps 172.16.0.0/12 of the host's interface uplink"]).await;
    host.space.run("ip addr add 172.18.7.1/24 dev uplink");
    has_problems(&host, "n", &["172.18.7.0/24", "172.16.0.0/12"]).await;
    assert_eq!(
        host.log().matches("may not reach what they mean").count(),
        2,
        "each is told once: {}",
        host.log()
    );
    host.space.run("ip addr del 172.18.7.1/24 dev uplink");
    has_problems(&host, "n", &["172.16.0.0/12"]).await;
    // Whoever starts later hears of it too.
    host.kill();
    host.start().await;
    has_problems(&host, "n", &["172.16.0.0/12"]).await;
    host.space.run("ip route del 172.16.0.0/12");
    has_problems(&host, "n", &[]).await;
    host.detach(&guest).await;
}

#[tokio::test]
async fn subnets_come_from_the_pools_of_the_configuration() {
    let mut host = Host::new().await;
    host.stop();
    let toml = "[[default-address-pools]]\nbase = \"10.200.0.0/23\"\nsize = 24\n
        [[default-address-pools]]\nbase = \"fd12::/48\"\nsize = 64\n";
    fs::create_dir_all(host.config()).unwrap();
    fs::write(host.config().join("netd.toml"), toml).unwrap();
    host.start().await;
    let six = proto::CreateNetworkRequest { ipv6: true, ..with("a", &[]) };
    let made = host.create(six.clone()).await.unwrap();
    let subnets: Vec<_> = made.subnets.iter().map(|s| s.subnet.as_str()).collect();
    assert_eq!(subnets, ["10.200.0.0/24", "fd12::/64"]);
    host.net_create("b").await;
    let before = host.traces();
    let e = host.create(with("c", &[])).await.unwrap_err();
    assert!(e.kind() == Kind::NoSpace && e.hint().contains("give a subnet"), "{e}");
    assert_eq!(host.traces(), before);
    host.stop();
    fs::write(host.config().join("netd.toml"), "default-adress-pools = []\n").unwrap();
    let out = host.command().output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && text.contains("default-adress-pools"), "{text}");
}

#[tokio::test]
async fn lists_are_narrowed_as_dockers_are() {
    let host = Host::new().await;
    host.create(proto::CreateNetworkRequest {
        labels: [("tier".to_owned(), "web".to_owned())].into(),
        ..with("front", &[])
    })
    .await
    .unwrap();
    host.net_create("back").await;
    let guest = host.guest("g", &["back"], &[]).await;
    for (pairs, wanted) in [
        (&[("type", "builtin")][..], &["bridge", "host", "none"][..]),
        (&[("type", "custom")], &["front", "back"]),
        (&[("dangling", "true")], &["front"]),
        (&[("label", "tier=web")], &["front"]),
        (&[("driver", "bridge"), ("type", "custom"), ("name", "ack")], &["back"]),
        (&[("driver", "null")], &["none"]),
        (&[("driver", "none")], &["none"]),
        (&[("scope", "swarm")], &[]),
    ] {
        let filters = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let list = host.networks().list(proto::ListNetworksRequest { filters }).await.unwrap().into_inner();
        let names: Vec<_> = list.networks.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, wanted, "{pairs:?}");
    }
    host.detach(&guest).await;
}

#[tokio::test]
async fn a_refused_network_leaves_the_host_as_it_was() {
    let host = Host::with("ip route add 172.20.0.0/16 via 10.99.0.1").await;
    host.net_create("n").await;
    let all = "ip -o link; ip -o -4 addr; ip -4 route show table all; ip rule; nft list ruleset";
    let before = host.space.run(all);
    let subnet = |subnet: &str, gateway: &str| proto::CreateNetworkRequest {
        subnets: vec![proto::Subnet { subnet: subnet.into(), gateway: gateway.into(), ..Default::default() }],
        ..with("x", &[])
    };
    let isolated = with("x", &[("com.docker.network.bridge.gateway_mode_ipv4", "isolated")]);
    let mut two = subnet("10.1.0.0/24", "");
    two.subnets.push(subnet("10.2.0.0/24", "").subnets[0].clone());
    let four = proto::CreateNetworkRequest { disable_ipv4: true, ipv6: true, ..subnet("10.1.0.0/24", "") };
    for (request, kind, hint) in [
        (subnet("172.18.0.0/24", ""), Kind::InUse, "another subnet"),
        (subnet("172.20.9.0/24", ""), Kind::InUse, "another subnet"),
        (subnet("10.1.0.0/24", "10.2.0.1"), Kind::InvalidArgument, ""),
        (subnet("10.1.0.0/24", "10.1.0.255"), Kind::InvalidArgument, ""),
        (subnet("10.1.0.0/31", ""), Kind::InvalidArgument, ""),
        (isolated, Kind::InvalidArgument, "--internal"),
        (two, Kind::InvalidArgument, ""),
        (four, Kind::InvalidArgument, ""),
        (with("x", &[("parent", "uplink")]), Kind::InvalidArgument, ""),
        (
            with("x", &[("mtuu", "1400")]),
            Kind::InvalidArgument,
            "did you mean com.docker.network.driver.mtu?",
        ),
        (
            proto::CreateNetworkRequest { driver: "overlay".into(), ..with("x", &[]) },
            Kind::InvalidArgument,
            "macvlan",
        ),
    ] {
        let said = format!("{request:?}");
        let e = host.create(request).await.expect_err(&said);
        assert_eq!(e.kind(), kind, "{said}: {e}");
        assert!(e.hint().contains(hint), "{said}: {}", e.hint());
        assert_eq!(host.space.run(all), before, "{said}");
    }
}

#[tokio::test]
async fn an_isolated_bridge_has_no_address_and_its_containers_reach_each_other() {
    let host = Host::new().await;
    let mode = |v: u8| format!("com.docker.network.bridge.gateway_mode_ipv{v}");
    let request = proto::CreateNetworkRequest {
        internal: true,
        ipv6: true,
        options: [4, 6].map(|v| (mode(v), "isolated".to_owned())).into(),
        ..with("n", &[])
    };
    let made = host.create(request).await.unwrap();
    assert_eq!(made.mode, "isolated");
    let (a, b) = (Guest::new("a"), Guest::new("b"));
    let a_at = host.attach(&a, &["n"], &[]).await.unwrap();
    host.attach(&b, &["n"], &[]).await.unwrap();
    let addresses = host.space.run(&format!("ip -o addr show dev {}", made.interface));
    assert!(!addresses.contains(" inet ") && !addresses.contains("fd"), "{addresses}");
    a.space.serve_tcp("[::]:80");
    assert!(b.space.ask_tcp(&format!("{}:80", ip(&a_at, 0))).is_some());
    let six = a_at.endpoints[0].ip6.split('/').next().unwrap();
    assert!(b.space.ask_tcp(&format!("[{six}]:80")).is_some());
    // Somebody else gives this one its address.
    let made = host.create(with("m", &[("com.docker.network.bridge.inhibit_ipv4", "true")])).await.unwrap();
    assert_eq!(host.space.run(&format!("ip -o -4 addr show dev {}", made.interface)), "");
}

#[tokio::test]
async fn ports_are_published_where_the_network_says_when_nobody_else_does() {
    let host = Host::with("ip addr add fd99::2/64 dev uplink nodad").await;
    let bindings = [("com.docker.network.bridge.host_binding_ipv6", "fd99::2")];
    host.create(proto::CreateNetworkRequest { ipv6: true, ..with("six", &bindings) }).await.unwrap();
    host.create(with("four", &[("com.docker.network.bridge.host_binding_ipv4", "127.0.0.1")])).await.unwrap();
    let published =
        |at: &proto::AttachResponse| at.ports.iter().map(|p| p.host_ip.clone()).collect::<Vec<_>>();
    let (a, b) = (Guest::new("a"), Guest::new("b"));
    assert_eq!(published(&host.attach(&a, &["six"], &["8080:80"]).await.unwrap()), ["0.0.0.0", "fd99::2"]);
    assert_eq!(published(&host.attach(&b, &["four"], &["8081:80"]).await.unwrap()), ["127.0.0.1"]);
}
