//! What outlives netd, and what goes with its namespace.

use davit_contracts::network as proto;
use serde_json::json;

use super::call::{PLACES, Plugin, address, ask_tcp, serve_tcp};
use crate::host::{HOST, Host};

#[tokio::test]
async fn an_attachment_outlives_netd_and_ends_with_its_namespace() {
    let mut host =
        Host::with(&format!("{PLACES}; for n in a b gone swapped; do ip netns add $n; done")).await;
    host.net_create("my-bridge").await;
    let ports = json!({"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}});
    let config = json!({"network": "my-bridge"});
    let plugin = Plugin::davit(&host, "1.0.0", config.clone());
    let a = plugin.verb("ADD", ("a", "eth0"), &ports).result();
    let gone = plugin.add("gone").result();
    plugin.add("swapped").result();
    serve_tcp(&host, "a", 80);
    host.kill();
    host.space.run("ip netns del gone; ip netns del swapped; ip netns add swapped");
    host.start().await;
    let plugin = Plugin::davit(&host, "1.0.0", config);
    plugin.check("a", &a).result();
    assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some());
    let all = host.endpoints().list(proto::ListSandboxesRequest {}).await.unwrap().into_inner().sandboxes;
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].labels["cni.container"], "a");
    assert_eq!(all[0].holder.as_ref().unwrap().netns, "/run/netns/a");
    assert!(
        !host.space.run("ip netns exec swapped ip -o link").contains("eth0"),
        "another namespace was taken for it"
    );
    // What was attached to the namespace that is gone is free.
    let wanted = json!({"runtimeConfig": {"ips": [address(&gone, 0)]}});
    let b = plugin.verb("ADD", ("b", "eth0"), &wanted).result();
    assert_eq!(address(&b, 0), address(&gone, 0));
    assert!(ask_tcp(&host, "b", &format!("{}:80", address(&a, 0))).is_some());
    for container in ["a", "b", "gone", "swapped"] {
        plugin.del(container).result();
    }
    host.net_remove("my-bridge").await.unwrap();
    host.becomes_clean().await;
}

#[tokio::test]
async fn del_frees_the_address_of_a_namespace_that_is_gone() {
    let host = Host::with(&format!("{PLACES}; ip netns add a; ip netns add b")).await;
    host.net_create("my-bridge").await;
    let plugin = Plugin::davit(&host, "1.1.0", json!({"network": "my-bridge"}));
    let a = plugin.add("a").result();
    host.space.run("ip netns del a");
    let environment = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "a"), ("CNI_IFNAME", "eth0")];
    plugin.call(&environment, plugin.config.to_string().as_bytes()).result();
    let wanted = json!({"runtimeConfig": {"ips": [address(&a, 0)]}});
    plugin.verb("ADD", ("b", "eth0"), &wanted).result();
    assert_eq!(host.inspect("my-bridge").await.endpoints.len(), 1);
}

#[tokio::test]
async fn an_add_for_a_new_namespace_under_the_old_name_starts_afresh() {
    let host = Host::with(&format!("{PLACES}; ip netns add a")).await;
    host.net_create("my-bridge").await;
    let plugin = Plugin::davit(&host, "1.0.0", json!({"network": "my-bridge"}));
    plugin.add("a").result();
    // The caller lost both the namespace and the DEL.
    host.space.run("ip netns del a; ip netns add a");
    let again = plugin.add("a").result();
    assert!(host.space.run("ip netns exec a ip -o addr").contains(&address(&again, 0)));
    assert_eq!(host.inspect("my-bridge").await.endpoints.len(), 1);
}
