//! Networks on an interface of the host: macvlan as it works, ipvlan, vlan and dummy as this kernel has them.

use davit_contracts::network as proto;
use davit_contracts::{Error, Kind};

use crate::host::{Guest, HOST, Host, WORLD, ip};

/// Everything of the host that a network could change.
fn state(host: &Host) -> String {
    let links = "ip -o link | sed 's/^[0-9]*: //; s/@[^ ]*//; s/promiscuity [0-9]*//' | sort";
    // The kernel's own link-local addresses ripen for a second.
    let rest = "(ip -o addr; ip route show table all) | grep -v fe80; ip rule; nft list ruleset";
    host.space.run(&format!("{links}; {rest}"))
}

fn request(
    name: &str,
    driver: &str,
    subnets: &[(&str, &str)],
    options: &[(&str, &str)],
) -> proto::CreateNetworkRequest {
    let subnet = |(subnet, gateway): &(&str, &str)| proto::Subnet {
        subnet: (*subnet).into(),
        gateway: (*gateway).into(),
        ..Default::default()
    };
    proto::CreateNetworkRequest {
        name: name.into(),
        driver: driver.into(),
        subnets: subnets.iter().map(subnet).collect(),
        options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..Default::default()
    }
}

/// The wire of the uplink, where the world is the router.
const WIRE: [(&str, &str); 1] = [("10.99.0.0/24", WORLD)];

async fn wire(host: &Host, name: &str, mode: &str) -> Result<proto::Network, Error> {
    host.create(request(name, "macvlan", &WIRE, &[("parent", "uplink"), ("macvlan_mode", mode)])).await
}

fn spec(network: &str) -> proto::EndpointSpec {
    proto::EndpointSpec { network: network.into(), ..Default::default() }
}

#[tokio::test]
async fn containers_are_neighbours_on_the_wire_and_find_each_other_by_name() {
    let host = Host::new().await;
    let before = state(&host);
    let made = wire(&host, "wire", "bridge").await.unwrap();
    assert_eq!((made.parent.as_str(), made.mode.as_str(), made.mtu), ("uplink", "bridge", 1400));
    let (a, b) = (Guest::new("alpha"), Guest::new("beta"));
    let a_at = host.attach(&a, &["wire"], &["8080:80"]).await.unwrap();
    let b_at = host.attach(&b, &["wire"], &[]).await.unwrap();
    assert_eq!(
        (ip(&a_at, 0).as_str(), ip(&b_at, 0).as_str()),
        ("10.99.0.3", "10.99.0.4"),
        "the host's own is left out"
    );
    a.space.serve_tcp("0.0.0.0:80");
    assert_eq!(b.space.ask_tcp(&format!("{}:80", ip(&a_at, 0))), Some(ip(&b_at, 0)));
    assert_eq!(b.space.dig("alpha"), ip(&a_at, 0));
    // The world sees the container itself, and reaches it.
    host.world.serve_tcp(&format!("{WORLD}:81"));
    assert_eq!(b.space.ask_tcp(&format!("{WORLD}:81")), Some(ip(&b_at, 0)));
    assert_eq!(host.world.ask_tcp(&format!("{}:80", ip(&a_at, 0))).as_deref(), Some(WORLD));
    assert!(b.space.run("ip route show default").contains(WORLD));
    assert!(b.space.run("ip link show eth0").contains("mtu 1400"));
    // The kernel keeps parent and endpoints apart.
    host.space.serve_tcp("0.0.0.0:82");
    assert_eq!(b.space.ask_tcp(&format!("{HOST}:82")), None);
    assert_eq!(host.traces(), Vec::<String>::new(), "nothing of it is on the host");
    host.detach(&a).await;
    host.detach(&b).await;
    host.net_remove("wire").await.unwrap();
    assert_eq!(state(&host), before);
}

#[tokio::test]
async fn private_containers_do_not_reach_each_other() {
    let host = Host::new().await;
    wire(&host, "wire", "private").await.unwrap();
    let a = Guest::new("a");
    let a_at = host.attach(&a, &["wire"], &[]).await.unwrap();
    let b = host.guest("b", &["wire"], &[]).await;
    a.space.serve_tcp("0.0.0.0:80");
    assert_eq!(b.space.ask_tcp(&format!("{}:80", ip(&a_at, 0))), None);
    assert!(host.world.ask_tcp(&format!("{}:80", ip(&a_at, 0))).is_some());
}

