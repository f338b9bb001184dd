//! One container on several networks: who has its ports and its default route, and who has them next.

use davit_contracts::network::CreateNetworkRequest;
use serde_json::{Value, json};

use super::call::{PLACES, Plugin, serve_tcp};
use crate::check::{check, words};
use crate::host::{HOST, Host};

fn ports() -> Value {
    json!({"runtimeConfig": {"portMappings": [{"hostPort": 8088, "containerPort": 80, "protocol": "tcp"}]}})
}

/// A plugin with a network of its own, as podman has one a network.
async fn plugin(host: &Host, name: &str) -> Plugin {
    host.net_create(name).await;
    let mut plugin = Plugin::davit(host, "1.1.0", json!({"network": name}));
    plugin.config["name"] = name.into();
    plugin
}

fn default_route(host: &Host, container: &str) -> String {
    host.space.run(&format!("ip netns exec {container} ip -o route show default"))
}

#[tokio::test]
async fn ports_lead_to_the_first_network_and_to_the_next_when_it_goes() {
    let mut host = Host::with(&format!("{PLACES}; ip netns add c1; ip netns add c2")).await;
    let (one, two) = (plugin(&host, "one").await, plugin(&host, "two").await);
    one.verb("ADD", ("c1", "eth0"), &ports()).result();
    two.verb("ADD", ("c1", "eth1"), &ports()).result();
    serve_tcp(&host, "c1", 80);
    let reached = |host: &Host| host.world.ask_tcp(&format!("{HOST}:8088")).is_some();
    assert!(reached(&host));
    // Another container's is another's, and so is the same port for something else inside.
    let (code, message) = two.verb("ADD", ("c2", "eth0"), &ports()).failure();
    assert!(code == 102 && message.contains("8088") && message.contains("c1"), "{code} {message}");
    let mut other = ports();
    other["runtimeConfig"]["portMappings"][0]["containerPort"] = 81.into();
    assert_eq!(two.verb("ADD", ("c1", "eth2"), &other).failure().0, 102);

    // Also after netd was away.
    host.kill();
    host.start().await;
    assert!(reached(&host));
    let ways = |host: &Host| default_route(host, "c1");
    assert!(ways(&host).contains("eth0"), "{}", ways(&host));
    one.verb("DEL", ("c1", "eth0"), &json!({})).result();
    assert!(reached(&host), "the second network has taken it over");
    assert!(ways(&host).lines().count() == 1 && ways(&host).contains("eth1"), "{}", ways(&host));
    let gone = || !host.space.run("ip netns exec c1 ip -o link").contains("eth0");
    host.eventually("the interface is gone", gone).await;
    assert!(reached(&host) && ways(&host).contains("eth1"), "{}", ways(&host));
    // It comes back behind the other, which keeps both.
    one.verb("ADD", ("c1", "eth0"), &ports()).result();
    assert!(reached(&host) && ways(&host).lines().count() == 1, "{}", ways(&host));
    two.verb("DEL", ("c1", "eth1"), &json!({})).result();
    assert!(reached(&host) && ways(&host).contains("eth0"), "{}", ways(&host));
    one.verb("DEL", ("c1", "eth0"), &json!({})).result();
    assert!(!reached(&host));
    two.verb("ADD", ("c2", "eth0"), &ports()).result();
}

#[tokio::test]
async fn ports_of_internal_networks_are_published_by_another_or_not_at_all() {
    let host = Host::with(&format!("{PLACES}; ip netns add c1; ip netns add c2")).await;
    let internal = CreateNetworkRequest { name: "in".into(), internal: true, ..Default::default() };
    host.create(internal).await.unwrap();
    let mut inner = Plugin::davit(&host, "1.1.0", json!({"network": "in"}));
    inner.config["name"] = "in".into();
    let outer = plugin(&host, "out").await;
    let reached = |host: &Host| host.world.ask_tcp(&format!("{HOST}:8088")).is_some();
    serve_tcp(&host, "c1", 80);
    let mut given = ports();
    given["prevResult"] = inner.verb("ADD", ("c1", "eth0"), &ports()).result();
    assert!(!reached(&host), "nothing leads in");
    assert!(host.log().contains("its ports are not published on an internal network"), "{}", host.log());
    inner.verb("CHECK", ("c1", "eth0"), &given).result();
    outer.verb("ADD", ("c1", "eth1"), &ports()).result();
    assert!(reached(&host), "the next network publishes them");
    // Behind the other, too; and what goes takes nothing with it that is not its own.
    inner.verb("DEL", ("c1", "eth0"), &json!({})).result();
    inner.verb("ADD", ("c1", "eth2"), &ports()).result();
    assert!(reached(&host));
    outer.verb("DEL", ("c1", "eth1"), &json!({})).result();
    assert!(!reached(&host), "the internal network does not take them over");
    outer.verb("ADD", ("c2", "eth0"), &ports()).result();
}

