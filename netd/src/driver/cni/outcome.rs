//! What a chain of plugins answered, as an endpoint's record shows it (specification, section 5, "Success").

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::Object;
use crate::netlink::route::Mac;

/// What a container got on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Of its interface.
    pub mac: Option<Mac>,
    /// The first IPv4 address, and the way out.
    pub v4: Option<(IpNet, Option<IpAddr>)>,
    /// The first IPv6 address, and the way out.
    pub v6: Option<(IpNet, Option<IpAddr>)>,
}

/// Reads a result. Results may lack all of it: plugins need not tell.
pub fn read(result: &Object, interface: &str) -> Outcome {
    let array = |name: &str| result.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let inside = array("interfaces")
        .iter()
        .position(|i| text(i, "name") == interface && !text(i, "sandbox").is_empty());
    let mac = inside.and_then(|at| text(&array("interfaces")[at], "mac").parse().ok());
    let mut outcome = Outcome { mac, ..Outcome::default() };
    for ip in array("ips") {
        // An address without an interface is the container's; one of another interface is not.
        let of = ip.get("interface").and_then(Value::as_u64);
        if of.is_some() && of != inside.map(|at| at as u64) {
            continue;
        }
        let Ok(address) = text(ip, "address").parse::<IpNet>() else { continue };
        let gateway = text(ip, "gateway").parse::<IpAddr>().ok();
        let gateway = gateway.filter(|gateway| gateway.is_ipv4() == address.addr().is_ipv4());
        let place = if address.addr().is_ipv4() { &mut outcome.v4 } else { &mut outcome.v6 };
        place.get_or_insert((address, gateway));
    }
    outcome
}

/// Whether the result has a default route of a family, and its gateway when that is told apart from the address's.
pub fn default_route(result: &Object, ipv4: bool) -> Option<Option<IpAddr>> {
    let routes = result.get("routes").and_then(Value::as_array)?;
    let text = |route: &Value, key: &str| route.get(key).and_then(Value::as_str).map(str::to_owned);
    let leads_out = |route: &&Value| {
        let to: Option<IpNet> = text(route, "dst").and_then(|dst| dst.parse().ok());
        to.is_some_and(|to| to.prefix_len() == 0 && to.addr().is_ipv4() == ipv4)
    };
    let route = routes.iter().find(leads_out)?;
    Some(text(route, "gw").and_then(|gateway| gateway.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_containers_own_interface_counts() {
        let result = json!({
            "interfaces": [{"name": "cni0", "mac": "02:00:00:00:00:01"}, {"name": "eth0"},
                {"name": "eth0", "sandbox": "/x", "mac": "02:00:00:00:00:02"}],
            "ips": [
                {"address": "10.0.0.1/24", "interface": 0},
                {"address": "10.0.0.2/24", "interface": 2, "gateway": "10.0.0.1"},
                {"address": "10.0.0.3/24", "interface": 2},
                {"address": "fd00::2/64"}
            ]
        });
        let outcome = read(result.as_object().unwrap(), "eth0");
        assert_eq!(outcome.mac, "02:00:00:00:00:02".parse().ok());
        assert_eq!(outcome.v4, Some(("10.0.0.2/24".parse().unwrap(), "10.0.0.1".parse().ok())));
        assert_eq!(outcome.v6, Some(("fd00::2/64".parse().unwrap(), None)));
        assert_eq!(read(&Object::new(), "eth0"), Outcome::default());
    }

    #[test]
    fn a_default_route_may_name_its_gateway() {
        let of = |routes: Value, ipv4| default_route(json!({ "routes": routes }).as_object().unwrap(), ipv4);
        let both = json!([{"dst": "10.0.0.0/8"}, {"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd00::1"}]);
        assert_eq!(of(both.clone(), true), Some(None));
        assert_eq!(of(both, false), Some("fd00::1".parse().ok()));
        assert_eq!(of(json!([{"dst": "10.0.0.0/8"}, {"gw": 7}, "x"]), true), None);
        assert_eq!(default_route(&Object::new(), true), None);
    }

    proptest! {
        #[test]
        fn no_result_makes_it_panic(address in "[ -~]{0,30}", index in any::<i64>(), name in "[a-z0-9]{0,5}") {
            let result = json!({"interfaces": [{"name": name, "sandbox": address}, index], "ips": [
                {"address": address, "interface": index}, address, {"gateway": index}
            ]});
            let _ = read(result.as_object().unwrap(), "eth0");
        }
    }
}