#[tokio::test]
async fn passthru_has_its_parent_to_itself() {
    let host =
        Host::with("ip link add spare type veth peer name far; ip link set spare up; ip link set far up")
            .await;
    let options = [("parent", "spare"), ("macvlan_mode", "passthru")];
    host.create(request("through", "macvlan", &[("10.5.0.0/24", "")], &options)).await.unwrap();
    let e = host.create(request("other", "macvlan", &[("10.6.0.0/24", "")], &[("parent", "spare")])).await;
    let e = e.unwrap_err();
    assert!(e.kind() == Kind::InUse && e.to_string().contains("'through'"), "{e}");
    let a = Guest::new("a");
    host.attach(&a, &["through"], &[]).await.unwrap();
    assert!(a.space.run("ip -d link show eth0").contains("passthru"));
    let mac = "ip -br link show dev spare | awk '{print $3}'";
    let mac = host.space.run(mac);
    assert!(a.space.run("ip link show eth0").contains(mac.trim()));
    let b = Guest::new("b");
    let e = host.attach(&b, &["through"], &[]).await.unwrap_err();
    assert_eq!(e.kind(), Kind::InUse, "{e}");
    assert_eq!(b.space.run("ip -o link").lines().count(), 1);
    host.detach(&a).await;
    host.attach(&b, &["through"], &[]).await.unwrap();
}

#[tokio::test]
async fn several_networks_share_a_parent_and_a_network_has_several_subnets() {
    let host = Host::new().await;
    let parent = [("parent", "uplink")];
    let two = [("10.99.0.0/30", ""), ("10.98.0.0/24", "10.98.0.254"), ("fd98::/64", "")];
    host.create(request("two", "macvlan", &two, &parent)).await.unwrap();
    let e = host.create(request("again", "macvlan", &[("10.98.0.128/25", "")], &parent)).await.unwrap_err();
    assert!(e.kind() == Kind::InUse && e.to_string().contains("network 'two'"), "{e}");
    host.create(request("more", "macvlan", &[("10.97.0.0/24", "")], &parent)).await.unwrap();
    // 10.99.0.0/30 holds the world and the host: the next subnet helps out.
    let (a, b) = (Guest::new("a"), Guest::new("b"));
    let a_at = host.attach(&a, &["two"], &[]).await.unwrap();
    assert_eq!((ip(&a_at, 0).as_str(), a_at.endpoints[0].gateway.as_str()), ("10.98.0.1", "10.98.0.254"));
    assert_eq!(a_at.endpoints[0].ip6, "fd98::2/64");
    let wanted = proto::EndpointSpec { ip: "10.98.0.77".into(), ..spec("two") };
    let b_at = host.attach_request(Host::request(&b, vec![wanted, spec("more")], &[])).await.unwrap();
    assert_eq!((ip(&b_at, 0).as_str(), ip(&b_at, 1).as_str()), ("10.98.0.77", "10.97.0.2"));
    a.space.serve_tcp("[::]:80");
    assert!(b.space.ask_tcp("10.98.0.1:80").is_some());
    assert!(b.space.ask_tcp("[fd98::2]:80").is_some());
    let c = Guest::new("c");
    let outside = proto::EndpointSpec { ip: "10.50.0.1".into(), ..spec("two") };
    let e = host.attach_request(Host::request(&c, vec![outside], &[])).await.unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidArgument, "{e}");
}

#[tokio::test]
async fn a_running_container_joins_and_leaves() {
    let mut host = Host::new().await;
    wire(&host, "wire", "bridge").await.unwrap();
    host.net_create("mine").await;
    let guest = host.guest("g", &["mine"], &["8080:80"]).await;
    guest.space.serve_tcp("0.0.0.0:80");
    let wanted = proto::EndpointSpec { gateway_priority: 5, mac: "02:00:00:00:00:77".into(), ..spec("wire") };
    let connect = proto::ConnectRequest { sandbox_id: guest.id.clone(), endpoint: Some(wanted) };
    let endpoint = host.endpoints().connect(connect).await.unwrap().into_inner();
    assert_eq!((endpoint.interface.as_str(), endpoint.host_interface.as_str()), ("eth1", ""));
    assert!(guest.space.run("ip route show default").contains("eth1"));
    let at = endpoint.ip.split('/').next().unwrap().to_owned();
    assert!(host.world.ask_tcp(&format!("{at}:80")).is_some());
    // The published port stays where rules are.
    host.kill();
    host.start().await;
    assert!(host.world.ask_tcp(&format!("{at}:80")).is_some());
    assert_eq!(guest.space.dig("g").lines().count(), 1);
    let leave =
        proto::DisconnectRequest { sandbox_id: guest.id.clone(), network: "wire".into(), force: false };
    host.endpoints().disconnect(leave).await.unwrap();
    assert!(!guest.space.run("ip -o link").contains("eth1"));
    assert!(guest.space.run("ip route show default").contains("eth0"));
    assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some());
}

