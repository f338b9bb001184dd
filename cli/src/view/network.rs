//! Networks in lists and inspections.

use davit_contracts::network::Network;
use serde_json::{Map, Value, json};

use super::labels;
use crate::output::words;
use crate::parse;

/// docker's columns of `network ls`.
pub const COLUMNS: [(&str, &str); 4] =
    [("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope")];

fn scope(n: &Network) -> &str {
    if n.scope.is_empty() { "local" } else { &n.scope }
}

/// docker's keys.
pub fn row(n: &Network, no_trunc: bool) -> Value {
    json!({
        "ID": if no_trunc { n.id.as_str() } else { words::short(&n.id) },
        "Name": n.name,
        "Driver": n.driver,
        "Scope": scope(n),
        "IPv4": (!n.disable_ipv4).to_string(),
        "IPv6": n.ipv6.to_string(),
        "Internal": n.internal.to_string(),
        "Labels": labels(&n.labels),
        "CreatedAt": words::listed(n.created_unix_ns),
    })
}

/// docker's object of a network.
pub fn inspect(n: &Network) -> Value {
    let subnets: Vec<Value> = n
        .subnets
        .iter()
        .map(|s| {
            let mut out = json!({"Subnet": s.subnet});
            if !s.gateway.is_empty() {
                out["Gateway"] = json!(s.gateway);
            }
            if !s.ip_range.is_empty() {
                out["IPRange"] = json!(s.ip_range);
            }
            if !s.aux_addresses.is_empty() {
                out["AuxiliaryAddresses"] = json!(s.aux_addresses);
            }
            out
        })
        .collect();
    let containers: Map<String, Value> = n
        .endpoints
        .iter()
        .map(|e| {
            let about = json!({
                "Name": e.name,
                "EndpointID": e.id,
                "MacAddress": e.mac,
                "IPv4Address": e.ip,
                "IPv6Address": e.ip6,
            });
            (e.sandbox_id.clone(), about)
        })
        .collect();
    let mut out = json!({
        "Name": n.name,
        "Id": n.id,
        "Created": words::rfc3339(n.created_unix_ns),
        "Scope": scope(n),
        "Driver": n.driver,
        "EnableIPv4": !n.disable_ipv4,
        "EnableIPv6": n.ipv6,
        "IPAM": {"Driver": "default", "Options": {}, "Config": subnets},
        "Internal": n.internal,
        "Attachable": n.attachable,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": containers,
        "Options": n.options,
        "Labels": n.labels,
        "Interface": n.interface,
        "DNS": n.dns,
        "MTU": n.mtu,
        "Mode": n.mode,
        "Problems": n.problems,
        "Policy": policy(n),
    });
    if !n.parent.is_empty() {
        out["Parent"] = json!(n.parent);
    }
    out
}

/// As the command line writes it; null where there can be none.
fn policy(n: &Network) -> Value {
    if n.policy_default.is_empty() {
        return Value::Null;
    }
    let rules: Vec<String> = n.policy.iter().map(parse::policy::show).collect();
    json!({"Default": n.policy_default, "Rules": rules})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of `docker network inspect` of docker 28, and of `docker network ls --format json`.
    #[test]
    fn dockers_fields_are_there() {
        let value = inspect(&Network { name: "n".into(), ..Network::default() });
        for field in [
            "Name",
            "Id",
            "Created",
            "Scope",
            "Driver",
            "EnableIPv4",
            "EnableIPv6",
            "IPAM",
            "Internal",
            "Attachable",
            "Ingress",
            "ConfigFrom",
            "ConfigOnly",
            "Containers",
            "Options",
            "Labels",
        ] {
            assert!(value.get(field).is_some(), "{field}");
        }
        assert_eq!((&value["EnableIPv4"], &value["ConfigOnly"]), (&json!(true), &json!(false)));
        let row = row(&Network::default(), false);
        for field in ["CreatedAt", "Driver", "ID", "IPv4", "IPv6", "Internal", "Labels", "Name", "Scope"] {
            assert!(row[field].is_string(), "{field}");
        }
    }
}
