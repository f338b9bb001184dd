//! What a container asks for, in the words of the capabilities that plugins may have (the field's conventions).

use serde_json::{Value, json};

use super::Object;
use super::list::List;
use crate::endpoint::{Bandwidth, Mapping};

/// A wish that no plugin of a list can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// What was asked for: "published ports", ...
    pub what: &'static str,
    /// The capability that is missing.
    pub capability: &'static str,
}

/// What an endpoint asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// Addresses.
    pub ips: [&'a str; 2],
    /// Ethernet address.
    pub mac: &'a str,
    /// More names; they resolve without a plugin too.
    pub aliases: &'a [String],
    /// Limits.
    pub bandwidth: Option<&'a Bandwidth>,
}

/// The capability arguments, checked against what the list's plugins can take.
pub fn arguments(list: &List, asked: &Asked<'_>) -> Result<Object, Refused> {
    let mut arguments = Object::new();
    let ips: Vec<&str> = asked.ips.into_iter().filter(|ip| !ip.is_empty()).collect();
    if !ips.is_empty() {
        arguments.insert("ips".into(), ips.into());
    }
    if !asked.mac.is_empty() {
        arguments.insert("mac".into(), asked.mac.into());
    }
    if let Some(limits) = asked.bandwidth {
        arguments.insert("bandwidth".into(), bandwidth(limits));
    }
    let names = [("ips", "a chosen address"), ("mac", "a chosen mac"), ("bandwidth", "bandwidth limits")];
    for (capability, what) in names {
        if arguments.contains_key(capability) && !list.has_capability(capability) {
            return Err(Refused { what, capability });
        }
    }
    if !asked.aliases.is_empty() {
        arguments.insert("aliases".into(), asked.aliases.into());
    }
    Ok(arguments)
}

/// The argument of `portMappings`.
pub fn ports(mappings: &[Mapping]) -> Value {
    let one = |m: &Mapping| {
        let mut port = json!({
            "hostPort": m.host.port(), "containerPort": m.container_port, "protocol": m.transport.name()
        });
        if !m.host.ip().is_unspecified() {
            port["hostIP"] = m.host.ip().to_string().into();
        }
        port
    };
    mappings.iter().map(one).collect()
}

/// Bursts are bytes here and bits there; plugins want one with each rate.
fn bandwidth(limits: &Bandwidth) -> Value {
    let burst = |rate: u64, bytes: u64| match (rate, bytes) {
        (0, _) => 0,
        // A tenth of a second, and no more than the plugin's own type holds.
        (rate, 0) => (rate / 10).clamp(8 * 1500, u64::from(u32::MAX)),
        (_, bytes) => (bytes.saturating_mul(8)).min(u64::from(u32::MAX)),
    };
    json!({
        "ingressRate": limits.ingress_rate, "ingressBurst": burst(limits.ingress_rate, limits.ingress_burst),
        "egressRate": limits.egress_rate, "egressBurst": burst(limits.egress_rate, limits.egress_burst)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_without_a_capability_is_refused() {
        let list = |capability: &str| {
            let text =
                json!({"cniVersion": "1.0.0", "name": "n", "type": "t", "capabilities": {capability: true}});
            List::parse(&text.to_string()).unwrap()
        };
        let asked = Asked { ips: ["10.0.0.5", ""], aliases: &["a".to_owned()], ..Asked::default() };
        let got = arguments(&list("ips"), &asked).unwrap();
        assert_eq!(Value::Object(got), json!({"ips": ["10.0.0.5"], "aliases": ["a"]}));
        assert_eq!(arguments(&list("mac"), &asked).unwrap_err().capability, "ips");
        let limits = Bandwidth { egress_rate: 1_000_000, ..Bandwidth::default() };
        let got =
            arguments(&list("bandwidth"), &Asked { bandwidth: Some(&limits), ..Asked::default() }).unwrap();
        assert_eq!(got["bandwidth"]["egressBurst"], 100_000);
        assert_eq!(got["bandwidth"]["ingressBurst"], 0);
    }
}
