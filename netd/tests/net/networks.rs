//! Networks made, refused, listed, removed.

use std::time::{Duration, Instant};

use davit_contracts::Kind;
use davit_contracts::network as proto;

use crate::host::{Guest, Host, ip};

fn with_subnet(name: &str, subnet: &str) -> proto::CreateNetworkRequest {
    let subnets = vec![proto::Subnet { subnet: subnet.into(), ..Default::default() }];
    proto::CreateNetworkRequest { name: name.into(), subnets, ..Default::default() }
}

#[tokio::test]
async fn subnets_avoid_the_host_and_one_another() {
    let host =
        Host::with("ip route add 172.18.0.0/16 via 10.99.0.1; ip addr add 172.19.5.1/24 dev uplink").await;
    let all =
        host.networks().list(proto::ListNetworksRequest::default()).await.unwrap().into_inner().networks;
    let names: Vec<_> = all.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["bridge", "host", "none"]);
    assert_eq!(all[0].subnets[0].subnet, "172.17.0.0/16");
    let made = host.net_create("a").await;
    assert_eq!(made.subnets[0].subnet, "172.20.0.0/16");
    assert_eq!(made.interface, format!("dv-{}", &made.id[..12]));

    for (subnet, whose) in [
        ("172.20.8.0/24", "network 'a'"),
        ("172.16.0.0/12", "network"),
        ("172.19.5.128/25", "interface uplink"),
        ("172.18.9.0/24", "interface uplink"),
    ] {
        let e = host.create(with_subnet("b", subnet)).await.unwrap_err();
        assert_eq!(e.kind(), Kind::InUse, "{e}");
        assert!(e.to_string().contains(whose), "{subnet}: {e}");
    }
    host.create(with_subnet("b", "10.89.0.0/24")).await.unwrap();
}

#[tokio::test]
async fn bad_requests_say_what_is_wrong() {
    let host = Host::new().await;
    host.net_create("my-bridge").await;
    let e = host.create(proto::CreateNetworkRequest { name: "my-bridge".into(), ..Default::default() }).await;
    assert_eq!(e.unwrap_err().kind(), Kind::AlreadyExists);
    // What would be made could not be meant by its name.
    for name in ["default", "bridge", "host", "none"] {
        let request = proto::CreateNetworkRequest { name: name.into(), ..Default::default() };
        let e = host.create(request).await.unwrap_err();
        assert!(e.kind() == Kind::InvalidArgument && e.to_string().contains(name), "{e}");
    }
    let options = [("com.docker.network.driver.mtuu".to_owned(), "1400".to_owned())].into();
    let e =
        host.create(proto::CreateNetworkRequest { name: "x".into(), options, ..Default::default() }).await;
    assert!(e.unwrap_err().hint().contains("com.docker.network.driver.mtu"));
    let options = [("com.docker.network.bridge.name".to_owned(), "uplink".to_owned())].into();
    let e =
        host.create(proto::CreateNetworkRequest { name: "x".into(), options, ..Default::default() }).await;
    assert_eq!(e.unwrap_err().kind(), Kind::InUse);

    let guest = Guest::new("g");
    let e = host.attach(&guest, &["my-brige"], &[]).await.unwrap_err();
    assert_eq!((e.kind(), e.hint()), (Kind::NotFound, "did you mean 'my-bridge'?"));
    assert_eq!(host.net_remove("bridge").await.unwrap_err().kind(), Kind::InvalidArgument);
    host.attach(&guest, &["my-bridge"], &[]).await.unwrap();
    let e = host.net_remove("my-bridge").await.unwrap_err();
    assert!(e.kind() == Kind::InUse && e.to_string().contains('g'), "{e}");
    host.detach(&guest).await;
    host.net_remove("my-bridge").await.unwrap();
}

#[tokio::test]
async fn static_addresses_macs_and_full_subnets() {
    let host = Host::new().await;
    host.create(with_subnet("small", "10.89.0.0/29")).await.unwrap();
    let spec = |ip: &str, mac: &str| {
        vec![proto::EndpointSpec {
            network: "small".into(),
            ip: ip.into(),
            mac: mac.into(),
            ..Default::default()
        }]
    };
    let a = Guest::new("a");
    let request = Host::request(&a, spec("10.89.0.6", "02:00:00:00:00:aa"), &[]);
    let answer = host.attach_request(request).await.unwrap();
    assert_eq!(
        (ip(&answer, 0).as_str(), answer.endpoints[0].mac.as_str()),
        ("10.89.0.6", "02:00:00:00:00:aa")
    );
    assert!(a.space.run("ip link show eth0").contains("02:00:00:00:00:aa"));
    let b = Guest::new("b");
    let e = host.attach_request(Host::request(&b, spec("10.89.0.6", ""), &[])).await.unwrap_err();
    assert_eq!((e.kind(), e.hint()), (Kind::InUse, "'a' has it"));
    let e = host.attach_request(Host::request(&b, spec("10.89.1.6", ""), &[])).await.unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidArgument);

    let mut guests = Vec::new();
    for n in 2..6 {
        let guest = Guest::new(&format!("g{n}"));
        let answer = host.attach(&guest, &["small"], &[]).await.unwrap();
        assert_eq!(ip(&answer, 0), format!("10.89.0.{n}"));
        guests.push(guest);
    }
    assert_eq!(host.attach(&b, &["small"], &[]).await.unwrap_err().kind(), Kind::NoSpace);
    host.detach(&guests[0]).await;
    assert_eq!(ip(&host.attach(&b, &["small"], &[]).await.unwrap(), 0), "10.89.0.2");
}