#[tokio::test]
async fn the_result_tells_the_default_route_that_was_made_and_no_other() {
    let host = Host::with(&format!("{PLACES}; ip netns add c1")).await;
    let (one, two) = (plugin(&host, "one").await, plugin(&host, "two").await);
    let first = one.verb("ADD", ("c1", "eth0"), &json!({})).result();
    let second = two.verb("ADD", ("c1", "eth1"), &json!({})).result();
    assert_eq!(first["routes"], json!([{"dst": "0.0.0.0/0", "gw": first["ips"][0]["gateway"]}]));
    assert_eq!(second.get("routes"), None, "{second}");
    assert!(second["ips"][0]["gateway"].is_string(), "{second}");
    for (plugin, interface, result) in [(&one, "eth0", &first), (&two, "eth1", &second)] {
        plugin.verb("CHECK", ("c1", interface), &json!({"prevResult": result})).result();
    }
}

#[tokio::test]
async fn a_program_of_the_host_may_have_the_port() {
    let host = Host::with(&format!("{PLACES}; ip netns add c1; ip netns add c2")).await;
    let plugin = plugin(&host, "one").await;
    // As conmon does, which holds a container's ports while it runs, and reads nothing from them.
    let _conmon = host.space.inside(|| std::net::TcpListener::bind("0.0.0.0:8088")).unwrap();
    plugin.verb("ADD", ("c1", "eth0"), &ports()).result();
    serve_tcp(&host, "c1", 80);
    let reached = || host.world.ask_tcp(&format!("{HOST}:8088")).is_some();
    assert!(reached());
    // A reload: the namespace stays, and so does the program that has the port.
    plugin.del("c1").result();
    plugin.verb("ADD", ("c1", "eth0"), &ports()).result();
    assert!(reached());
    assert_eq!(plugin.verb("ADD", ("c2", "eth0"), &ports()).failure().0, 102);
    // Nothing of this is for containers of davit's own, whose ports are held.
    plugin.del("c1").result();
    let e = host.attach(&crate::host::Guest::new("own"), &["one"], &["8088:80"]).await.unwrap_err();
    assert!(e.to_string().contains("in use by"), "{e}");
}

#[tokio::test]
async fn what_a_kill_left_to_nobody_is_taken_over_at_the_next_start() {
    let mut host = Host::with(&format!("{PLACES}; ip netns add c1")).await;
    let (one, two) = (plugin(&host, "one").await, plugin(&host, "two").await);
    one.verb("ADD", ("c1", "eth0"), &ports()).result();
    two.verb("ADD", ("c1", "eth1"), &ports()).result();
    serve_tcp(&host, "c1", 80);
    host.kill();
    // As when it comes between the end of the first and what the second is to have.
    let records = host.run_dir().join("network/sandboxes");
    let of_one = |text: &str| text.contains("\"eth0\"");
    for record in std::fs::read_dir(&records).unwrap().map(|r| r.unwrap().path()) {
        if of_one(&std::fs::read_to_string(&record).unwrap()) {
            std::fs::remove_file(record).unwrap();
        }
    }
    assert_eq!(std::fs::read_dir(&records).unwrap().count(), 1);
    host.start().await;
    assert!(host.world.ask_tcp(&format!("{HOST}:8088")).is_some());
    let ways = default_route(&host, "c1");
    assert!(ways.lines().count() == 1 && ways.contains("eth1"), "{ways}");
    two.verb("DEL", ("c1", "eth1"), &json!({})).result();
    for name in ["one", "two"] {
        host.net_remove(name).await.unwrap();
    }
    host.becomes_clean().await;
}

