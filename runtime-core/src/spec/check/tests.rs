use super::*;
use davit_contracts::runtime::{LogConfig, Namespaces, NetworkSpec, RestartPolicy};

fn host() -> Host {
    Host::of_tests()
}

fn base() -> ContainerSpec {
    ContainerSpec { image: "busybox".into(), ..ContainerSpec::default() }
}

fn networked(n: NetworkSpec) -> ContainerSpec {
    ContainerSpec { network: Some(n), ..base() }
}

fn endpoint(network: &str) -> EndpointSpec {
    EndpointSpec { network: network.into(), ..EndpointSpec::default() }
}

#[test]
fn network_modes() {
    assert_eq!(network(&base()).unwrap(), Network::Endpoints(vec![endpoint("bridge")]));
    let mode =
        |m: &str| network(&networked(NetworkSpec { mode: m.into(), ..NetworkSpec::default() })).unwrap();
    assert_eq!(mode("none"), Network::None);
    assert_eq!(mode("host"), Network::Host);
    assert_eq!(mode("container:web"), Network::Container("web".into()));
    let n = NetworkSpec {
        mode: "b".into(),
        endpoints: vec![endpoint("a"), EndpointSpec { ip: "10.0.0.9".into(), ..endpoint("b") }],
        mac: "02:00:00:00:00:01".into(),
        ..NetworkSpec::default()
    };
    let Network::Endpoints(list) = network(&networked(n)).unwrap() else { panic!() };
    assert_eq!(
        (list[0].network.as_str(), list[0].ip.as_str(), list[1].network.as_str()),
        ("b", "10.0.0.9", "a")
    );
    assert!(!list[0].mac.is_empty() && list[1].mac.is_empty());
    let mixed = NetworkSpec { mode: "none".into(), endpoints: vec![endpoint("a")], ..NetworkSpec::default() };
    assert!(network(&networked(mixed)).is_err());
}

#[test]
fn ports_are_checked_and_exposed_ones_added() {
    let port =
        |host_port, container_port| PortMapping { host_port, container_port, ..PortMapping::default() };
    let with = |p| networked(NetworkSpec { ports: vec![p], publish_all: true, ..NetworkSpec::default() });
    assert!(network(&with(port(70_000, 80))).is_err());
    assert!(network(&with(port(80, 0))).is_err());
    let image = ImageConfig {
        exposed_ports: vec!["80/tcp".into(), "53/udp".into(), "x".into()],
        ..ImageConfig::default()
    };
    let published = |spec: &ContainerSpec| -> Vec<_> {
        ports(spec, &image).into_iter().map(|p| (p.host_port, p.container_port, p.protocol)).collect()
    };
    let mut s = with(port(8080, 80));
    assert_eq!(published(&s), [(8080, 80, "tcp".into()), (0, 53, "udp".into())]);
    assert_eq!(exposed_ports(&s, &image), ["53/udp", "80/tcp"]);
    let asked = s.network.as_mut().unwrap();
    asked.exposed = ["90", "80/tcp", "53/udp", "7/SCTP"].map(str::to_owned).to_vec();
    let expected =
        [(8080, 80, "tcp".into()), (0, 7, "sctp".into()), (0, 53, "udp".into()), (0, 90, "tcp".into())];
    assert_eq!(published(&s), expected);
    assert_eq!(exposed_ports(&s, &image), ["7/sctp", "53/udp", "80/tcp", "90/tcp"]);
    let asked = s.network.as_mut().unwrap();
    asked.publish_all = false;
    assert_eq!(published(&s), [(8080, 80, "tcp".into())]);
    for bad in ["0", "65536", "80/x", "80-90", ""] {
        s.network.as_mut().unwrap().exposed = vec![bad.into()];
        assert!(network(&s).is_err(), "{bad}");
    }
    let shared = NetworkSpec {
        mode: "container:web".into(),
        exposed: vec!["80/tcp".into()],
        ..NetworkSpec::default()
    };
    let e = network(&ContainerSpec { network: Some(shared), ..base() }).unwrap_err().to_string();
    assert!(e.contains("port exposing"), "{e}");
}

#[test]
fn impossible_specs_are_refused_in_one_line() {
    let bad = |change: fn(&mut ContainerSpec)| {
        let mut s = base();
        change(&mut s);
        let e = spec(&s, &host()).unwrap_err().to_string();
        assert!(!e.contains('\n'), "{e}");
        e
    };
    bad(|s| s.image.clear());
    bad(|s| s.stop_signal = "NOPE".into());
    bad(|s| s.hostname = "a b".into());
    bad(|s| s.namespaces = Some(Namespaces { pid: "nowhere".into(), ..Namespaces::default() }));
    bad(|s| s.restart = Some(RestartPolicy { name: "sometimes".into(), max_retries: 0 }));
    bad(|s| s.log = Some(LogConfig { driver: "syslog".into(), ..LogConfig::default() }));
    bad(|s| s.extra_hosts.push("x".into()));
    let mount = MountSpec {
        r#type: "bind".into(),
        source: "/nonexistent/x".into(),
        target: "/x".into(),
        ..MountSpec::default()
    };
    let mut s = base();
    s.mounts.push(mount.clone());
    assert!(
        spec(&s, &host())
            .unwrap_err()
            .to_string()
            .contains("bind source path does not exist: /nonexistent/x")
    );
    s.mounts[0].create_source = true;
    spec(&s, &host()).unwrap();
    s.mounts.push(MountSpec { target: "/x/".into(), ..s.mounts[0].clone() });
    assert!(spec(&s, &host()).unwrap_err().to_string().contains("duplicate mount point"));
}

#[test]
fn nothing_that_is_written_into_files_of_lines_ends_one() {
    let host = host();
    let ok = |s: &ContainerSpec| spec(s, &host).is_ok();
    let hosts = |entry: &str| ContainerSpec { extra_hosts: vec![entry.into()], ..base() };
    for good in ["db:10.0.0.1", "db=[fd00::1]", "v:::1", "h:host-gateway"] {
        assert!(ok(&hosts(good)), "{good}");
    }
    for bad in
        ["a\n10.0.0.9 b:10.0.0.1", "a b:10.0.0.1", "a:10.0.0.1\n", "a\r:10.0.0.1", "a:x", "#a:10.0.0.1"]
    {
        assert!(!ok(&hosts(bad)), "{bad:?}");
    }
    let search =
        |text: &str| networked(NetworkSpec { dns_search: vec![text.into()], ..NetworkSpec::default() });
    let option =
        |text: &str| networked(NetworkSpec { dns_options: vec![text.into()], ..NetworkSpec::default() });
    let server = |text: &str| networked(NetworkSpec { dns: vec![text.into()], ..NetworkSpec::default() });
    assert!(ok(&search(".")) && ok(&option("ndots:2")) && ok(&server("fd00::1")));
    assert!(ok(&server("127.0.0.1")) && ok(&server("fe80::1%eth0")));
    assert!(!ok(&search("a\nb")) && !ok(&option("a b")) && !ok(&server("10.0.0.1\nsearch x")));
    for bad in ["127.0.0.11", "0.0.0.0", "224.0.0.1", "fe80::1", "fe80::1%a b"] {
        let e = spec(&server(bad), &host).unwrap_err().to_string();
        assert!(e.contains("DNS server") && e.contains(bad), "{e}");
    }
    assert!(!ok(&ContainerSpec { domainname: "lan\n10.0.0.9 b".into(), ..base() }));
    assert!(!ok(&ContainerSpec { hostname: "web\nx".into(), ..base() }));
}
