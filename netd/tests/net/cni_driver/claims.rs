//! Interfaces of plugins beside ours, in a container that renames them.

use serde_json::json;

use super::{PLACES, bridge, list, request};
use crate::check::{check, words};
use crate::host::{Guest, Host};

#[tokio::test]
async fn ours_and_the_plugins_are_told_apart_whatever_they_are_called() {
    let host = Host::with(PLACES).await;
    host.create(request("theirs", list("deb", "1.0.0", json!([bridge("10.92.0.0/24")])))).await.unwrap();
    host.net_create("ours").await;
    let guest = Guest::new("g");
    host.attach(&guest, &["theirs", "ours"], &[]).await.unwrap();
    assert_eq!(words(&check(&host, false).await), Vec::<String>::new());
    let state = || guest.space.run("ip -o link | cut -d' ' -f1,2; ip -br -4 addr");
    let whole = state();
    guest.space.run("ip link set eth0 name x; ip link set eth1 name eth0; ip link set x name eth1");
    let told = check(&host, false).await;
    let inside = told.iter().filter(|d| d.object.ends_with("inside"));
    let details: Vec<_> = inside.map(|d| (d.object.as_str(), d.detail.as_str())).collect();
    let expected =
        [("interface eth0 inside", "it is called eth1"), ("interface eth1 inside", "it is called eth0")];
    assert_eq!(details, expected, "{told:#?}");
    let mended = check(&host, true).await;
    assert!(mended.iter().filter(|d| d.object.ends_with("inside")).all(|d| d.repaired), "{mended:#?}");
    assert_eq!(state(), whole);
    assert_eq!(words(&check(&host, false).await), Vec::<String>::new());
    // With its own gone, ours is not taken for it.
    guest.space.run("ip link del eth0; ip link set eth1 name eth0");
    for repair in [false, true] {
        let told = check(&host, repair).await;
        let of_theirs = told.iter().find(|d| d.object == "interface eth0 inside").unwrap();
        assert!(of_theirs.kind == "missing" && !of_theirs.repaired, "{told:#?}");
    }
    let addresses = guest.space.run("ip -br -4 addr show eth1");
    assert!(!addresses.contains("10.92."), "{addresses}");
}