#[tokio::test]
async fn an_interface_on_a_parent_leaves_the_next_networks_on_it() {
    let host = Host::with(&format!("{PLACES}; ip netns add c1")).await;
    let plugin = |name: &str, subnet: &str| {
        let config = json!({"driver": "macvlan", "parent": "uplink", "subnets": [subnet]});
        let mut plugin = Plugin::davit(&host, "1.1.0", config);
        plugin.config["name"] = name.into();
        plugin
    };
    let (one, two) = (plugin("one", "10.99.1.0/24"), plugin("two", "10.99.2.0/24"));
    one.verb("ADD", ("c1", "eth0"), &json!({})).result();
    two.verb("ADD", ("c1", "eth1"), &json!({})).result();
    let there = || host.space.run("ip netns exec c1 ip -o link show type macvlan");
    assert_eq!(there().lines().count(), 2);
    one.verb("DEL", ("c1", "eth0"), &json!({})).result();
    host.eventually("the interface is gone", || !there().contains("eth0")).await;
    assert!(there().contains("eth1"), "{}", there());
    two.verb("DEL", ("c1", "eth1"), &json!({})).result();
    host.eventually("the other too", || there().is_empty()).await;
}

#[tokio::test]
async fn an_interface_that_is_made_to_look_like_another_networks_stays() {
    let host = Host::with(&format!("{PLACES}; ip netns add c1")).await;
    let (one, two) = (plugin(&host, "one").await, plugin(&host, "two").await);
    one.verb("ADD", ("c1", "eth0"), &json!({})).result();
    two.verb("ADD", ("c1", "eth1"), &json!({})).result();
    let mac = host.space.run("ip netns exec c1 cat /sys/class/net/eth1/address");
    host.space
        .run("ip netns exec c1 sh -c 'ip link set eth0 down; ip link del eth0; ip link set eth1 name eth0'");
    one.verb("DEL", ("c1", "eth0"), &json!({})).result();
    // Its interface is taken away behind the answer: a check waits for that.
    assert_eq!(words(&check(&host, false).await), ["differs interface eth1 inside"]);
    assert!(check(&host, true).await[0].repaired);
    assert_eq!(host.space.run("ip netns exec c1 cat /sys/class/net/eth1/address"), mac);
    two.verb("DEL", ("c1", "eth1"), &json!({})).result();
}

#[tokio::test]
async fn two_that_have_one_anothers_names_change_them_back() {
    let host = Host::with(&format!("{PLACES}; ip netns add c1")).await;
    let (one, two) = (plugin(&host, "one").await, plugin(&host, "two").await);
    let first = one.verb("ADD", ("c1", "eth0"), &json!({})).result();
    let second = two.verb("ADD", ("c1", "eth1"), &json!({})).result();
    let state = || host.space.run("ip netns exec c1 ip -o link; ip netns exec c1 ip -br -4 addr");
    let whole = state();
    host.space.run(
        "ip netns exec c1 sh -c 'ip link set eth0 name x; ip link set eth1 name eth0; ip link set x name eth1'",
    );
    let told = check(&host, false).await;
    let details: Vec<_> = told.iter().map(|d| (d.object.as_str(), d.detail.as_str())).collect();
    let expected =
        [("interface eth0 inside", "it is called eth1"), ("interface eth1 inside", "it is called eth0")];
    assert_eq!(details, expected);
    let mended = check(&host, true).await;
    assert!(mended.iter().all(|d| d.repaired), "{mended:#?}");
    assert_eq!(state(), whole);
    for (plugin, interface, result) in [(&one, "eth0", &first), (&two, "eth1", &second)] {
        plugin.verb("CHECK", ("c1", interface), &json!({"prevResult": result})).result();
    }
    // One that is gone is made again though the other has its name.
    host.space.run("ip netns exec c1 sh -c 'ip link del eth0; ip link set eth1 name eth0'");
    let mended = check(&host, true).await;
    assert!(mended.iter().all(|d| d.repaired), "{mended:#?}");
    assert_eq!(words(&check(&host, false).await), Vec::<String>::new());
}
