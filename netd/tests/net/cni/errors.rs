//! What is refused, with which code, and that nothing has changed afterwards.

use serde_json::json;

use super::call::{PLACES, Plugin};
use crate::host::Host;

#[tokio::test]
async fn bad_calls_have_their_code_and_change_nothing() {
    let host = Host::with(&format!("{PLACES}; ip netns add c1; touch /run/file; mkfifo /run/pipe")).await;
    host.net_create("my-bridge").await;
    let plugin = Plugin::davit(&host, "1.1.0", json!({"network": "my-bridge"}));
    let config = plugin.config.to_string();
    let good = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/c1"),
        ("CNI_IFNAME", "eth0"),
    ];
    let before = (host.traces(), host.space.run("ip netns exec c1 ip -o addr | grep -v ' lo ' || true"));
    for (name, value, code) in [
        ("CNI_COMMAND", "", 4),
        ("CNI_COMMAND", "CREATE", 4),
        ("CNI_CONTAINERID", "../x", 4),
        ("CNI_IFNAME", "a/b", 4),
        ("CNI_IFNAME", "lo", 7),
        ("CNI_NETNS", "", 4),
        ("CNI_NETNS", "/run/netns/gone", 3),
        ("CNI_NETNS", "/run/file", 7),
        ("CNI_NETNS", "/run/pipe", 7),
        ("CNI_NETNS", "/proc/self/ns/mnt", 7),
        ("CNI_NETNS", "/proc/self/ns/uts", 7),
        ("CNI_ARGS", "FOO=bar", 4),
    ] {
        let mut environment: Vec<_> = good.iter().copied().filter(|(n, _)| *n != name).collect();
        environment.push((name, value));
        let (got, message) = plugin.call(&environment, config.as_bytes()).failure();
        assert_eq!(got, code, "{name}={value}: {message}");
    }
    // The host's own namespace is nobody's sandbox.
    let host_netns = format!("/proc/{}/ns/net", host.space.pid());
    let environment = [good[0], good[1], ("CNI_NETNS", host_netns.as_str()), good[3]];
    assert_eq!(plugin.call(&environment, config.as_bytes()).failure().0, 3);
    for (more, code, part) in [
        (json!({"network": "my-brige"}), 7, "my-brige"),
        (json!({"subnetz": []}), 2, "subnetz"),
        (json!({"ipam": {"type": "host-local"}}), 2, "host-local"),
        (json!({"cniVersion": "3.0.0"}), 1, "3.0.0"),
        (json!({"runtimeConfig": {"ips": ["10.1.1.1"]}}), 7, "10.1.1.1"),
        (json!({"subnets": ["10.90.0.0/24"]}), 7, "subnet"),
        (json!({"network": "new", "subnets": ["10.99.0.0/24"]}), 7, "10.99.0.0"),
        (json!({"network": "new", "driver": "weird"}), 7, "weird"),
        (json!({"network": "new", "options": {"com.docker.network.driver.mtuu": "1"}}), 7, "mtuu"),
    ] {
        let (got, message) = plugin.verb("ADD", ("c1", "eth0"), &more).failure();
        assert!(got == code && message.contains(part), "{more}: {got} {message}");
    }
    for garbage in [&b""[..], b"{", b"[1]", b"\xff\xfe", &vec![b'['; 2 << 20]] {
        assert_eq!(plugin.call(&good, garbage).failure().0, 6);
    }
    // Endpoints that were attached and refused afterwards are swept behind the answer.
    host.eventually("nothing has changed", || {
        (host.traces(), host.space.run("ip netns exec c1 ip -o addr | grep -v ' lo ' || true")) == before
    })
    .await;
}

#[tokio::test]
async fn an_interface_that_is_there_and_a_port_that_is_taken_are_refused() {
    let host = Host::with(&format!("{PLACES}; ip netns add c1; ip netns add c2")).await;
    host.net_create("my-bridge").await;
    let plugin = Plugin::davit(&host, "1.0.0", json!({"network": "my-bridge"}));
    host.space.run("ip netns exec c1 ip link add eth0 type veth peer name other");
    let (code, message) = plugin.add("c1").failure();
    assert!(code == 4 && message.contains("CNI_IFNAME") && message.contains("eth0"), "{code} {message}");
    assert!(host.space.run("ip netns exec c1 ip -o link").contains("eth0@other"), "it is whose it was");
    // Ours that was added is told as before, and a failure of another kind is not blamed on an interface.
    plugin.verb("ADD", ("c2", "eth0"), &json!({})).result();
    assert_eq!(plugin.add("c2").failure().0, 101);
    let taken = host.inspect("my-bridge").await.endpoints[0].ip.split('/').next().unwrap().to_owned();
    let same = json!({"runtimeConfig": {"ips": [taken]}});
    let (code, message) = plugin.verb("ADD", ("c1", "eth7"), &same).failure();
    assert!(code == 102 && message.contains(&taken), "{code} {message}");
    plugin.del("c2").result();
    let ports = json!({"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}});
    plugin.verb("ADD", ("c1", "eth1"), &ports).result();
    let (code, message) = plugin.verb("ADD", ("c2", "eth0"), &ports).failure();
    assert!(code == 102 && message.contains("8080"), "{code} {message}");
    assert_eq!(host.inspect("my-bridge").await.endpoints.len(), 1);
}

#[tokio::test]
async fn without_netd_it_is_said_to_try_again() {
    let mut host = Host::with(&format!("{PLACES}; ip netns add c1")).await;
    host.net_create("my-bridge").await;
    host.stop();
    let plugin = Plugin::davit(&host, "1.1.0", json!({"network": "my-bridge"}));
    for verb in ["ADD", "DEL"] {
        assert_eq!(plugin.verb(verb, ("c1", "eth0"), &json!({})).failure().0, 11, "{verb}");
    }
    assert_eq!(plugin.gc(&[]).failure().0, 11);
    assert_eq!(plugin.status().failure().0, 50);
    let with_names = Plugin::davit(&host, "1.1.0", json!({"network": "my-bridge", "resolver": true}));
    assert_eq!(with_names.status().failure().0, 51);
    host.start().await;
    let plugin = Plugin::davit(&host, "1.1.0", json!({"network": "my-bridge"}));
    plugin.status().result();
    let absent = Plugin::davit(&host, "1.1.0", json!({"network": "absent"}));
    assert_eq!(absent.status().failure().0, 50);
    let mut list = plugin.config.clone();
    list["cniVersion"] = "1.1.0".into();
    let no_list = plugin.call(&[("CNI_COMMAND", "GC")], list.to_string().as_bytes());
    assert_eq!(no_list.failure().0, 7);
}

#[tokio::test]
async fn check_finds_what_was_changed() {
    let host = Host::with(&format!("{PLACES}; ip netns add c1")).await;
    host.net_create("my-bridge").await;
    let plugin = Plugin::davit(&host, "1.0.0", json!({"network": "my-bridge"}));
    let result = plugin.add("c1").result();
    let at = result["ips"][0]["address"].as_str().unwrap();
    let gateway = result["ips"][0]["gateway"].as_str().unwrap();
    for (harm, mend, part) in [
        (
            "ip link set eth0 down".to_owned(),
            format!("ip link set eth0 up; ip route add default via {gateway}"),
            "down",
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
