//! Ways in which packets are kept from passing while every interface is there.

use davit_contracts::network as proto;

use super::{Scene, check, host, inside, trials, words};
use crate::host::{Guest, Host};

#[tokio::test]
async fn cuts_on_the_host_are_mended() {
    trials(&[
        host("ip -4 route flush dev BRIDGE", &["missing route to 172."]),
        host("sysctl -qw net.ipv4.conf.BRIDGE.forwarding=0", &["setting net/ipv4/conf/BRIDGE/forwarding"]),
        host("bridge link set dev END state 0", &["differs interface END"]),
        host("ip link set BRIDGE arp off", &["differs bridge BRIDGE"]),
        host("ip link set BRIDGE type bridge stp_state 1 forward_delay 3000", &["differs bridge BRIDGE"]),
        host(
            "ip neigh replace $(ip -4 neigh show dev BRIDGE | head -1 | cut -d' ' -f1) lladdr 02:00:00:00:00:66 nud permanent dev BRIDGE",
            &["differs neighbour "],
        ),
        host(
            "ip route del local $(ip -4 -o addr show dev BRIDGE | awk '{print $4}' | cut -d/ -f1) dev BRIDGE table local",
            &["differs address "],
        ),
        host("ip link set END type bridge_slave learning off flood off", &["differs interface END"]),
        host("ip link set END type bridge_slave locked on", &["differs interface END"]),
        host(
            "ip link add odd0 type veth peer name odd1; ip link set odd0 master BRIDGE; ip link set odd0 up; ip link set odd1 up
             bridge fdb replace $(bridge fdb show dev END | grep -v permanent | head -1 | cut -d' ' -f1) dev odd0 master static",
            &["differs interface END"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn cuts_inside_are_mended() {
    trials(&[
        inside("ip link set eth0 arp off", &["differs interface eth0 inside"]),
        inside("ip addr del 127.0.0.1/8 dev lo", &["missing address 127.0.0.1/8 on lo inside"]),
        inside(
            "ip route del $(ip -4 route show dev eth0 proto kernel | cut -d' ' -f1)",
            &["missing route to 172."],
        ),
        inside("ip route flush dev eth0", &["missing route to 172.", "missing default route"]),
    ])
    .await;
}

#[tokio::test]
async fn a_pair_that_is_made_again_is_as_the_first() {
    let scene = Scene::new().await;
    let settings = || {
        let names = "disable_ipv6 ndisc_notify";
        scene
            .db
            .space
            .run(&format!("cd /proc/sys/net/ipv6/conf/eth0; cat {names} ../../../ipv4/conf/eth0/arp_notify"))
    };
    let first = settings();
    assert!(first.starts_with('1'), "{first}");
    scene.db.space.run("ip link del eth0");
    assert!(check(&scene.host, true).await.iter().all(|d| d.repaired));
    assert_eq!(settings(), first);
    scene.works("again");
}

#[tokio::test]
async fn the_hosts_own_forwarding_is_told_and_left() {
    let scene = Scene::new().await;
    scene.host.space.run("sysctl -qw net.ipv4.conf.uplink.forwarding=0");
    let told = check(&scene.host, true).await;
    assert_eq!(words(&told), ["differs setting net/ipv4/conf/uplink/forwarding"]);
    assert!(!told[0].repaired && told[0].error.contains("sysctl"), "{told:?}");
    assert_eq!(scene.host.space.run("sysctl -n net.ipv4.conf.uplink.forwarding").trim(), "0");
}

#[tokio::test]
async fn ipv6_that_was_turned_off_is_turned_on_again() {
    let host = Host::new().await;
    let made = host
        .create(proto::CreateNetworkRequest { name: "six".into(), ipv6: true, ..Default::default() })
        .await
        .unwrap();
    let (a, b) = (host.guest("a", &["six"], &[]).await, host.guest("b", &["six"], &[]).await);
    b.space.serve_tcp("[::]:80");
    let at = a.space.dig("b AAAA");
    let gateway = made.subnets.iter().find(|s| s.gateway.contains(':')).unwrap().gateway.clone();
    host.space.serve_tcp("[::]:81");
    let works = |when: &str| {
        assert!(a.space.ask_tcp(&format!("[{at}]:80")).is_some(), "{when}: to {at}");
        assert!(a.space.ask_tcp(&format!("[{gateway}]:81")).is_some(), "{when}: to the host");
    };
    works("at first");
    assert_eq!(words(&check(&host, false).await), Vec::<String>::new());
    let bridge = &made.interface;
    for (space, command, wanted) in [
        (&host.space, format!("sysctl -qw net.ipv6.conf.{bridge}.disable_ipv6=1"), "disable_ipv6"),
        (&host.space, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1".to_owned(), "disable_ipv6"),
        (
            &host.space,
            format!("sysctl -qw net.ipv6.conf.{bridge}.forwarding=0"),
            "setting net/ipv6/conf/BRIDGE/forwarding",
        ),
        (
            &host.space,
            format!("ip neigh replace {at} lladdr 02:00:00:00:00:66 nud noarp dev {bridge}"),
            "differs neighbour fd",
        ),
        (
            &host.space,
            format!("ip -6 route del local {gateway} dev {bridge} table local"),
            "differs address fd",
        ),
        (
            &a.space,
            "ip -6 route del $(ip -6 route show proto kernel | grep ^fd | cut -d' ' -f1)".to_owned(),
            "route to fd",
        ),
        (&host.space, format!("ip -6 route flush dev {bridge} proto kernel"), "route to fd"),
    ] {
        space.run(&command);
        let listed = words(&check(&host, false).await);
        let wanted = wanted.replace("BRIDGE", bridge);
        assert!(listed.iter().any(|l| l.contains(&wanted)), "{command}: {listed:?}");
        let mended = check(&host, true).await;
        assert!(mended.iter().all(|d| d.repaired), "{command}: {mended:#?}");
        assert_eq!(words(&check(&host, false).await), Vec::<String>::new(), "{command}");
        works(&command);
    }
}

#[tokio::test]
async fn what_follows_from_something_is_not_told_beside_it() {
    let host = Host::new().await;
    let six = proto::CreateNetworkRequest { name: "six".into(), ipv6: true, ..Default::default() };
    host.create(six).await.unwrap();
    let guest = Guest::new("g");
    let at = host.attach(&guest, &["six"], &[]).await.unwrap();
    let end = at.endpoints[0].host_interface.as_str();
    let state = || guest.space.run("ip -br addr show scope global; ip route; ip -6 route | sed '/fe80/d'");
    let whole = state().replace(&format!("if{}", host.space.index(end)), "if");
    assert!(whole.matches("default via").count() == 2, "{whole}");
    let gone = [format!("missing interface {end}"), "missing interface eth0 inside".to_owned()];
    for (space, command, wanted) in [
        (&guest.space, "ip link set eth0 down", &["differs interface eth0 inside".to_owned()][..]),
        (&guest.space, "ip link del eth0", &gone),
        (&host.space, &format!("ip link del {end}"), &gone),
    ] {
        space.run(command);
        assert_eq!(words(&check(&host, false).await), wanted, "{command}");
        let mended = check(&host, true).await;
        assert!(mended.iter().all(|d| d.repaired), "{command}: {mended:#?}");
        assert_eq!(words(&mended), wanted, "{command}");
        let now = state().replace(&format!("if{}", host.space.index(end)), "if");
        assert_eq!(now, whole, "{command}");
    }
}

#[tokio::test]
async fn ipv6_that_a_container_turned_off_is_its_own_affair() {
    let host = Host::new().await;
    for name in ["n", "m"] {
        let request = proto::CreateNetworkRequest { name: name.into(), ipv6: true, ..Default::default() };
        host.create(request).await.unwrap();
    }
    host.net_create("four").await;
    let b = host.guest("b", &["n"], &[]).await;
    b.space.serve_tcp("0.0.0.0:80");
    let at = b.space.dig("b");
    let off = |guest: &Guest, interface: &str| {
        let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
        guest.space.run(&format!("cat {path} 2>/dev/null || echo none")).trim().to_owned()
    };
    for (command, is) in [
        ("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1", "1"),
        ("sysctl -qw net.ipv6.conf.all.disable_ipv6=1", "1"),
        ("ip link set eth0 mtu 1200", "none"),
    ] {
        let a = host.guest("a", &["n"], &[]).await;
        a.space.run(command);
        assert_eq!(words(&check(&host, false).await), Vec::<String>::new(), "{command}");
        // What else is wrong is mended without it.
        a.space.run("ip link set eth0 arp off; ip route del default");
        let mended = check(&host, true).await;
        assert!(mended.len() == 2 && mended.iter().all(|d| d.repaired), "{command}: {mended:#?}");
        assert_eq!(off(&a, "eth0"), is, "{command}");
        assert!(a.space.ask_tcp(&format!("{at}:80")).is_some(), "{command}");
        // One more network, and its pair made again: no IPv6 where it is off for all.
        let endpoint = Some(proto::EndpointSpec { network: "m".into(), ..Default::default() });
        let connect = proto::ConnectRequest { sandbox_id: a.id.clone(), endpoint };
        host.endpoints().connect(connect).await.unwrap();
        let for_all = command.contains(".all.");
        assert_eq!(off(&a, "eth1"), if for_all { "1" } else { "0" }, "{command}");
        a.space.run("ip link del eth1");
        assert!(check(&host, true).await.iter().all(|d| d.repaired), "{command}");
        assert_eq!(off(&a, "eth1"), if for_all { "1" } else { "0" }, "{command}");
        assert_eq!(words(&check(&host, false).await), Vec::<String>::new(), "{command}");
        host.detach(&a).await;
    }
    // The other way round, on a network without IPv6; and what a host has new namespaces begin with is not a wish.
    let c = host.guest("c", &["four"], &[]).await;
    c.space.run("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0");
    assert_eq!(words(&check(&host, false).await), Vec::<String>::new());
    let d = Guest::new("d");
    d.space.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    host.attach(&d, &["n"], &[]).await.unwrap();
    assert!(d.space.run("ip -6 -o addr show dev eth0 scope global").contains(" fd"));
}
