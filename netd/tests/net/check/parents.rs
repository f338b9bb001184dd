//! Interfaces that stand on one of the host's, and that one.

use davit_contracts::network as proto;

use super::{check, words};
use crate::host::{BEYOND, Guest, Host, WORLD};

fn mtu(guest: &Guest) -> String {
    let link = guest.space.run("ip -o link show dev eth0");
    link.split(" mtu ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_parent_that_carries_less_than_its_network_is_told() {
    let host = Host::new().await;
    let options = [("parent", "uplink"), ("com.docker.network.driver.mtu", "1350")]
        .map(|(k, v)| (k.into(), v.into()))
        .into();
    let driver = "macvlan".to_owned();
    let wire = proto::CreateNetworkRequest { name: "wire".into(), driver, options, ..Default::default() };
    host.create(wire).await.unwrap();
    let guest = host.guest("g", &["wire"], &[]).await;
    host.space.run("ip link set uplink mtu 1300");
    let told = check(&host, true).await;
    assert_eq!(words(&told), ["differs parent interface uplink"]);
    assert!(!told[0].repaired && told[0].detail.contains("1350"), "{told:?}");
    host.space.run("ip link set uplink mtu 1400");
    assert!(check(&host, true).await.iter().all(|d| d.repaired));
    assert_eq!(mtu(&guest), "1350");
}

#[tokio::test]
async fn a_macvlan_is_mended_inside_and_told_of_its_parent() {
    let host = Host::new().await;
    let options = [("parent".to_owned(), "uplink".to_owned())].into();
    let subnets =
        vec![proto::Subnet { subnet: "10.99.0.0/24".into(), gateway: WORLD.into(), ..Default::default() }];
    let driver = "macvlan".to_owned();
    let wire =
        proto::CreateNetworkRequest { name: "wire".into(), driver, options, subnets, ..Default::default() };
    host.create(wire).await.unwrap();
    let guest = host.guest("g", &["wire"], &[]).await;
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    let works = || guest.space.ask_tcp(&format!("{BEYOND}:80")).is_some();
    assert_eq!(words(&check(&host, false).await), Vec::<String>::new());
    assert!(works());
    for (damage, wanted) in [
        ("ip addr flush dev eth0", "missing address "),
        ("ip link del eth0", "missing interface eth0 inside"),
        ("ip link set eth0 address 02:00:00:00:00:79", "differs mac of eth0 inside"),
        ("ip link set eth0 type macvlan mode private", "differs interface eth0 inside"),
    ] {
        guest.space.run(damage);
        let listed = words(&check(&host, false).await);
        assert!(listed.iter().any(|l| l.starts_with(wanted)), "{damage}: {listed:?}");
        assert!(check(&host, true).await.iter().all(|d| d.repaired), "{damage}");
        assert_eq!(words(&check(&host, false).await), Vec::<String>::new(), "{damage}");
        assert!(works(), "{damage}");
    }
    // A dip of the parent's takes its interfaces along, and they do not come back with it.
    host.space.run("ip link set uplink mtu 1300");
    assert_eq!((mtu(&guest).as_str(), words(&check(&host, true).await)), ("1300", Vec::new()));
    host.space.run("ip link set uplink mtu 1400");
    assert_eq!(words(&check(&host, false).await), ["differs MTU of eth0 inside"]);
    assert!(check(&host, true).await.iter().all(|d| d.repaired));
    assert_eq!((mtu(&guest).as_str(), words(&check(&host, false).await)), ("1400", Vec::new()));
    assert!(works());
    // One that carries more than it did is nothing to the interfaces that are there.
    host.space.run("ip link set uplink mtu 1500");
    assert_eq!((mtu(&guest).as_str(), words(&check(&host, true).await)), ("1400", Vec::new()));
    host.space.run("ip link set uplink down");
    let told = check(&host, true).await;
    let parent = told.iter().find(|d| d.object == "parent interface uplink").unwrap();
    assert!(!parent.repaired && parent.error.contains("ip link set"), "{told:?}");
    // What went with the parent is one thing, and comes back with it.
    host.space.run("ip link del uplink");
    let told = check(&host, true).await;
    assert_eq!(words(&told), ["missing parent interface uplink"]);
    host.space.run("ip link add uplink type veth peer name odd0; ip link set uplink up; ip link set odd0 up");
    let told = check(&host, true).await;
    assert!(told.iter().any(|d| d.object.contains("eth0")) && told.iter().all(|d| d.repaired), "{told:?}");
    assert_eq!(words(&check(&host, false).await), Vec::<String>::new());
}
