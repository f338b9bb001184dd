use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(value: &Value) -> Result<Config, Failure> {
    Config::parse(value.to_string().as_bytes(), Verb::Add)
}

fn with(more: &Value) -> Value {
    let mut config = json!({"cniVersion": "1.1.0", "name": "web", "type": "davit-cni"});
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

#[test]
fn a_named_network_has_to_be_there_and_any_other_is_made() {
    let named = parse(&with(&json!({"network": "my-bridge"}))).unwrap();
    assert_eq!((named.network.as_str(), named.wanted), ("my-bridge", None));
    let plain = parse(&with(&json!({}))).unwrap();
    assert!(plain.network == "web" && plain.wanted.is_some());
    let both = parse(&with(&json!({"network": "other", "subnets": ["10.90.0.0/24"]}))).unwrap();
    assert_eq!(both.network, "other");
    let wanted = both.wanted.unwrap();
    assert_eq!(wanted.subnets().map(|s| s.to_string()).collect::<Vec<_>>(), ["10.90.0.0/24"]);
}

#[test]
fn host_bits_are_a_mistake() {
    for field in [json!({"subnets": ["10.90.0.7/24"]}), json!({"ranges": [[{"subnet": "10.90.0.7/24"}]]})] {
        let failure = parse(&with(&field)).unwrap_err();
        assert_eq!(failure.code, Code::Config);
        assert!(
            failure.message.ends_with("invalid subnet 10.90.0.7/24: it should be 10.90.0.0/24"),
            "{failure:?}"
        );
    }
}

#[test]
fn the_fields_of_a_network_become_dockers() {
    let config = parse(&with(&json!({
        "driver": "macvlan", "parent": "eth0", "mtu": 1400, "ipMasq": false, "internal": true, "ipv6": true,
        "subnets": [{"subnet": "10.90.0.0/24", "gateway": "10.90.0.254", "auxAddresses": {"printer": "10.90.0.9"}}],
        "ranges": [[{"subnet": "fd00:1::/64", "rangeStart": "fd00:1::100", "rangeEnd": "fd00:1::1ff"}]],
        "labels": {"a": "b"}
    })))
    .unwrap();
    let request = config.wanted.unwrap().request("n", &[], [("x".into(), "y".into())]);
    assert_eq!(request.driver, "macvlan");
    assert!(request.internal && request.ipv6);
    assert_eq!(request.options["com.docker.network.driver.mtu"], "1400");
    assert_eq!(request.options["parent"], "eth0");
    assert_eq!(request.options["com.docker.network.bridge.enable_ip_masquerade"], "false");
    assert_eq!(request.subnets[0].gateway, "10.90.0.254");
    assert_eq!(request.subnets[0].aux_addresses["printer"], "10.90.0.9");
    assert_eq!(request.subnets[1].ip_range, "fd00:1::100/120");
    assert_eq!((request.labels["a"].as_str(), request.labels["x"].as_str()), ("b", "y"));
}

#[test]
fn what_a_caller_gives_for_one_call_is_understood() {
    let config = parse(&with(&json!({
        "runtimeConfig": {
            "portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": "0.0.0.0"},
                {"hostPort": 0, "containerPort": 81, "protocol": "udp"}
            ],
            "ips": ["10.90.0.5/24", "fd00::5"], "mac": "02:00:00:00:00:01",
            "bandwidth": {"ingressRate": 1_000_000, "ingressBurst": 80_000},
            "aliases": {"web": ["a"], "other": ["b"]},
            "dns": {"servers": ["9.9.9.9"], "searches": ["x.test"]}
        },
        "args": {"cni": {"labels": [{"key": "k", "value": "v"}]}, "theirs": [1, 2]},
        "dns": {"nameservers": ["1.1.1.1"], "domain": "d.test"}
    })))
    .unwrap();
    let runtime = &config.runtime;
    assert_eq!(runtime.ports.len(), 1);
    assert_eq!((runtime.ports[0].protocol.as_str(), runtime.ports[0].host_ip.as_str()), ("tcp", ""));
    assert_eq!(runtime.ips.len(), 2);
    assert_eq!(runtime.bandwidth.unwrap().ingress_burst, 10_000);
    assert_eq!((&runtime.aliases, runtime.labels["k"].as_str()), (&vec!["a".to_owned()], "v"));
    assert_eq!(config.dns.nameservers, ["9.9.9.9"]);
    assert_eq!(config.dns.domain, "d.test");
}

