//! ADD, CHECK, DEL, GC, STATUS and VERSION where all is well.

use serde_json::{Value, json};

use super::call::{PLACES, Plugin, address, ask_tcp, inside, serve_tcp};
use crate::host::{HOST, Host, ip};

fn names(list: &Value, key: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|i| i[key].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn each_version_attaches_checks_and_detaches() {
    let host = Host::with(&format!("{PLACES}; ip netns add c1")).await;
    let network = host.net_create("my-bridge").await;
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let plugin = Plugin::davit(&host, version, json!({"network": "my-bridge"}));
        let result = plugin.add("c1").result();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(names(&result["interfaces"], "name")[1], "eth0");
        assert_eq!(result["interfaces"][1]["sandbox"], "/run/netns/c1");
        assert_eq!(result["ips"][0]["interface"], 1);
        assert_eq!(result["ips"][0].get("version").is_some(), version < "1.0.0");
        assert_eq!(result["routes"][0]["gw"], network.subnets[0].gateway.as_str());
        assert_eq!(result["dns"], json!({}));
        let there = host.space.run("ip netns exec c1 ip -o addr show eth0");
        assert!(there.contains(result["ips"][0]["address"].as_str().unwrap()), "{there}");
        let mac = result["interfaces"][1]["mac"].as_str().unwrap();
        assert!(host.space.run("ip netns exec c1 ip link show eth0").contains(mac));
        // Nothing of ours listens inside unless it is asked for.
        assert!(!host.space.run("ip netns exec c1 ss -lnut").contains("127.0.0.11"));

        if version == "0.3.1" {
            assert_eq!(plugin.check("c1", &result).failure().0, 1);
        } else {
            plugin.check("c1", &result).result();
        }
        let (code, message) = plugin.add("c1").failure();
        assert!(code == 101 && message.contains("c1"), "{code} {message}");
        for _ in 0..2 {
            let answer = plugin.del("c1");
            assert!(answer.ok && answer.text.is_empty(), "{}", answer.text);
        }
        let links = || host.space.run("ip netns exec c1 ip -o link");
        host.eventually("the interface is gone", || !links().contains("eth0")).await;
    }
    host.net_remove("my-bridge").await.unwrap();
    host.becomes_clean().await;
}

#[tokio::test]
async fn version_answers_whoever_asks() {
    let host = Host::new().await;
    let plugin = Plugin::davit(&host, "1.0.0", json!({}));
    for (stdin, version) in
        [(&b"{\"cniVersion\":\"0.4.0\"}"[..], "0.4.0"), (b"", "1.1.0"), (b"garbage", "1.1.0")]
    {
        let result = plugin.call(&[("CNI_COMMAND", "VERSION")], stdin).result();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["supportedVersions"], json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    }
}

#[tokio::test]
async fn a_network_is_made_by_the_first_add_and_removed_by_gc() {
    let host = Host::with(&format!("{PLACES}; for n in a b c; do ip netns add $n; done")).await;
    let config = json!({"subnets": ["10.90.0.0/24"], "ipv6": true, "mtu": 1300, "removeUnused": true, "labels": {"team": "x"}});
    let plugin = Plugin::davit(&host, "1.1.0", config);
    plugin.status().result();
    // Several at once: one of them makes it.
    let results: Vec<Value> = std::thread::scope(|scope| {
        let calls = ["a", "b", "c"].map(|c| {
            scope.spawn({
                let plugin = &plugin;
                move || plugin.add(c)
            })
        });
        calls.into_iter().map(|call| call.join().unwrap().result()).collect()
    });
    let network = host.inspect("cluster").await;
    assert_eq!((network.mtu, network.labels["team"].as_str(), network.endpoints.len()), (1300, "x", 3));
    assert!(
        results.iter().all(|r| r["ips"][1]["address"].as_str().unwrap().starts_with("fd")),
        "{results:?}"
    );
    plugin.status().result();
    serve_tcp(&host, "a", 80);
    let at = address(&results[0], 0);
    assert!(ask_tcp(&host, "b", &format!("{at}:80")).is_some());

    // Another configuration with attachments on the same network is none of this one's business.
    let mut other = Plugin::davit(&host, "1.1.0", json!({"network": "cluster"}));
    other.config["name"] = "other".into();
    let second = other.verb("ADD", ("c", "net1"), &json!({})).result();
    assert_ne!(address(&second, 0), address(&results[2], 0));
    plugin.gc(&["a"]).result();
    let left = host.inspect("cluster").await;
    assert_eq!(left.endpoints.len(), 2);
    assert!(host.space.run("ip netns exec c ip -o link").contains("net1"));
    plugin.gc(&[]).result();
    assert_eq!(host.inspect("cluster").await.endpoints.len(), 1, "it is still in use");
    other.verb("DEL", ("c", "net1"), &json!({})).result();
    plugin.gc(&[]).result();
    assert!(
        host.networks()
            .inspect(davit_contracts::network::InspectNetworkRequest { name: "cluster".into() })
            .await
            .is_err()
    );
    host.becomes_clean().await;
}

