//! Results: what ADD answers and CHECK is given, in the shape of each version (specification, section 5, "Success").
//!
//! A result of plugins that came before in a chain is passed on as it is, with ours appended; nothing of it is lost,
//! also what we do not know.

use davit_contracts::network::{AttachResponse, Endpoint};
use serde_json::{Map, Value, json};

use crate::config::dns::Dns;
use crate::failure::{Code, Failure};
use crate::version::Version;

/// A result as it is printed.
pub type Object = Map<String, Value>;

/// Interfaces of the host and what they have in the sandbox, of one attachment.
#[derive(Debug, Clone)]
pub struct Made<'a> {
    /// What netd answered.
    pub endpoint: &'a Endpoint,
    /// `CNI_NETNS`.
    pub netns: &'a str,
    /// What the configuration and netd say of names.
    pub dns: &'a Dns,
}

/// The result of an ADD, after `before`.
pub fn render(version: Version, before: Option<&Object>, made: &Made<'_>) -> Object {
    let mut result = before.cloned().unwrap_or_default();
    result.insert("cniVersion".into(), version.name().into());
    let interfaces = list(&mut result, "interfaces");
    let Made { endpoint, netns, .. } = made;
    let mtu = Some(endpoint.mtu).filter(|mtu| *mtu > 0);
    if !endpoint.host_interface.is_empty() {
        interfaces.push(interface(version, &endpoint.host_interface, &endpoint.host_mac, None, mtu));
    }
    let inside = interfaces.len();
    interfaces.push(interface(version, &endpoint.interface, &endpoint.mac, Some(netns), mtu));
    let both = [
        (&endpoint.ip, &endpoint.gateway, "4", "0.0.0.0/0"),
        (&endpoint.ip6, &endpoint.gateway6, "6", "::/0"),
    ];
    for (address, gateway, family, everywhere) in both {
        if address.is_empty() {
            continue;
        }
        let mut ip = json!({"address": address, "interface": inside});
        if version < Version::V1_0_0 {
            ip["version"] = family.into();
        }
        if !gateway.is_empty() {
            ip["gateway"] = gateway.clone().into();
        }
        // One that was there before stays the only one.
        if endpoint.default_routes.iter().any(|route| route == everywhere) {
            list(&mut result, "routes").push(route(everywhere, gateway));
        }
        list(&mut result, "ips").push(ip);
    }
    if !made.dns.is_empty() || !result.contains_key("dns") {
        result.insert("dns".into(), made.dns.json());
    }
    result
}

/// Without a gateway the interface itself routes.
fn route(everywhere: &str, gateway: &str) -> Value {
    if gateway.is_empty() { json!({"dst": everywhere}) } else { json!({"dst": everywhere, "gw": gateway}) }
}

fn interface(version: Version, name: &str, mac: &str, sandbox: Option<&str>, mtu: Option<u32>) -> Value {
    let mut object = json!({"name": name});
    if !mac.is_empty() {
        object["mac"] = mac.into();
    }
    if let Some(sandbox) = sandbox {
        object["sandbox"] = sandbox.into();
    }
    if let Some(mtu) = mtu.filter(|_| version >= Version::V1_1_0) {
        object["mtu"] = mtu.into();
    }
    object
}

/// The list of that name; what is no list gives way to one.
fn list<'a>(object: &'a mut Object, name: &str) -> &'a mut Vec<Value> {
    let place = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
    if !place.is_array() {
        *place = Value::Array(Vec::new());
    }
    place.as_array_mut().expect("it was made one")
}

