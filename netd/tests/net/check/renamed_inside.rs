//! Interfaces of ours that a container gave another name, and what it did with theirs.

use davit_contracts::network as proto;

use super::{check, words};
use crate::host::{BEYOND, Guest, Host, WORLD};

/// A dual-stack bridge, and a macvlan on the uplink.
async fn host() -> Host {
    let host = Host::new().await;
    let ipv6 = proto::CreateNetworkRequest { name: "six".into(), ipv6: true, ..Default::default() };
    host.create(ipv6).await.unwrap();
    let options = [("parent".to_owned(), "uplink".to_owned())].into();
    let subnet = proto::Subnet { subnet: "10.99.0.0/24".into(), gateway: WORLD.into(), ..Default::default() };
    let wire = proto::CreateNetworkRequest {
        name: "wire".into(),
        driver: "macvlan".into(),
        options,
        subnets: vec![subnet],
        ..Default::default()
    };
    host.create(wire).await.unwrap();
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    host
}

const DOWN: &str = "ip link set eth0 down; ip link set eth0 name wan0; ip link set wan0 up";

/// Indices, names, addresses and routes inside.
fn state(guest: &Guest) -> String {
    let links = "ip -o link | sed 's/@[^ ]*//' | cut -d' ' -f1,2";
    // The kernel's own link-local addresses ripen for a second.
    guest.space.run(&format!("{links}; ip -br addr show scope global; ip route; ip -6 route | sed '/fe80/d'"))
}

#[tokio::test]
async fn one_that_was_renamed_gets_its_name_back() {
    let host = host().await;
    for network in ["six", "wire"] {
        let guest = host.guest("g", &[network], &[]).await;
        let whole = state(&guest);
        for damage in [
            DOWN,
            "ip link set eth0 name wan0",
            "ip link set eth0 name wan0; ip link set wan0 address 02:00:00:00:00:79; ip link set wan0 group 0",
        ] {
            guest.space.run(damage);
            let listed = check(&host, false).await;
            assert_eq!(words(&listed), ["differs interface eth0 inside"], "{network}: {damage}");
            assert_eq!(listed[0].detail, "it is called wan0");
            let mended = check(&host, true).await;
            assert!(mended[0].repaired, "{network}: {damage}: {mended:#?}");
            assert_eq!(words(&check(&host, false).await), Vec::<String>::new(), "{network}: {damage}");
            assert_eq!(state(&guest), whole, "{network}: {damage}");
            assert!(guest.space.ask_tcp(&format!("{BEYOND}:80")).is_some(), "{network}: {damage}");
        }
        host.detach(&guest).await;
    }
}

#[tokio::test]
async fn two_that_have_one_anothers_names_change_them_back() {
    let host = host().await;
    let guest = host.guest("g", &["six", "wire"], &[]).await;
    let whole = state(&guest);
    guest.space.run("ip link set eth0 name x; ip link set eth1 name eth0; ip link set x name eth1");
    let listed = words(&check(&host, false).await);
    assert_eq!(listed, ["differs interface eth0 inside", "differs interface eth1 inside"]);
    let mended = check(&host, true).await;
    assert!(mended.iter().all(|d| d.repaired), "{mended:#?}");
    assert_eq!(state(&guest), whole);
}

#[tokio::test]
async fn one_whose_name_something_else_has_is_told_and_left() {
    let host = host().await;
    for (network, theirs) in [
        ("six", "ip link add eth0 type veth peer name other0"),
        ("wire", "ip link add eth0 type veth peer name other0"),
        // It has the same parent.
        ("wire", "ip link add eth0 link wan0 type macvlan"),
    ] {
        let guest = host.guest("g", &[network], &[]).await;
        guest.space.run(&format!("{DOWN}; {theirs}"));
        let before = state(&guest);
        for repair in [false, true] {
            let told = check(&host, repair).await;
            assert_eq!(words(&told), ["differs interface eth0 inside"], "{network}: {theirs}");
            assert!(
                told[0].detail.contains("called wan0") && told[0].detail.contains("not ours"),
                "{told:?}"
            );
            assert!(!told[0].repaired && (!repair || told[0].error.contains("renamed inside")), "{told:?}");
            assert_eq!(state(&guest), before, "{network}: {theirs}");
        }
        guest.space.run("ip link del eth0");
        assert!(check(&host, true).await[0].repaired, "{network}: {theirs}");
        assert!(guest.space.ask_tcp(&format!("{BEYOND}:80")).is_some(), "{network}: {theirs}");
        // Ours is gone: what has its name is neither set up nor removed.
        guest.space.run("ip link del eth0; ip link add eth0 type veth peer name other0");
        let told = check(&host, true).await;
        let inside = told.iter().find(|d| d.object == "interface eth0 inside").unwrap();
        assert!(!inside.repaired && inside.detail.contains("not ours"), "{told:#?}");
        assert!(told.iter().all(|d| d.object.starts_with("interface ")), "{told:#?}");
        let link = guest.space.run("ip -br addr show eth0");
        assert!(link.contains("DOWN") && !link.contains("10."), "{link}");
        host.detach(&guest).await;
    }
}

#[tokio::test]
async fn a_container_that_renamed_its_interface_leaves_nothing() {
    let host = host().await;
    for network in ["six", "wire"] {
        let guest = host.guest("g", &[network], &[]).await;
        guest.space.run(&format!("{DOWN}; ip link add eth0 type veth peer name other0"));
        host.detach(&guest).await;
        let links = || guest.space.run("ip -o link");
        host.eventually("ours is gone", || !links().contains("wan0")).await;
        assert!(links().contains("eth0@other0"), "{network}: {}", links());
        assert_eq!(words(&check(&host, false).await), Vec::<String>::new(), "{network}");
        host.net_remove(network).await.unwrap();
    }
    host.becomes_clean().await;
}

#[tokio::test]
async fn a_network_can_be_left_whose_default_route_finds_no_interface() {
    let host = host().await;
    let guest = host.guest("g", &["six", "wire"], &[]).await;
    assert!(guest.space.run("ip -4 route show default").contains("eth0"));
    guest.space.run("ip link set eth1 name wan1");
    let leave = proto::DisconnectRequest {
        sandbox_id: guest.id.clone(),
        network: "six".into(),
        ..Default::default()
    };
    host.endpoints().disconnect(leave).await.unwrap();
    assert_eq!(words(&check(&host, false).await), ["differs interface eth1 inside"]);
    assert!(check(&host, true).await[0].repaired);
    assert_eq!(words(&check(&host, false).await), Vec::<String>::new());
    assert!(guest.space.run("ip -4 route show default").contains("eth1"));
    assert!(guest.space.ask_tcp(&format!("{BEYOND}:80")).is_some());
    host.detach(&guest).await;
    host.net_remove("six").await.unwrap();
}
