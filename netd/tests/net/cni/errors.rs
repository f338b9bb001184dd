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
        ("CNI_IFNAME", "lo", 4),
        ("CNI_IFNAME", "all", 4),
        ("CNI_IFNAME", "eth%d", 4),
        ("CNI_IFNAME", "-x", 4),
        ("CNI_IFNAME", "é", 4),
        ("CNI_NETNS", "", 4),
        ("CNI_NETNS", "/run/netns/gone", 3),
        ("CNI_NETNS", "/run/file", 4),
        ("CNI_NETNS", "/run/pipe", 4),
        ("CNI_NETNS", "/", 4),
        ("CNI_NETNS", "/dev/zero", 4),
        ("CNI_NETNS", "/dev/tty", 4),
        ("CNI_NETNS", "/proc/self/ns/mnt", 4),
        ("CNI_NETNS", "/proc/self/ns/uts", 4),
        ("CNI_ARGS", "FOO=bar", 4),
        ("CNI_ARGS", "IP=foo", 4),
        ("CNI_ARGS", "MAC=foo", 4),
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
        (json!({"network": "host"}), 7, "host"),
        (json!({"network": "none"}), 7, "none"),
        (json!({"runtimeConfig": {"ips": ["10.1.1.1", "10.1.1.2"]}}), 7, "10.1.1.2"),
        (json!({"socket": "/run"}), 7, "/run"),
        (json!({"socket": "/run/file"}), 7, "/run/file"),
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
    let gc = |list: &serde_json::Value| plugin.call(&[("CNI_COMMAND", "GC")], list.to_string().as_bytes());
    assert_eq!(gc(&list).failure().0, 7);
    // Go writes an empty list so.
    list["cni.dev/valid-attachments"] = serde_json::Value::Null;
    plugin.add("c1").result();
    gc(&list).result();
    assert!(host.inspect("my-bridge").await.endpoints.is_empty());
}

#[tokio::test]
async fn a_netd_that_ends_while_it_serves_is_one_to_try_again() {
    let mut host = Host::with(&format!("{PLACES}; ip netns add c1")).await;
    host.net_create("my-bridge").await;
    let plugin = Plugin::davit(&host, "1.1.0", json!({"network": "my-bridge"}));
    host.pause();
    let socket = host.socket().display().to_string();
    // Somebody waits there to be served.
    let waits = || host.space.run(&format!("ss -xlnH src {socket}")).split_whitespace().nth(2) == Some("1");
    let added = std::thread::scope(|scope| {
        let added = scope.spawn(|| plugin.add("c1"));
        let begun = std::time::Instant::now();
        while !waits() {
            assert!(begun.elapsed().as_secs() < 60, "nobody came");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        // What it asks is written right behind; when it is not yet, the answer is the same.
        std::thread::sleep(std::time::Duration::from_millis(200));
        host.end();
        added.join().unwrap()
    });
    let (code, message) = added.failure();
    assert_eq!(code, 11, "{message}");
    host.kill();
}

#[tokio::test]
async fn status_refuses_what_no_add_could_do() {
    let host = Host::with(PLACES).await;
    host.net_create("my-bridge").await;
    for (more, code, part) in [
        (json!({"network": "host"}), 7, "host"),
        (json!({"network": "none"}), 7, "none"),
        (json!({"network": "my-bridge", "subnets": ["10.90.0.0/24"]}), 7, "subnet"),
        (json!({"network": "new", "driver": "macvlan", "parent": "eth9"}), 50, "eth9"),
        (json!({"network": "new", "driver": "macvlan", "parent": "eth9.5"}), 50, "eth9.5"),
        (json!({"network": "my-bridge", "socket": "/run"}), 7, "/run"),
    ] {
        let (got, message) = Plugin::davit(&host, "1.1.0", more.clone()).status().failure();
        assert!(got == code && message.contains(part), "{more}: {got} {message}");
    }
    for parent in ["uplink", "uplink.5"] {
        let more = json!({"network": "new", "driver": "macvlan", "parent": parent});
        Plugin::davit(&host, "1.1.0", more).status().result();
    }
}

#[tokio::test]
async fn an_add_that_fails_leaves_no_network() {
    let host = Host::with(&format!("{PLACES}; ip netns add c1; ip netns add c2")).await;
    let plugin = Plugin::davit(&host, "1.1.0", json!({"subnets": ["10.90.0.0/24"]}));
    let wrong = json!({"runtimeConfig": {"ips": ["10.1.1.1"]}});
    assert_eq!(plugin.verb("ADD", ("c1", "eth0"), &wrong).failure().0, 7);
    let names = || async {
        let all = host.networks().list(davit_contracts::network::ListNetworksRequest::default()).await;
        all.unwrap().into_inner().networks.into_iter().map(|n| n.name).collect::<Vec<_>>()
    };
    assert!(!names().await.contains(&"cluster".to_owned()), "{:?}", names().await);
    // One that is in use, or was there, stays.
    plugin.add("c1").result();
    assert_eq!(plugin.verb("ADD", ("c2", "eth0"), &wrong).failure().0, 7);
    plugin.del("c1").result();
    assert_eq!(plugin.verb("ADD", ("c2", "eth0"), &wrong).failure().0, 7);
    assert!(names().await.contains(&"cluster".to_owned()));
}