#[test]
fn what_is_wrong_is_named_with_its_code() {
    for (more, code, part) in [
        (json!({"subnetz": ["10.0.0.0/8"]}), 2, "subnetz"),
        (json!({"ipam": {"type": "host-local"}}), 2, "ipam"),
        (json!({"mtu": "big"}), 7, "mtu"),
        (json!({"subnets": ["10.0.0.0"]}), 7, "10.0.0.0"),
        (json!({"subnets": [{"subnet": "10.0.0.0/8", "gatway": "10.0.0.1"}]}), 7, "subnets"),
        (json!({"ranges": [[{"subnet": "10.0.0.0/8", "rangeStart": "10.0.0.3"}]]}), 7, "10.0.0.3"),
        (json!({"ranges": [[{"subnet": "10.0.0.0/8", "rangeStart": "fe80::1"}]]}), 7, "fe80::1"),
        (json!({"ranges": [[]]}), 7, "ranges"),
        (json!({"socket": "netd.sock"}), 7, "netd.sock"),
        (json!({"name": "a/b"}), 7, "a/b"),
        (json!({"name": null}), 7, "name"),
        (json!({"cniVersion": "9.0.0"}), 1, "9.0.0"),
        (json!({"runtimeConfig": {"ips": ["x"]}}), 7, "ips"),
        (json!({"runtimeConfig": {"ips": ["10.0.0.5", "fd00::5", "10.0.0.6"]}}), 7, "10.0.0.6"),
        (
            json!({"runtimeConfig": {"portMappings": [{"hostPort": 70000, "containerPort": 1}]}}),
            7,
            "portMappings",
        ),
    ] {
        let failure = parse(&with(&more)).unwrap_err();
        assert_eq!(failure.code.number(), code, "{more}: {failure:?}");
        assert!(failure.message.contains(part), "{more}: {failure:?}");
    }
    let failure = parse(&with(&json!({"subnetz": 1}))).unwrap_err();
    assert_eq!(failure.details, "did you mean 'subnets'?");
    assert_eq!(Config::parse(b"{", Verb::Add).unwrap_err().code, Code::Decode);
    assert_eq!(Config::parse(b"[]", Verb::Add).unwrap_err().code, Code::Decode);
    assert_eq!(Config::parse(&vec![b' '; (1 << 20) + 1], Verb::Add).unwrap_err().code, Code::Decode);
}

#[test]
fn verbs_need_their_versions_and_removing_overlooks_what_it_does_not_need() {
    let at = |version: &str, verb| {
        Config::parse(with(&json!({"cniVersion": version})).to_string().as_bytes(), verb)
    };
    assert!(at("0.3.1", Verb::Add).is_ok());
    assert_eq!(at("0.3.1", Verb::Check).unwrap_err().code, Code::Version);
    assert_eq!(at("1.0.0", Verb::Gc).unwrap_err().code, Code::Version);
    assert!(at("0.4.0", Verb::Check).is_ok() && at("1.1.0", Verb::Status).is_ok());
    let mut odd = with(&json!({
        "new-field": 1, "subnets": 7, "runtimeConfig": {"ips": 1}, "dns": 5, "resolver": "yes", "removeUnused": "x",
        "prevResult": [], "network": 5
    }));
    for verb in [Verb::Del, Verb::Gc] {
        assert!(Config::parse(odd.to_string().as_bytes(), verb).is_ok(), "{verb:?}");
    }
    // Where netd is they need to know.
    odd["socket"] = 5.into();
    assert_eq!(Config::parse(odd.to_string().as_bytes(), Verb::Del).unwrap_err().code, Code::Config);
}

#[test]
fn attachments_that_are_to_stay_are_read_under_both_names() {
    let list = json!([{"containerID": "c", "ifname": "eth0"}]);
    for name in VALID {
        let mut config = with(&json!({}));
        config[name] = list.clone();
        let config = Config::parse(config.to_string().as_bytes(), Verb::Gc).unwrap();
        assert_eq!(config.valid.unwrap(), [("c".to_owned(), "eth0".to_owned())]);
    }
    let gc = |config: &Value| Config::parse(config.to_string().as_bytes(), Verb::Gc).unwrap().valid;
    assert_eq!(gc(&with(&json!({}))), None);
    for name in VALID {
        let mut config = with(&json!({}));
        config[name] = Value::Null;
        assert_eq!(gc(&config), Some(Vec::new()), "{name}");
    }
}

/// Values of any shape under the names that mean something.
fn any_config() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop_oneof!["[ -~]{0,20}", "10\\.[0-9]{1,3}\\.0\\.0/[0-9]{1,2}", "fd00::[0-9a-f]{1,4}(/[0-9]{1,3})?"]
            .prop_map(Value::from),
    ];
    let names = "subnets|ranges|subnet|rangeStart|rangeEnd|gateway|runtimeConfig|portMappings|hostPort|containerPort\
        |ips|aliases|dns|servers|bandwidth|args|cni|labels|ipRanges|prevResult|mtu|options|network|socket|cni.dev/valid-attachments";
    leaf.prop_recursive(4, 40, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map(names, inner, 0..5)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Config::parse(&bytes, Verb::Add);
        let _ = Config::version_of(&bytes);
    }

    #[test]
    fn no_configuration_makes_it_panic_and_errors_have_a_line(more in any_config()) {
        let more = if more.is_object() { more } else { json!({}) };
        for verb in [Verb::Add, Verb::Del, Verb::Gc, Verb::Check] {
            if let Err(failure) = Config::parse(with(&more).to_string().as_bytes(), verb) {
                prop_assert!(!failure.message.is_empty() && !failure.message.contains('\n'));
            }
        }
    }
}