#[tokio::test]
async fn a_mac_that_somebody_chose_is_not_given_to_another() {
    let host = Host::new().await;
    host.create(with_subnet("n", "10.89.0.0/24")).await.unwrap();
    let (a, b) = (Guest::new("a"), Guest::new("b"));
    // What 10.89.0.3 would get.
    let chosen = proto::EndpointSpec {
        network: "n".into(),
        ip: "10.89.0.9".into(),
        mac: "02:da:0a:59:00:03".into(),
        ..Default::default()
    };
    host.attach_request(Host::request(&a, vec![chosen], &[])).await.unwrap();
    let wanted = proto::EndpointSpec { network: "n".into(), ip: "10.89.0.3".into(), ..Default::default() };
    let at = host.attach_request(Host::request(&b, vec![wanted], &[])).await.unwrap();
    assert_ne!(at.endpoints[0].mac, "02:da:0a:59:00:03");
    a.space.serve_tcp("0.0.0.0:80");
    assert_eq!(b.space.ask_tcp("10.89.0.9:80").as_deref(), Some("10.89.0.3"));
}

/// Addresses keep their macs, and nobody need be told, until somebody chooses one.
#[tokio::test]
async fn neighbours_are_told_of_an_address_whose_mac_was_a_chosen_one() {
    let mut host = Host::new().await;
    let subnets = ["10.89.0.0/24", "fd01::/64"]
        .map(|subnet| proto::Subnet { subnet: subnet.into(), ..Default::default() });
    let request = proto::CreateNetworkRequest {
        name: "n".into(),
        ipv6: true,
        subnets: subnets.into(),
        ..Default::default()
    };
    host.create(request).await.unwrap();
    let (a, b, c) = (Guest::new("a"), Guest::new("b"), Guest::new("c"));
    host.attach(&b, &["n"], &[]).await.unwrap();
    assert_eq!(b.space.run("cat /proc/sys/net/ipv4/conf/eth0/arp_notify").trim(), "0", "nothing to tell");
    let at = |mac: &str| {
        let (network, ip, ip6, mac) = ("n".into(), "10.89.0.9".into(), "fd01::9".into(), mac.into());
        vec![proto::EndpointSpec { network, ip, ip6, mac, ..Default::default() }]
    };
    host.attach_request(Host::request(&a, at("02:00:00:00:00:77"), &[])).await.unwrap();
    for ip in ["10.89.0.9", "fd01::9"] {
        b.space.run(&format!("ping -c1 -W5 {ip}"));
        let known = b.space.run(&format!("ip neigh show {ip}"));
        assert!(known.contains("02:00:00:00:00:77"), "{ip}: {known}");
    }
    host.detach(&a).await;
    host.kill();
    // Held up between making the interface and setting it up inside, for so long that the kernel finds its port to lead
    // nowhere: what it tells when the other end comes up goes no further than the bridge then.
    let hold = host.file("hold");
    assert!(host.try_start(&[("DAVIT_STALLPOINT", &format!("netlink.sent={}", hold.display()))]).await);
    std::fs::write(&hold, "").unwrap();
    let down = async {
        let reached = host.file("hold.reached");
        let ports = || host.space.run("ip -d link show type bridge_slave");
        host.eventually("the port is there and leads nowhere", || {
            reached.exists() && ports().matches("state disabled").count() == 1
        })
        .await;
        std::fs::remove_file(&hold).unwrap();
    };
    let (attached, ()) = tokio::join!(host.attach_request(Host::request(&c, at(""), &[])), down);
    attached.unwrap();
    for ip in ["10.89.0.9", "fd01::9"] {
        let known = || b.space.run(&format!("ip neigh show {ip}"));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !known().contains("02:da:0a:59:00:09") {
            assert!(Instant::now() < deadline, "{ip}: {}", known());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
