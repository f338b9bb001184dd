//! Networks in lists and inspections.

use std::collections::BTreeMap;
use std::collections::HashMap;

use davit_contracts::network::Network;
use serde_json::{Map, Value, json};

use super::labels;
use crate::output::template::LABEL;
use crate::output::words;
use crate::parse;

/// docker's columns of `network ls`.
pub const COLUMNS: [(&str, &str); 4] =
    [("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope")];

fn scope(n: &Network) -> &str {
    if n.scope.is_empty() { "local" } else { &n.scope }
}

/// docker's word for the driver of the network without networks.
pub fn driver(n: &Network) -> &str {
    if n.driver == "none" { "null" } else { &n.driver }
}

/// docker's keys.
pub fn row(n: &Network, no_trunc: bool) -> Value {
    json!({
        "ID": if no_trunc { n.id.as_str() } else { words::short(&n.id) },
        "Name": n.name,
        "Driver": driver(n),
        "Scope": scope(n),
        "IPv4": (!n.disable_ipv4).to_string(),
        "IPv6": n.ipv6.to_string(),
        "Internal": n.internal.to_string(),
        "Labels": labels(&n.labels),
        LABEL: n.labels,
        "CreatedAt": words::listed(n.created_unix_ns),
    })
}

/// Its options; of a cni network also the configuration list as it is in force, which the file that it came from need not be any
/// more.
fn options(n: &Network) -> BTreeMap<&str, &str> {
    let mut options: BTreeMap<_, _> = n.options.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    if !n.cni_config.is_empty() {
        options.insert("conflist", &n.cni_config);
    }
    options
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
        "Driver": driver(n),
        "EnableIPv4": !n.disable_ipv4,
        "EnableIPv6": n.ipv6,
        "IPAM": {"Driver": "default", "Options": {}, "Config": subnets},
        "Internal": n.internal,
        "Attachable": n.attachable,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": containers,
        "Options": options(n),
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

/// Filters of a list as the contract takes them: labels stand on lines of their own, other repeated keys are joined by commas.
pub fn filters(pairs: &[(String, String)]) -> HashMap<String, String> {
    let mut out: HashMap<String, String> = HashMap::new();
    for (key, value) in pairs {
        let between = if matches!(key.as_str(), "label" | "label!") { '\n' } else { ',' };
        let joined = |all: &mut String| {
            all.push(between);
            all.push_str(value);
        };
        out.entry(key.clone()).and_modify(joined).or_insert_with(|| value.clone());
    }
    out
}

/// Filters of what is to be removed. Ages become moments here; of several the earliest counts.
pub fn prune_filters(pairs: &[(String, String)], now: i64) -> Result<HashMap<String, String>, String> {
    let (ages, others): (Vec<_>, Vec<_>) = pairs.iter().cloned().partition(|(key, _)| key == "until");
    let moments = ages.iter().map(|(_, age)| parse::duration::moment(age, now));
    let earliest = moments.collect::<Result<Vec<_>, _>>()?.into_iter().min();
    let mut out = filters(&others);
    out.extend(earliest.map(|ns| ("until".to_owned(), words::unix(ns))));
    Ok(out)
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

    #[test]
    fn filters_are_joined_and_ages_are_moments() {
        let own = |pairs: &[(&str, &str)]| -> Vec<_> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let given = own(&[("label", "a=1,2"), ("label", "b"), ("name", "x"), ("name", "y"), ("label!", "c")]);
        let got = filters(&given);
        assert_eq!(
            (got["label"].as_str(), got["name"].as_str(), got["label!"].as_str()),
            ("a=1,2\nb", "x,y", "c")
        );
        let now = 100_000_000_000;
        let until = |pairs: &[(&str, &str)]| prune_filters(&own(pairs), now).map(|mut f| f.remove("until"));
        assert_eq!(until(&[("until", "10s")]), Ok(Some("90.000000000".into())));
        assert_eq!(
            until(&[("until", "1970-01-01T00:00:07Z"), ("until", "10s")]),
            Ok(Some("7.000000000".into()))
        );
        assert_eq!(until(&[("until", "42.5")]), Ok(Some("42.500000000".into())));
        assert_eq!(until(&[]), Ok(None));
        assert!(until(&[("until", "soon")]).is_err());
    }

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
