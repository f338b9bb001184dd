//! What a container does so that one of its interfaces looks like another: each network keeps its own.

use davit_contracts::network as proto;

use super::{check, words};
use crate::host::{Guest, Host};

const RENAMED: &str = "ip link del eth0; ip link set eth1 name eth0";
const MAC: &str = "M=$(cat /sys/class/net/eth0/address); ip link del eth0; ip link set eth1 address $M";

/// A container on two bridges, another that answers on both, and its address on the second.
async fn scene() -> (Host, [Guest; 2], proto::AttachResponse, String) {
    let host = Host::new().await;
    for name in ["n1", "n2"] {
        host.net_create(name).await;
    }
    let peer = Guest::new("peer");
    let at = host.attach(&peer, &["n1", "n2"], &[]).await.unwrap();
    peer.space.serve_tcp("0.0.0.0:80");
    let guest = Guest::new("g");
    let response = host.attach(&guest, &["n1", "n2"], &[]).await.unwrap();
    (host, [guest, peer], response, at.endpoints[1].ip.split('/').next().unwrap().to_owned())
}

#[tokio::test]
async fn a_network_is_left_without_taking_anothers_interface() {
    for damage in [RENAMED, MAC] {
        let (host, [guest, _peer], at, _) = scene().await;
        guest.space.run(damage);
        let ends = [&at.endpoints[0].host_interface, &at.endpoints[1].host_interface];
        let leave = proto::DisconnectRequest {
            sandbox_id: guest.id.clone(),
            network: "n1".into(),
            ..Default::default()
        };
        host.endpoints().disconnect(leave).await.unwrap();
        let links = host.space.run("ip -o link");
        assert!(!links.contains(ends[0].as_str()) && links.contains(ends[1].as_str()), "{damage}: {links}");
        check(&host, true).await;
        assert_eq!(words(&check(&host, false).await), Vec::<String>::new(), "{damage}");
        host.detach(&guest).await;
    }
}

#[tokio::test]
async fn one_that_is_gone_is_missing_whatever_another_is_made_to_look_like() {
    for damage in [RENAMED, MAC] {
        let (host, [guest, _peer], at, second) = scene().await;
        let [gone, kept] = [0, 1].map(|n: usize| at.endpoints[n].host_interface.clone());
        assert!(guest.space.ask_tcp(&format!("{second}:80")).is_some(), "at first");
        guest.space.run(damage);
        let told = words(&check(&host, false).await);
        assert!(told.contains(&format!("missing interface {gone}")), "{damage}: {told:?}");
        assert!(!told.iter().any(|l| l.contains(&kept)), "{damage}: {told:?}");
        let before = host.space.run(&format!("ip -o link show {kept}"));
        let mended = check(&host, true).await;
        assert!(mended.iter().all(|d| d.repaired), "{damage}: {mended:#?}");
        assert_eq!(host.space.run(&format!("ip -o link show {kept}")), before, "{damage}");
        assert_eq!(words(&check(&host, false).await), Vec::<String>::new(), "{damage}");
        assert!(guest.space.ask_tcp(&format!("{second}:80")).is_some(), "{damage}");
    }
}

#[tokio::test]
async fn an_end_that_both_sides_renamed_is_its_endpoints_by_the_mark() {
    let host = Host::new().await;
    host.net_create("n1").await;
    let guest = Guest::new("g");
    let at = host.attach(&guest, &["n1"], &[]).await.unwrap();
    let end = &at.endpoints[0].host_interface;
    host.space.run(&format!("ip link set {end} name foo0"));
    guest.space.run("ip link set eth0 name wan0; ip link set wan0 address 02:00:00:00:00:01");
    let told = check(&host, false).await;
    let of_end = told.iter().find(|d| d.object == format!("interface {end}"));
    assert_eq!(of_end.map(|d| d.detail.as_str()), Some("it is called foo0"), "{told:#?}");
    assert!(!told.iter().any(|d| d.kind == "stray"), "{told:#?}");
    let mended = check(&host, true).await;
    assert!(mended.iter().all(|d| d.repaired), "{mended:#?}");
    assert!(!host.space.run("ip -o link").contains("foo0"));
    check(&host, true).await;
    assert_eq!(words(&check(&host, false).await), Vec::<String>::new());
}

#[tokio::test]
async fn two_networks_on_one_parent_have_one_interface_each() {
    let host = Host::new().await;
    for (name, subnet) in [("m1", "10.98.1.0/24"), ("m2", "10.98.2.0/24")] {
        let wire = proto::CreateNetworkRequest {
            name: name.into(),
            driver: "macvlan".into(),
            options: [("parent".to_owned(), "uplink".to_owned())].into(),
            subnets: vec![proto::Subnet { subnet: subnet.into(), ..Default::default() }],
            ..Default::default()
        };
        host.create(wire).await.unwrap();
    }
    let guest = host.guest("g", &["m1", "m2"], &[]).await;
    let addresses = || guest.space.run("ip -br -4 addr show scope global | sed 's/@[^ ]*//'");
    let whole = addresses();
    let kept = guest.space.index("eth0");
    guest.space.run("ip link set eth0 address 02:00:00:00:00:99; ip link del eth1");
    let told = words(&check(&host, false).await);
    assert_eq!(told, ["missing interface eth1 inside", "differs mac of eth0 inside"]);
    let mended = check(&host, true).await;
    assert!(mended.iter().all(|d| d.repaired), "{mended:#?}");
    assert_eq!((addresses(), guest.space.index("eth0")), (whole.clone(), kept));
    assert_eq!(words(&check(&host, false).await), Vec::<String>::new());

    // What one has of the other's.
    let theirs = whole.lines().find(|l| l.starts_with("eth1")).unwrap().split_whitespace().nth(2).unwrap();
    guest.space.run(&format!("ip addr add {theirs} dev eth0"));
    let told = check(&host, false).await;
    assert_eq!(words(&told), [format!("stray address {theirs} on eth0 inside")]);
    assert_eq!(told[0].detail, "it is that of eth1");
    assert!(check(&host, true).await[0].repaired);
    assert_eq!(addresses(), whole);

    // One that is gone is not left by way of the other.
    guest.space.run("ip link set eth0 address 02:00:00:00:00:99; ip link del eth1");
    let leave =
        proto::DisconnectRequest { sandbox_id: guest.id.clone(), network: "m2".into(), ..Default::default() };
    let refused = host.endpoints().disconnect(leave).await.unwrap_err();
    assert!(refused.to_string().contains("eth1"), "{refused}");
    assert_eq!(guest.space.index("eth0"), kept);
}
