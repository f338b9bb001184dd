//! The network that a configuration means when davit is to make it: docker's fields in CNI's spelling.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use davit_contracts::network::{CreateNetworkRequest, Subnet};
use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use serde::Deserialize;

use super::{field, refused};
use crate::failure::{Code, Failure};
use crate::result::Object;

/// Fields that describe a network.
pub const FIELDS: [&str; 9] =
    ["driver", "subnets", "ranges", "ipv6", "internal", "mtu", "parent", "options", "labels"];

const MTU: &str = "com.docker.network.driver.mtu";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";

/// A network as it is to be made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    driver: String,
    subnets: Vec<Subnet>,
    ipv6: bool,
    internal: bool,
    options: HashMap<String, String>,
    labels: HashMap<String, String>,
}

/// A subnet: a text, or its parts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Given {
    Text(String),
    Parts(Parts),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Parts {
    subnet: String,
    #[serde(default)]
    gateway: String,
    #[serde(default)]
    ip_range: String,
    #[serde(default)]
    aux_addresses: HashMap<String, String>,
}

/// One of the range sets that host-local has, and that callers give as the capability `ipRanges`.
#[derive(Deserialize)]
pub(super) struct Range {
    subnet: String,
    #[serde(default)]
    gateway: String,
    #[serde(rename = "rangeStart")]
    first: Option<IpAddr>,
    #[serde(rename = "rangeEnd")]
    last: Option<IpAddr>,
}

/// Reads how the network is to be made. `None` when the configuration only names one.
pub(super) fn parse(object: &Object, named: bool) -> Result<Option<Wanted>, Failure> {
    if named && !FIELDS.iter().any(|f| object.contains_key(*f)) {
        return Ok(None);
    }
    let mut subnets = Vec::new();
    for given in field::<Vec<Given>>(object, "subnets")?.unwrap_or_default() {
        subnets.push(match given {
            Given::Text(subnet) => Subnet { subnet, ..Subnet::default() },
            Given::Parts(p) => Subnet {
                subnet: p.subnet,
                gateway: p.gateway,
                ip_range: p.ip_range,
                aux_addresses: p.aux_addresses,
            },
        });
    }
    if let Some(sets) = field::<Vec<Vec<Range>>>(object, "ranges")? {
        subnets.extend(ranges(sets)?);
    }
    for subnet in &subnets {
        network_address("subnets", &subnet.subnet)?;
    }
    let mut options: BTreeMap<String, String> = field(object, "options")?.unwrap_or_default();
    if let Some(mtu) = field::<u32>(object, "mtu")?.filter(|mtu| *mtu > 0) {
        options.insert(MTU.into(), mtu.to_string());
    }
    if let Some(parent) = field::<String>(object, "parent")? {
        options.insert("parent".into(), parent);
    }
    if field(object, "ipMasq")? == Some(false) {
        options.insert(MASQUERADE.into(), "false".into());
    }
    Ok(Some(Wanted {
        driver: field(object, "driver")?.unwrap_or_default(),
        subnets,
        ipv6: field(object, "ipv6")?.unwrap_or_default(),
        internal: field(object, "internal")?.unwrap_or_default(),
        options: options.into_iter().collect(),
        labels: field(object, "labels")?.unwrap_or_default(),
    }))
}

/// As host-local and netd have it, host bits are a mistake.
fn network_address(name: &str, text: &str) -> Result<IpNet, Failure> {
    let net: IpNet = text.parse().map_err(|_| refused(name, text, "a subnet such as 10.90.0.0/24"))?;
    if net != net.trunc() {
        return Err(Failure::new(
            Code::Config,
            format!("field {name}: invalid subnet {net}: it should be {}", net.trunc()),
        ));
    }
    Ok(net)
}

/// Range sets as subnets.
pub(super) fn ranges(sets: Vec<Vec<Range>>) -> Result<Vec<Subnet>, Failure> {
    let mut subnets = Vec::new();
    for mut set in sets {
        let (Some(range), true) = (set.pop(), set.is_empty()) else {
            return Err(Failure::new(Code::Config, "field ranges: each set has to hold one range"));
        };
        let whole = network_address("ranges", &range.subnet)?;
        let ip_range = part(&whole, range.first, range.last)?;
        subnets.push(Subnet { subnet: range.subnet, gateway: range.gateway, ip_range, ..Subnet::default() });
    }
    Ok(subnets)
}

/// From the first to the last address, as a CIDR when it is one.
fn part(whole: &IpNet, first: Option<IpAddr>, last: Option<IpAddr>) -> Result<String, Failure> {
    if first.is_none() && last.is_none() {
        return Ok(String::new());
    }
    let first = first.unwrap_or_else(|| whole.network());
    let last = last.unwrap_or_else(|| whole.broadcast());
    let mut nets: Vec<IpNet> = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) if a <= b => {
            Ipv4Subnets::new(a, b, 0).take(2).map(IpNet::V4).collect()
        }
        (IpAddr::V6(a), IpAddr::V6(b)) if a <= b => {
            Ipv6Subnets::new(a, b, 0).take(2).map(IpNet::V6).collect()
        }
        _ => Vec::new(),
    };
    match (nets.pop(), nets.is_empty()) {
        (Some(net), true) => Ok(net.to_string()),
        _ => Err(refused(
            "ranges",
            &format!("{first} to {last}"),
            "a range that a CIDR can say, such as 10.90.0.128 to 10.90.0.255,",
        )),
    }
}

impl Wanted {
    /// The subnets that it has to have; chosen by netd when there are none.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.subnets.iter().filter_map(|s| s.subnet.parse().ok())
    }

    /// The host's interface that it is to stand on.
    pub fn parent(&self) -> Option<&str> {
        self.options.get("parent").map(String::as_str).filter(|p| !p.is_empty())
    }

    /// The request that makes it.
    pub fn request(
        &self,
        name: &str,
        ranges: &[Subnet],
        labels: [(String, String); 1],
    ) -> CreateNetworkRequest {
        let subnets = if self.subnets.is_empty() { ranges } else { &self.subnets };
        CreateNetworkRequest {
            name: name.to_owned(),
            driver: self.driver.clone(),
            subnets: subnets.to_vec(),
            ipv6: self.ipv6,
            internal: self.internal,
            attachable: true,
            options: self.options.clone(),
            labels: self.labels.clone().into_iter().chain(labels).collect(),
            ..CreateNetworkRequest::default()
        }
    }
}
