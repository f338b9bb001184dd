//! What somebody else made, on the host or inside a container: told where it is in the way, and left alone.

use davit_contracts::network as proto;

use super::{Scene, check, words};
use crate::host::Host;

#[tokio::test]
async fn what_may_be_somebody_elses_is_left_alone() {
    let scene = Scene::new().await;
    scene.host.space.run(&format!("ip link add theirs group {} type bridge", scene.group));
    let told = check(&scene.host, true).await;
    assert_eq!(words(&told), ["stray interface theirs"]);
    assert!(!told[0].repaired && told[0].error.contains("by hand"), "{told:?}");
    assert!(scene.host.space.run("ip -o link").contains("theirs"));
    // Another's table and another's interface do not matter at all.
    scene.host.space.run("ip link del theirs; nft add table inet theirs; nft add chain inet theirs forward");
    assert_eq!(words(&check(&scene.host, true).await), Vec::<String>::new());
}

#[tokio::test]
async fn a_containers_own_way_out_is_left_alone() {
    let scene = Scene::new().await;
    let inside = |command: &str| scene.db.space.run(command);
    let none = Vec::<String>::new();
    inside("ip link add vpn0 type veth peer name vpn1; ip link set vpn0 up; ip link set vpn1 up");
    inside("ip addr add 10.8.0.1/24 dev vpn0; ip route replace default via 10.8.0.2 dev vpn0");
    assert_eq!(words(&check(&scene.host, true).await), none);
    // Nor is it led past when something else is mended.
    inside("ip link set eth0 address 02:00:00:00:00:78");
    assert!(check(&scene.host, true).await.iter().all(|d| d.repaired));
    let ways = inside("ip -4 route show default");
    assert!(ways.contains("10.8.0.2") && ways.lines().count() == 1, "{ways}");
    let gateway = inside("ip -4 route show dev eth0 | grep -o '^[0-9.]*' | sed 's/[.]0$/.99/'");
    inside(&format!("ip route replace default via {}", gateway.trim()));
    assert_eq!(words(&check(&scene.host, true).await), none, "another router of our network");
    inside("ip link set eth0 mtu 1300");
    assert_eq!(words(&check(&scene.host, true).await), none, "packets smaller than they may be");
    // Without any, ours comes back.
    inside("ip route del default; ip link set eth0 mtu 1400");
    assert_eq!(words(&check(&scene.host, true).await).len(), 1);
    scene.works("after all");
}

#[tokio::test]
async fn a_way_out_in_two_halves_is_left_alone() {
    let host = Host::new().await;
    let six = proto::CreateNetworkRequest { name: "six".into(), ipv6: true, ..Default::default() };
    host.create(six).await.unwrap();
    let guest = host.guest("g", &["six"], &[]).await;
    let inside = |command: &str| guest.space.run(command);
    inside("ip link add vpn0 type veth peer name vpn1; ip link set vpn0 up; ip link set vpn1 up");
    inside("ip route add 0.0.0.0/1 dev vpn0; ip route add 128.0.0.0/1 dev vpn0; ip route del default");
    inside("ip -6 route add ::/1 dev vpn0; ip -6 route add 8000::/1 dev vpn0; ip -6 route del default");
    assert_eq!(words(&check(&host, true).await), Vec::<String>::new());
    // Nor is it led past when something else is mended.
    inside("ip link set eth0 arp off");
    assert!(check(&host, true).await[0].repaired);
    assert_eq!(inside("ip route show default; ip -6 route show default"), "");
    // A half is no way out.
    inside("ip route del 0.0.0.0/1; ip -6 route del 8000::/1");
    let told = check(&host, true).await;
    assert!(told.len() == 2 && told.iter().all(|d| d.repaired), "{told:#?}");
    assert!(told.iter().all(|d| d.object.starts_with("default route via")), "{told:#?}");
}

#[tokio::test]
async fn a_way_out_by_the_wrong_network_of_ours_is_led_back() {
    let scene = Scene::new().await;
    let made = scene.host.net_create("second").await;
    let guest = scene.host.guest("two", &["n", "second"], &[]).await;
    let gateway = &made.subnets[0].gateway;
    guest.space.run(&format!("ip route replace default via {gateway} dev eth1"));
    let listed = check(&scene.host, false).await;
    assert!(listed.len() == 1 && listed[0].object.starts_with("default route via"), "{listed:?}");
    assert!(check(&scene.host, true).await[0].repaired);
    let ways = guest.space.run("ip -4 route show default");
    assert!(ways.contains("dev eth0") && ways.lines().count() == 1, "{ways}");
}

/// Whether a pair of somebody else is there, on no bridge and without our mark.
fn is_theirs(scene: &Scene, peer: &str) -> bool {
    let link = scene.host.space.run(&format!("ip -d -o link show {}", scene.end));
    link.contains(&format!("@{peer}")) && link.contains("group default") && !link.contains("master")
}

#[tokio::test]
async fn a_pair_of_somebody_else_that_has_the_name_of_our_end_is_left_alone() {
    let scene = Scene::new().await;
    let (host, end) = (&scene.host, scene.end.as_str());
    host.space.run(&format!("ip link del {end}; ip link add {end} type veth peer name theirs0"));
    for repair in [false, true, true] {
        let told = check(host, repair).await;
        let of_end = told.iter().find(|d| d.object == format!("interface {end}")).unwrap();
        assert!(!of_end.repaired && of_end.detail.contains("not ours"), "{told:#?}");
        let inside = "missing interface eth0 inside".to_owned();
        assert_eq!(words(&told), [format!("differs interface {end}"), inside], "routes went with it");
        assert!(told.iter().all(|d| !d.repaired), "{told:#?}");
        assert!(is_theirs(&scene, "theirs0"));
    }
    host.space.run("ip link del theirs0");
    assert!(check(host, true).await.iter().all(|d| d.repaired));
    assert_eq!(words(&check(host, false).await), Vec::<String>::new());
    scene.works("without theirs");

    // Ours lives on beside it.
    host.space.run(&format!("ip link set {end} down; ip link set {end} name keep0 group 0"));
    host.space.run(&format!("ip link set keep0 up; ip link add {end} type veth peer name theirs1"));
    let told = check(host, true).await;
    assert_eq!(words(&told), [format!("differs interface {end}")]);
    assert!(!told[0].repaired && told[0].error.contains("rename it"), "{told:#?}");
    assert!(is_theirs(&scene, "theirs1"));
    scene.works("under another name");
    host.space.run("ip link del theirs1");
    assert!(check(host, true).await.iter().all(|d| d.repaired));
    assert_eq!(words(&check(host, false).await), Vec::<String>::new());
    scene.works("with its name");
}

#[tokio::test]
async fn a_container_that_leaves_takes_only_its_own_pair_with_it() {
    let scene = Scene::new().await;
    let (host, end) = (&scene.host, scene.end.as_str());
    // As somebody who lost the mark would find it: it is known by its other end.
    host.space.run(&format!("ip link set {end} down; ip link set {end} name keep0 group 0"));
    host.space.run(&format!("ip link add {end} type veth peer name theirs0"));
    host.detach(&scene.db).await;
    host.eventually("ours is gone", || !host.space.run("ip -o link").contains("keep0")).await;
    assert!(is_theirs(&scene, "theirs0"));
}
