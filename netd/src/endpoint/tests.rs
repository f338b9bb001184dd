use super::*;

fn endpoint(interface: &str, gateway: Option<&str>, gateway6: Option<&str>, priority: i32) -> Endpoint {
    Endpoint {
        id: EndpointId::from_random(rand::random()),
        network: NetworkId::from_random(rand::random()),
        interface: interface.into(),
        host_interface: format!("dvh-{interface}"),
        mac: None,
        ip: Some("10.0.0.2/24".parse().unwrap()),
        gateway: gateway.map(|g| g.parse().unwrap()),
        ip6: None,
        gateway6: gateway6.map(|g| g.parse().unwrap()),
        names: Vec::new(),
        links: BTreeMap::new(),
        gateway_priority: priority,
        routed: false,
        bandwidth: None,
        sysctls: Vec::new(),
        foreign: None,
        mtu: None,
        pending: false,
    }
}

fn sandbox(endpoints: Vec<Endpoint>) -> Sandbox {
    Sandbox {
        id: "a".into(),
        name: "a".into(),
        hostname: String::new(),
        holder: Holder::Process { pid: 1, start_time: 1 },
        phase: Phase::Ready,
        sequence: 1,
        endpoints,
        ports: Vec::new(),
        waiting: Vec::new(),
        yielded: Vec::new(),
        dns_servers: Vec::new(),
        dns_search: Vec::new(),
        dns_options: Vec::new(),
        labels: BTreeMap::new(),
        without_resolver: false,
        without_ipv6: false,
        resolver: None,
    }
}

#[test]
fn each_family_has_its_own_way_out() {
    let mut routed = endpoint("eth2", None, None, 9);
    routed.routed = true;
    routed.host_interface.clear();
    let mut all = vec![
        endpoint("eth0", Some("10.0.0.1"), None, 0),
        endpoint("eth1", Some("10.0.0.1"), Some("fd00::1"), -1),
    ];
    let ways = |all: &[Endpoint]| -> Vec<_> {
        sandbox(all.to_vec()).ways().into_iter().map(|w| (w.interface, w.gateway.is_some())).collect()
    };
    assert_eq!(ways(&all), [("eth0".to_owned(), true), ("eth1".to_owned(), true)]);
    all.push(routed);
    assert_eq!(ways(&all), [("eth2".to_owned(), false), ("eth1".to_owned(), true)]);
    // Ports are published where our rules are.
    assert_eq!(sandbox(all).gateway_endpoint().unwrap().interface, "eth0");
}

#[test]
fn the_record_of_an_older_netd_is_read() {
    let mut old = serde_json::to_value(endpoint("eth0", Some("10.0.0.1"), None, 0)).unwrap();
    let fields = old.as_object_mut().unwrap();
    for new in ["routed", "bandwidth", "sysctls"] {
        assert!(fields.remove(new).is_none(), "{new} costs a record that does not need it");
    }
    let read: Endpoint = serde_json::from_value(old).unwrap();
    assert!(!read.routed && read.bandwidth.is_none());
}

#[test]
fn name_servers_are_recorded_as_texts() {
    let texts = ["10.0.0.53", "fd00::53", "fe80::1%eth0", "fe80::1%7"];
    let dns_servers = texts.iter().map(|t| t.parse().unwrap()).collect();
    let sandbox = Sandbox { dns_servers, ..sandbox(Vec::new()) };
    let record = serde_json::to_value(&sandbox).unwrap();
    assert_eq!(record["dns_servers"], serde_json::json!(texts));
    assert_eq!(serde_json::from_value::<Sandbox>(record).unwrap(), sandbox);
}
