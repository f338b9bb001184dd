//! Interfaces of ours that somebody gave another name, or took the mark from.

use super::{Scene, check, host, trials, words};

#[tokio::test]
async fn what_lost_its_name_or_its_mark_gets_it_back() {
    trials(&[
        host(
            "ip link set END down; ip link set END name foo0; ip link set foo0 up",
            &["differs interface END"],
        ),
        host("ip link set END name dvhabc", &["differs interface END"]),
        host("ip link set END name foo0; ip link set foo0 group 0", &["differs interface END"]),
        host(
            "ip link set BRIDGE down; ip link set BRIDGE name other0; ip link set other0 up",
            &["differs bridge BRIDGE"],
        ),
        host("ip link set BRIDGE name dv-other", &["differs bridge BRIDGE"]),
        host("ip link set BRIDGE group 0", &["differs bridge BRIDGE"]),
        host("ip link set BRIDGE name other0; ip link set other0 group 0", &["differs bridge BRIDGE"]),
    ])
    .await;
}

#[tokio::test]
async fn the_mark_is_given_back_after_a_restart_too() {
    let mut scene = Scene::new().await;
    scene.host.space.run(&format!("ip link set {} group 0", scene.bridge));
    scene.host.kill();
    scene.host.start().await;
    assert!(check(&scene.host, true).await.iter().all(|d| d.repaired));
    assert_eq!(words(&check(&scene.host, false).await), Vec::<String>::new());
    scene.works("after a restart");
    scene.host.space.run(&format!("ip link set {} name other0", scene.bridge));
    scene.host.kill();
    scene.host.start().await;
    let told = check(&scene.host, true).await;
    assert!(told.iter().all(|d| d.repaired), "{told:#?}");
    assert_eq!(words(&check(&scene.host, false).await), Vec::<String>::new());
    scene.works("renamed and after a restart");
}

#[tokio::test]
async fn a_bridge_of_somebody_else_that_has_the_name_of_ours_is_left_alone() {
    let scene = Scene::new().await;
    let bridge = scene.bridge.as_str();
    scene
        .host
        .space
        .run(&format!("ip link del {bridge}; ip link add {bridge} type bridge; ip link set {bridge} up"));
    scene.host.space.run(&format!("ip link set {} master {bridge}", scene.end));
    let told = check(&scene.host, true).await;
    let of_bridge = told.iter().find(|d| d.object == format!("bridge {bridge}")).unwrap();
    assert!(!of_bridge.repaired && of_bridge.detail.contains("not ours"), "{told:#?}");
    assert!(scene.host.space.run(&format!("ip -d -o link show {bridge}")).contains("group default"));
}