#[tokio::test]
async fn a_mac_is_free_again_as_soon_as_its_container_is_gone() {
    let host = Host::new().await;
    wire(&host, "wire", "bridge").await.unwrap();
    let wanted = || proto::EndpointSpec { ip: "10.99.0.50".into(), ..spec("wire") };
    for round in 0..5 {
        let guest = Guest::new(&format!("g{round}"));
        host.attach_request(Host::request(&guest, vec![wanted()], &[])).await.unwrap();
        let id = guest.id.clone();
        // The holder dies first, as a container's does: the kernel clears its namespace some time later.
        drop(guest);
        host.endpoints().detach(proto::DetachRequest { sandbox_id: id }).await.unwrap();
    }
}

#[tokio::test]
async fn an_attach_that_a_kill_cut_short_leaves_nothing_inside() {
    let mut host = Host::new().await;
    wire(&host, "wire", "bridge").await.unwrap();
    for round in 0..8u64 {
        let guest = Guest::new(&format!("g{round}"));
        let request = Host::request(&guest, vec![spec("wire")], &[]);
        let mut client = host.endpoints();
        let call = tokio::spawn(async move { client.attach(request).await.is_ok() });
        tokio::time::sleep(std::time::Duration::from_micros(400 * round)).await;
        host.kill();
        let acknowledged = call.await.unwrap();
        host.start().await;
        let all = host.endpoints().list(proto::ListSandboxesRequest {}).await.unwrap().into_inner().sandboxes;
        let known = all.iter().any(|s| s.id == guest.id);
        assert!(known || !acknowledged, "round {round}: an acknowledged attach was lost");
        assert_eq!(guest.space.run("ip -o link").contains("eth0"), known, "round {round}");
        host.detach(&guest).await;
    }
}

#[tokio::test]
async fn a_parent_that_cannot_be_one_is_refused_and_nothing_changes() {
    let host = Host::with("ip link add idle type veth peer name far; ip link add br9 type bridge; ip link add port type veth peer name far2; ip link set port master br9 up").await;
    let before = state(&host);
    let parent = |p: &str| request("n", "macvlan", &[("10.5.0.0/24", "")], &[("parent", p)]);
    for (given, kind, text, hint) in [
        ("uplinc", Kind::InvalidArgument, "no interface uplinc", "'uplink'"),
        ("nonsense", Kind::InvalidArgument, "no interface nonsense", "ip link"),
        ("idle", Kind::WrongState, "idle is down", "ip link set idle up"),
        ("lo", Kind::InvalidArgument, "the loopback", "parent="),
        ("uplinc.7", Kind::InvalidArgument, "no interface uplinc", "'uplink'"),
    ] {
        let e = host.create(parent(given)).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.to_string().contains(text) && e.hint().contains(hint), "{e} ({})", e.hint());
    }
    let mut e = parent("uplink");
    e.options.insert("com.docker.network.driver.mtu".into(), "9000".into());
    let e = host.create(e).await.unwrap_err();
    assert!(e.kind() == Kind::InvalidArgument && e.to_string().contains("1400"), "{e}");
    let e = host
        .create(request("n", "macvlan", &[("10.5.0.0/24", "")], &[("macvlan_mod", "vepa")]))
        .await
        .unwrap_err();
    assert!(e.to_string().contains("macvlan_mod'") && e.hint().contains("macvlan_mode"), "{e}");
    assert_eq!(state(&host), before);
    // A port of a bridge shows only when something is to be put on it.
    host.create(parent("port")).await.unwrap();
    let guest = Guest::new("g");
    let e = host.attach(&guest, &["n"], &[]).await.unwrap_err();
    assert!(e.kind() == Kind::InUse && e.to_string().contains("port"), "{e}");
    assert_eq!(guest.space.run("ip -o link").lines().count(), 1);
    host.net_remove("n").await.unwrap();
    assert_eq!(state(&host), before);
}

/// Whether this kernel makes interfaces of a kind: what netd says must be the same.
fn kernel_has(host: &Host, make: &str, name: &str) -> bool {
    let (made, _) = host.space.attempt(make);
    if made {
        host.space.run(&format!("ip link del {name}"));
    }
    made
}

