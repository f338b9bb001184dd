//! What is given for one call: capabilities in `runtimeConfig`, and `args.cni` (the field's conventions).

use std::collections::BTreeMap;
use std::net::IpAddr;

use davit_contracts::network::{Bandwidth, PortMapping, Subnet};
use serde::Deserialize;
use serde_json::Value;

use super::dns::Dns;
use super::network::{self, Range};
use super::{field, refused};
use crate::failure::Failure;
use crate::result::Object;

/// What was given for one call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Runtime {
    /// `portMappings`; those without a host port publish nothing.
    pub ports: Vec<PortMapping>,
    /// `ips`.
    pub ips: Vec<IpAddr>,
    /// `mac`.
    pub mac: String,
    /// `bandwidth`.
    pub bandwidth: Option<Bandwidth>,
    /// `aliases`.
    pub aliases: Vec<String>,
    /// `dns`.
    pub dns: Dns,
    /// `ipRanges`: subnets of a network that is made.
    pub ranges: Vec<Subnet>,
    /// `args.cni.labels`.
    pub labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Port {
    #[serde(default, rename = "hostPort")]
    host: u16,
    #[serde(rename = "containerPort")]
    container: u16,
    #[serde(default)]
    protocol: String,
    #[serde(default, rename = "hostIP")]
    host_ip: String,
}

/// Bits a second, and bits.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Limits {
    ingress_rate: u64,
    ingress_burst: u64,
    egress_rate: u64,
    egress_burst: u64,
}

/// podman has a list for each network.
#[derive(Deserialize)]
#[serde(untagged)]
enum Aliases {
    Own(Vec<String>),
    Each(BTreeMap<String, Vec<String>>),
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Names {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

#[derive(Deserialize)]
struct Label {
    key: String,
    value: String,
}

impl Runtime {
    /// Reads `runtimeConfig` and `args` of the configuration of that name.
    pub(super) fn parse(object: &Object, name: &str) -> Result<Self, Failure> {
        let given: Object = field(object, "runtimeConfig")?.unwrap_or_default();
        let args: Object = field(object, "args")?.unwrap_or_default();
        // Whatever others put into `args` is to be overlooked.
        let args = args.get("cni").and_then(Value::as_object).cloned().unwrap_or_default();
        let mut ips: Vec<IpAddr> = Vec::new();
        for text in field::<Vec<String>>(&given, "ips")?
            .or(field(&args, "ips")?)
            .into_iter()
            .flatten()
            .filter(|text| !text.is_empty())
        {
            let address = text.split('/').next().unwrap_or_default();
            ips.push(address.parse().map_err(|_| refused("ips", &text, "an IP address"))?);
        }
        let twice =
            |(n, ip): &(usize, &IpAddr)| ips[..*n].iter().any(|other| other.is_ipv4() == ip.is_ipv4());
        if let Some((_, ip)) = ips.iter().enumerate().find(twice) {
            return Err(refused("ips", &ip.to_string(), "one address of each IP version"));
        }
        let labels: Vec<Label> = field(&args, "labels")?.unwrap_or_default();
        Ok(Self {
            ports: ports(field(&given, "portMappings")?.unwrap_or_default()),
            ips,
            mac: field(&given, "mac")?.unwrap_or_default(),
            bandwidth: field(&given, "bandwidth")?.map(|b: Limits| limits(&b)),
            aliases: match field(&given, "aliases")? {
                None => Vec::new(),
                Some(Aliases::Own(aliases)) => aliases,
                Some(Aliases::Each(mut each)) => each.remove(name).unwrap_or_default(),
            },
            dns: field(&given, "dns")?.map(dns).unwrap_or_default(),
            ranges: network::ranges(field::<Vec<Vec<Range>>>(&given, "ipRanges")?.unwrap_or_default())?,
            labels: labels.into_iter().map(|l| (l.key, l.value)).collect(),
        })
    }
}

/// A port without a host port is one that a pod only declares.
fn ports(given: Vec<Port>) -> Vec<PortMapping> {
    given
        .into_iter()
        .filter(|p| p.host != 0)
        .map(|p| PortMapping {
            // Both families are meant by "0.0.0.0" as by nothing.
            host_ip: if p.host_ip == "0.0.0.0" { String::new() } else { p.host_ip },
            host_port: p.host.into(),
            container_port: p.container.into(),
            protocol: p.protocol.to_ascii_lowercase(),
            host_port_end: 0,
        })
        .collect()
}

/// Bursts are bits there and bytes at netd.
fn limits(given: &Limits) -> Bandwidth {
    Bandwidth {
        ingress_rate: given.ingress_rate,
        ingress_burst: given.ingress_burst / 8,
        egress_rate: given.egress_rate,
        egress_burst: given.egress_burst / 8,
    }
}

fn dns(given: Names) -> Dns {
    Dns { nameservers: given.servers, domain: String::new(), search: given.searches, options: given.options }
}