#[tokio::test]
async fn a_pod_has_its_names_ports_and_addresses_beside_davits_own_containers() {
    let host = Host::with(&format!("{PLACES}; ip netns add pod")).await;
    host.create(davit_contracts::network::CreateNetworkRequest {
        name: "my-bridge".into(),
        subnets: vec![davit_contracts::network::Subnet {
            subnet: "10.90.0.0/24".into(),
            ..Default::default()
        }],
        ..Default::default()
    })
    .await
    .unwrap();
    let plugin = Plugin::davit(&host, "1.0.0", json!({"network": "my-bridge", "resolver": true}));
    let asked = json!({
        "runtimeConfig": {
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
            "ips": ["10.90.0.77/24"], "mac": "02:00:00:00:00:77", "aliases": ["front"],
        },
        "dns": {"search": ["svc.test"]}
    });
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=1";
    let result = plugin.with_args("ADD", ("pod", "eth0"), &asked, args).result();
    assert_eq!(address(&result, 0), "10.90.0.77");
    assert_eq!(result["interfaces"][1]["mac"], "02:00:00:00:00:77");
    assert_eq!(result["dns"]["nameservers"], json!(["127.0.0.11"]));
    assert_eq!(result["dns"]["search"], json!(["svc.test"]));

    let guest = host.guest("db", &["my-bridge"], &[]).await;
    for name in ["web-0", "web-0.shop", "front", "pod"] {
        assert_eq!(guest.space.dig(name), "10.90.0.77", "{name}");
    }
    let db = host.inspect("my-bridge").await.endpoints.iter().find(|e| e.name == "db").unwrap().ip.clone();
    let db = db.split('/').next().unwrap().to_owned();
    assert_eq!(host.space.run("ip netns exec pod dig +short +time=3 +tries=1 @127.0.0.11 db").trim(), db);
    serve_tcp(&host, "pod", 80);
    guest.space.serve_tcp("0.0.0.0:81");
    assert_eq!(guest.space.ask_tcp("10.90.0.77:80"), Some(db.clone()));
    assert_eq!(ask_tcp(&host, "pod", &format!("{db}:81")).as_deref(), Some("10.90.0.77"));
    assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some());
    assert!(inside(&host, "pod", || std::net::TcpListener::bind("127.0.0.1:53")).is_ok());
    plugin.del("pod").result();
    assert_eq!(guest.space.dig("web-0"), "");
    assert_eq!(host.world.ask_tcp(&format!("{HOST}:8080")), None);
}

#[tokio::test]
async fn one_container_may_come_twice_and_keeps_its_first_way_out() {
    let host = Host::with(&format!("{PLACES}; ip netns add c1")).await;
    let one = host.net_create("one").await;
    host.net_create("two").await;
    let first = Plugin::davit(&host, "1.0.0", json!({"network": "one"}));
    let second = Plugin::davit(&host, "1.0.0", json!({"network": "two"}));
    let a = first.verb("ADD", ("c1", "eth0"), &json!({})).result();
    let b = first.verb("ADD", ("c1", "eth1"), &json!({})).result();
    second.verb("ADD", ("c1", "net0"), &json!({})).result();
    assert_ne!(address(&a, 0), address(&b, 0));
    let routes = host.space.run("ip netns exec c1 ip route show default");
    assert_eq!(routes.lines().count(), 1, "{routes}");
    assert!(routes.contains(&one.subnets[0].gateway) && routes.contains("eth0"), "{routes}");
    for (plugin, interface) in [(&second, "net0"), (&first, "eth1"), (&first, "eth0")] {
        plugin.verb("DEL", ("c1", interface), &json!({})).result();
    }
    // Interfaces are removed behind the answer.
    let links = || host.space.run("ip netns exec c1 ip -o link");
    host.eventually("all is gone", || !links().contains("eth") && !links().contains("net0")).await;
}

#[tokio::test]
async fn a_namespace_that_a_process_holds_is_as_good_as_a_mounted_one() {
    let host = Host::with(PLACES).await;
    host.net_create("my-bridge").await;
    let plugin = Plugin::davit(&host, "1.0.0", json!({"network": "my-bridge"}));
    let peer = host.guest("peer", &["my-bridge"], &[]).await;
    let pod = crate::host::Space::bare();
    let netns = format!("/proc/{}/ns/net", pod.pid());
    let environment =
        [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "p"), ("CNI_NETNS", &netns), ("CNI_IFNAME", "eth0")];
    let result = plugin.call(&environment, plugin.config.to_string().as_bytes()).result();
    pod.serve_tcp("0.0.0.0:80");
    assert!(peer.space.ask_tcp(&format!("{}:80", address(&result, 0))).is_some());
    let attached = host.attach(&crate::host::Guest::new("x"), &["my-bridge"], &[]).await.unwrap();
    assert_ne!(ip(&attached, 0), address(&result, 0));
    plugin.del("p").result();
}
