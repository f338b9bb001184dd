//! CHECK: what it finds inside, on the host, and in a result that is not what there is.

use serde_json::{Value, json};

use super::call::{PLACES, Plugin};
use crate::host::Host;

#[tokio::test]
async fn check_finds_what_was_changed() {
    let host = Host::with(&format!("{PLACES}; ip netns add c1")).await;
    host.net_create("my-bridge").await;
    let plugin = Plugin::davit(&host, "1.1.0", json!({"network": "my-bridge"}));
    let result = plugin.add("c1").result();
    let at = result["ips"][0]["address"].as_str().unwrap();
    let gateway = result["ips"][0]["gateway"].as_str().unwrap();
    for (harm, mend, part) in [
        (
            "ip link set eth0 down".to_owned(),
            format!("ip link set eth0 up; ip route add default via {gateway}"),
            "down",
        ),
        (
            format!("ip route replace default via {}", gateway.replace(".0.1", ".0.9")),
            format!("ip route replace default via {gateway}"),
            "default route",
        ),
        (
            "ip route replace blackhole default".to_owned(),
            format!("ip route replace default via {gateway}"),
            "default route",
        ),
        (
            "ip link set eth0 mtu 1300".to_owned(),
            format!("ip link set eth0 mtu {}", result["interfaces"][1]["mtu"]),
            "MTU",
        ),
        ("ip route del default".to_owned(), format!("ip route add default via {gateway}"), "default route"),
        (
            format!("ip addr del {at} dev eth0"),
            format!("ip addr add {at} dev eth0; ip route add default via {gateway}"),
            "address",
        ),
        (
            "ip link set eth0 address 02:00:00:00:00:99".to_owned(),
            format!("ip link set eth0 address {}", result["interfaces"][1]["mac"].as_str().unwrap()),
            "mac",
        ),
    ] {
        plugin.check("c1", &result).result();
        host.space.run(&format!("ip netns exec c1 sh -c '{harm}'"));
        let (code, message) = plugin.check("c1", &result).failure();
        assert!(code == 105 && message.contains(part), "{harm}: {code} {message}");
        host.space.run(&format!("ip netns exec c1 sh -c '{mend}'"));
    }
    assert_eq!(plugin.verb("CHECK", ("c1", "eth0"), &json!({})).failure().0, 7, "without prevResult");
    plugin.del("c1").result();
    assert_eq!(plugin.check("c1", &result).failure().0, 105);
}

#[tokio::test]
async fn check_finds_what_was_changed_on_the_host() {
    let host = Host::with(&format!("{PLACES}; ip netns add c1; ip netns add c2")).await;
    let network = host.net_create("my-bridge").await;
    let plugin = Plugin::davit(&host, "1.1.0", json!({"network": "my-bridge"}));
    let result = plugin.add("c1").result();
    let other = plugin.add("c2").result();
    let end = result["interfaces"][0]["name"].as_str().unwrap();
    let (bridge, gateway) = (&network.interface, format!("{}/16", network.subnets[0].gateway));
    for (harm, mend, part) in [
        (format!("ip link set {end} down"), format!("ip link set {end} up"), "down"),
        (
            format!("ip link set {end} nomaster"),
            format!("ip link set {end} master {bridge}"),
            bridge.as_str(),
        ),
        (format!("ip link set {bridge} down"), format!("ip link set {bridge} up"), bridge.as_str()),
        (
            format!("ip addr del {gateway} dev {bridge}"),
            format!("ip addr add {gateway} dev {bridge}"),
            network.subnets[0].gateway.as_str(),
        ),
        (
            "sysctl -qw net.ipv4.ip_forward=0".to_owned(),
            "sysctl -qw net.ipv4.ip_forward=1".to_owned(),
            "ip_forward",
        ),
    ] {
        plugin.check("c1", &result).result();
        host.space.run(&harm);
        let (code, message) = plugin.check("c1", &result).failure();
        assert!(code == 105 && message.contains(part), "{harm}: {code} {message}");
        if harm.contains(end) {
            // The other container has nothing to do with it.
            plugin.check("c2", &other).result();
        }
        host.space.run(&mend);
    }
}

#[tokio::test]
async fn check_finds_what_a_result_says_and_is_not_so() {
    let host =
        Host::with(&format!("{PLACES}; ip netns add c1; ip netns add c2; ln -s /run/netns /run/n")).await;
    host.net_create("my-bridge").await;
    let plugin = Plugin::davit(&host, "1.1.0", json!({"network": "my-bridge"}));
    let result = plugin.add("c1").result();
    let with = |pointer: &str, value: Value| {
        let mut result = result.clone();
        *result.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
        result
    };
    for (changed, part) in [
        (with("/interfaces/0/name", "dvh0".into()), "dvh"),
        (with("/interfaces/0/mac", "02:00:00:00:00:01".into()), "mac"),
        (with("/interfaces/0/mtu", 1300.into()), "MTU"),
        (with("/interfaces/1/mtu", 1300.into()), "MTU"),
        (with("/interfaces/1/mac", "02:00:00:00:00:01".into()), "mac"),
        (with("/interfaces/1/sandbox", "/run/netns/c2".into()), "c2"),
        (with("/interfaces/1/sandbox", "/run/netns/gone".into()), "gone"),
        (with("/ips/0/address", "10.1.1.1/24".into()), "10.1.1.1"),
        (with("/ips/0/gateway", "10.1.1.1".into()), "10.1.1.1"),
        (with("/routes/0/gw", "10.1.1.1".into()), "10.1.1.1"),
        (with("/routes/0/dst", "10.1.1.0/24".into()), "10.1.1.0/24"),
        (with("/routes", json!([result["routes"][0], {"dst": "10.1.1.0/24"}])), "10.1.1.0/24"),
    ] {
        let (code, message) = plugin.check("c1", &changed).failure();
        assert!(code == 105 && message.contains(part), "{changed}: {code} {message}");
    }
    // One namespace, by another path.
    plugin.check("c1", &with("/interfaces/1/sandbox", "/run/n/c1".into())).result();
    assert_eq!(plugin.check("c1", &with("/ips/0/address", "x".into())).failure().0, 7);
    assert_eq!(plugin.check("c1", &with("/routes/0/dst", "x".into())).failure().0, 7);
}

#[tokio::test]
async fn on_macvlan_there_is_no_end_on_the_host() {
    let host = Host::with(&format!("{PLACES}; ip netns add c1")).await;
    let config = json!({"driver": "macvlan", "parent": "uplink", "subnets": ["10.99.0.0/24"]});
    let plugin = Plugin::davit(&host, "1.1.0", config);
    let result = plugin.add("c1").result();
    assert_eq!(result["interfaces"].as_array().unwrap().len(), 1, "{result}");
    assert_eq!(result["interfaces"][0]["mtu"], 1400);
    plugin.check("c1", &result).result();
    host.space.run("ip netns exec c1 ip link set eth0 mtu 1300");
    assert_eq!(plugin.check("c1", &result).failure().0, 105);
    plugin.del("c1").result();
}