/// The one endpoint of an attachment.
pub fn endpoint_of(answer: &AttachResponse) -> Result<&Endpoint, Failure> {
    answer.endpoints.first().ok_or_else(|| Failure::new(Code::Netd, "netd answered without an endpoint"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expected::Expected;
    use proptest::prelude::*;

    fn endpoint() -> Endpoint {
        Endpoint {
            interface: "eth0".into(),
            host_interface: "dvh0".into(),
            mac: "02:da:0a:59:00:02".into(),
            ip: "10.89.0.2/24".into(),
            gateway: "10.89.0.1".into(),
            ip6: "fd00::2/64".into(),
            default_routes: vec!["0.0.0.0/0".into()],
            mtu: 1400,
            host_mac: "6e:00:00:00:00:01".into(),
            ..Default::default()
        }
    }

    fn made<'a>(endpoint: &'a Endpoint, dns: &'a Dns) -> Made<'a> {
        Made { endpoint, netns: "/run/netns/x", dns }
    }

    #[test]
    fn each_version_has_its_shape() {
        let (endpoint, dns) = (endpoint(), Dns::default());
        let at = |v| Value::Object(render(v, None, &made(&endpoint, &dns)));
        assert_eq!(
            at(Version::V1_1_0),
            json!({
                "cniVersion": "1.1.0",
                "interfaces": [
                    {"name": "dvh0", "mac": "6e:00:00:00:00:01", "mtu": 1400},
                    {"name": "eth0", "mac": "02:da:0a:59:00:02", "sandbox": "/run/netns/x", "mtu": 1400},
                ],
                "ips": [
                    {"address": "10.89.0.2/24", "gateway": "10.89.0.1", "interface": 1},
                    {"address": "fd00::2/64", "interface": 1},
                ],
                "routes": [{"dst": "0.0.0.0/0", "gw": "10.89.0.1"}],
                "dns": {},
            })
        );
        let old = at(Version::V0_4_0);
        assert_eq!((&old["ips"][0]["version"], &old["ips"][1]["version"]), (&json!("4"), &json!("6")));
        assert_eq!(old["interfaces"][1].get("mtu"), None);
        assert_eq!(at(Version::V1_0_0)["ips"][0].get("version"), None);
        // Another network's default route was there before.
        let second = Endpoint { default_routes: Vec::new(), ..endpoint };
        let result = render(Version::V1_1_0, None, &made(&second, &dns));
        assert_eq!((result.get("routes"), &result["ips"][0]["gateway"]), (None, &json!("10.89.0.1")));
    }

    #[test]
    fn a_result_of_others_is_passed_on_with_ours_behind_it() {
        let (endpoint, dns) = (endpoint(), Dns::default());
        let before = json!({
            "cniVersion": "1.0.0", "interfaces": [{"name": "net0", "sandbox": "/x", "new": 1}],
            "ips": [{"address": "10.1.0.2/24", "interface": 0}], "dns": {"nameservers": ["10.1.0.1"]}, "other": true
        });
        let result = Value::Object(render(Version::V1_0_0, before.as_object(), &made(&endpoint, &dns)));
        assert_eq!(result["interfaces"][0], before["interfaces"][0]);
        assert_eq!(result["ips"][1]["interface"], 2);
        assert_eq!((&result["dns"], &result["other"]), (&before["dns"], &before["other"]));
        let found = Expected::of(result.as_object().unwrap(), "eth0").unwrap();
        assert_eq!(
            found.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.89.0.2/24", "fd00::2/64"]
        );
        assert_eq!(found.routes.len(), 1);
        assert_eq!(found.outside[0].name, "dvh0");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z0-9./:]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let key = "name|sandbox|ips|interfaces|address|interface|gateway|dns|routes";
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(key, inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_result_of_others_can_be_passed_on(before in any_json()) {
            let (endpoint, dns) = (endpoint(), Dns::default());
            let before = before.as_object().cloned().unwrap_or_default();
            let _ = Expected::of(&before, "eth0");
            let result = render(Version::V1_1_0, Some(&before), &made(&endpoint, &dns));
            let interfaces = result["interfaces"].as_array().unwrap();
            let ours = result["ips"].as_array().unwrap().last().unwrap();
            let at = ours["interface"].as_u64().unwrap() as usize;
            prop_assert_eq!(&interfaces[at]["name"], "eth0");
        }
    }
}