#[tokio::test]
async fn what_the_kernel_lacks_is_told_and_what_it_has_works() {
    let host = Host::new().await;
    let before = state(&host);
    let vlan = kernel_has(&host, "ip link add link uplink name uplink.50 type vlan id 50", "uplink.50");
    let dummy = kernel_has(&host, "ip link add dv-x type dummy", "dv-x");
    let subnet = [("10.5.0.0/24", "")];
    for (has, options, what) in [(vlan, &[("parent", "uplink.50")][..], "vlan"), (dummy, &[], "dummy")] {
        for driver in ["macvlan", "ipvlan"] {
            match host.create(request("n", driver, &subnet, options)).await {
                Ok(made) => {
                    assert!(has && host.space.run("ip -o link").contains(&made.parent), "{what}");
                    host.net_remove("n").await.unwrap();
                }
                Err(e) => {
                    assert!(!has && e.kind() == Kind::Unsupported, "{what}: {e}");
                    assert!(e.to_string().contains(what) && e.hint().contains("modprobe"), "{e}");
                }
            }
            assert_eq!(state(&host), before, "{what}");
        }
    }
    let ipvlan = kernel_has(&host, "ip link add link uplink name ipv9 type ipvlan mode l3", "ipv9");
    host.create(request("n", "ipvlan", &subnet, &[("parent", "uplink"), ("ipvlan_mode", "l3")]))
        .await
        .unwrap();
    let guest = Guest::new("g");
    match host.attach(&guest, &["n"], &[]).await {
        Ok(at) => {
            assert!(ipvlan && at.endpoints[0].gateway.is_empty() && at.endpoints[0].mac.is_empty());
            assert!(guest.space.run("ip route show default").contains("default dev eth0"));
        }
        Err(e) => {
            assert!(!ipvlan && e.kind() == Kind::Unsupported && e.to_string().contains("no ipvlan"), "{e}");
            assert_eq!(guest.space.run("ip -o link").lines().count(), 1);
        }
    }
    host.detach(&guest).await;
    host.net_remove("n").await.unwrap();
    assert_eq!(state(&host), before);
}

#[tokio::test]
async fn a_parent_that_is_down_or_gone_is_told() {
    let host =
        Host::with("ip link add spare type veth peer name far; ip link set spare up; ip link set far up")
            .await;
    host.create(request("n", "macvlan", &[("10.5.0.0/24", "")], &[("parent", "spare")])).await.unwrap();
    assert_eq!(host.inspect("n").await.problems, Vec::<String>::new());
    host.space.run("ip link set spare down");
    assert_eq!(host.inspect("n").await.problems, ["the parent interface spare is down"]);
    host.space.run("ip link del spare");
    assert_eq!(host.inspect("n").await.problems, ["the host has no interface spare, which is the parent"]);
    host.net_remove("n").await.unwrap();
}

fn leave(guest: &Guest) -> proto::DisconnectRequest {
    proto::DisconnectRequest { sandbox_id: guest.id.clone(), network: "wire".into(), force: false }
}

#[tokio::test]
async fn a_container_cannot_keep_an_interface_by_disguising_it() {
    let host = Host::new().await;
    wire(&host, "wire", "bridge").await.unwrap();
    host.net_create("mine").await;
    let guest = host.guest("g", &["mine", "wire"], &[]).await;
    guest.space.run(
        "ip link set eth1 down; ip link set eth1 name kept; ip link set kept group 0
         ip link set kept address 02:00:00:00:00:99; ip link set kept up
         ip link add link kept name more type macvlan mode bridge; ip link set more up",
    );
    host.endpoints().disconnect(leave(&guest)).await.unwrap();
    let left = guest.space.run("ip -o link");
    assert!(!left.contains("kept") && !left.contains("more") && left.contains("eth0"), "{left}");
}

#[tokio::test]
async fn an_interface_that_a_container_took_elsewhere_keeps_its_address_taken() {
    let host = Host::new().await;
    wire(&host, "wire", "bridge").await.unwrap();
    host.net_create("mine").await;
    let guest = host.guest("g", &["mine", "wire"], &[]).await;
    let nested = Guest::new("nested");
    guest.space.run(&format!("ip link set eth1 netns {}", nested.space.pid()));
    let e = Error::from(host.endpoints().disconnect(leave(&guest)).await.unwrap_err());
    assert!(e.kind() == Kind::WrongState && e.to_string().contains("eth1"), "{e}");
    let all = host.endpoints().list(proto::ListSandboxesRequest {}).await.unwrap().into_inner().sandboxes;
    assert_eq!(all[0].endpoints.len(), 2, "nothing changed");
    host.detach(&guest).await;
}
