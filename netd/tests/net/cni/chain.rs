//! Beside plugins of others: Debian's portmap behind davit-cni, davit-cni behind Debian's bridge.

use serde_json::json;

use super::call::{PLACES, Plugin, address, serve_tcp};
use crate::host::{HOST, Host};

#[tokio::test]
async fn debians_portmap_publishes_what_davit_attached() {
    let host = Host::with(&format!("{PLACES}; ip netns add c1")).await;
    host.net_create("my-bridge").await;
    let version = "1.0.0";
    let davit = Plugin::davit(&host, version, json!({"network": "my-bridge"}));
    let portmap = Plugin::debian(&host, version, "portmap", json!({"snat": true}));
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    let first = davit.add("c1").result();
    let more = json!({"prevResult": first, "runtimeConfig": {"portMappings": ports}});
    let last = portmap.verb("ADD", ("c1", "eth0"), &more).result();
    assert_eq!(last["ips"], first["ips"]);
    serve_tcp(&host, "c1", 80);
    assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some());
    let more = json!({"prevResult": last, "runtimeConfig": {"portMappings": ports}});
    davit.check("c1", &last).result();
    portmap.verb("DEL", ("c1", "eth0"), &more).result();
    davit.verb("DEL", ("c1", "eth0"), &json!({"prevResult": last})).result();
    assert_eq!(host.world.ask_tcp(&format!("{HOST}:8080")), None);
}

#[tokio::test]
async fn behind_another_plugin_both_results_are_told() {
    let host = Host::with(&format!("{PLACES}; ip netns add c1")).await;
    host.net_create("my-bridge").await;
    let bridge = Plugin::debian(
        &host,
        "1.0.0",
        "bridge",
        json!({
            "bridge": "cni9", "isGateway": true, "isDefaultGateway": true,
            "ipam": {"type": "host-local", "subnet": "10.91.0.0/24"}
        }),
    );
    let davit = Plugin::davit(&host, "1.0.0", json!({"network": "my-bridge"}));
    let first = bridge.verb("ADD", ("c1", "eth0"), &json!({})).result();
    let both = davit.verb("ADD", ("c1", "dav0"), &json!({"prevResult": first})).result();
    let names: Vec<_> = both["interfaces"].as_array().unwrap().iter().map(|i| i["name"].clone()).collect();
    assert_eq!(names.len(), 5, "{names:?}");
    assert_eq!((address(&both, 0), names[4].as_str()), (address(&first, 0), Some("dav0")));
    assert_eq!(both["ips"][1]["interface"], 4);
    let routes = host.space.run("ip netns exec c1 ip route show default");
    assert!(routes.lines().count() == 1 && routes.contains("eth0"), "{routes}");
    davit.verb("CHECK", ("c1", "dav0"), &json!({"prevResult": both})).result();
    davit.verb("DEL", ("c1", "dav0"), &json!({"prevResult": both})).result();
    bridge.verb("CHECK", ("c1", "eth0"), &json!({"prevResult": first})).result();
    bridge.verb("DEL", ("c1", "eth0"), &json!({"prevResult": first})).result();
}
