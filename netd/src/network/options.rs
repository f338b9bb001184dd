//! Docker's options of a bridge network.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::SpecError;

const NAME: &str = "com.docker.network.bridge.name";
const MTU: &str = "com.docker.network.driver.mtu";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
/// By family: IPv4, IPv6.
const GATEWAY: [&str; 2] =
    ["com.docker.network.bridge.gateway_mode_ipv4", "com.docker.network.bridge.gateway_mode_ipv6"];
const HOST_IP: [&str; 2] = ["com.docker.network.host_ipv4", "com.docker.network.host_ipv6"];
const KNOWN: [&str; 9] =
    [NAME, MTU, ICC, MASQUERADE, BINDING, GATEWAY[0], GATEWAY[1], HOST_IP[0], HOST_IP[1]];

/// How a bridge network leads out and is reached, for one IP version (docker's "gateway mode").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// Sources are hidden on the way out; published ports are the host's.
    #[default]
    Nat,
    /// The same, and every port can be reached from outside at the container's own address.
    NatUnprotected,
    /// Addresses are kept; published ports can be reached from outside at the container's own address.
    Routed,
    /// The bridge has no address of this version.
    Isolated,
}

impl GatewayMode {
    /// Its word in options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::NatUnprotected => "nat-unprotected",
            Self::Routed => "routed",
            Self::Isolated => "isolated",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Nat, Self::NatUnprotected, Self::Routed, Self::Isolated].into_iter().find(|m| m.name() == text)
    }
}

/// Options, understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeOptions {
    /// The bridge's name, in place of one made from the id.
    pub name: Option<String>,
    /// In place of the uplink's.
    pub mtu: Option<u32>,
    /// Containers reach one another.
    pub icc: bool,
    /// Sources are hidden on the way out.
    pub masquerade: bool,
    /// Where ports are published when a mapping does not say.
    pub host_binding: Option<IpAddr>,
    /// How it leads out: IPv4, IPv6.
    #[serde(default)]
    pub gateway_mode: [GatewayMode; 2],
    /// The host's address that sources are hidden behind, in place of the way out's: IPv4, IPv6.
    #[serde(default)]
    pub host_ip: [Option<IpAddr>; 2],
}

impl Default for BridgeOptions {
    fn default() -> Self {
        Self {
            name: None,
            mtu: None,
            icc: true,
            masquerade: true,
            host_binding: None,
            gateway_mode: Default::default(),
            host_ip: [None; 2],
        }
    }
}

impl BridgeOptions {
    /// Checks options.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Self, SpecError> {
        let mut me = Self::default();
        for (name, value) in options {
            let bad = |expected| SpecError::Value { name: name.clone(), value: value.clone(), expected };
            match name.as_str() {
                NAME => me.name = Some(interface_name(value).ok_or_else(|| bad("an interface name"))?),
                MTU => {
                    let mtu = value.parse().ok().filter(|n| (68..=65535).contains(n));
                    me.mtu = Some(mtu.ok_or_else(|| bad("a number from 68 to 65535"))?);
                }
                ICC => me.icc = boolean(value).ok_or_else(|| bad("true or false"))?,
                MASQUERADE => me.masquerade = boolean(value).ok_or_else(|| bad("true or false"))?,
                BINDING => {
                    me.host_binding = Some(value.parse().map_err(|_| bad("an address of the host"))?);
                }
                _ if GATEWAY.contains(&name.as_str()) => {
                    let mode = GatewayMode::parse(value);
                    me.gateway_mode[usize::from(*name == GATEWAY[1])] =
                        mode.ok_or_else(|| bad("nat, nat-unprotected, routed or isolated"))?;
                }
                _ if HOST_IP.contains(&name.as_str()) => {
                    let v6 = *name == HOST_IP[1];
                    let ip = value.parse().ok().filter(|ip: &IpAddr| ip.is_ipv6() == v6);
                    me.host_ip[usize::from(v6)] =
                        Some(ip.ok_or_else(|| bad("an address of the host, of this IP version"))?);
                }
                _ => return Err(SpecError::Option { name: name.clone(), nearest: nearest(name, KNOWN) }),
            }
        }
        Ok(me)
    }
}

fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "t" => Some(true),
        "false" | "0" | "f" => Some(false),
        _ => None,
    }
}

/// The kernel's rule: 1 to 15 bytes, no slash, colon or white space, and not `.` or `..`.
pub fn interface_name(name: &str) -> Option<String> {
    let legal = name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':' && b != b'%');
    ((1..=15).contains(&name.len()) && legal && name != "." && name != "..").then(|| name.to_owned())
}

/// The candidate with the smallest edit distance; the part after the last dot counts for as much as the whole.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> &'a str {
    let last = |s: &str| s.rsplit('.').next().unwrap_or("").to_owned();
    candidates
        .into_iter()
        .min_by_key(|c| distance(word, c).min(distance(&last(word), &last(c))))
        .unwrap_or_default()
}

/// Levenshtein's distance.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, value: &str) -> Result<BridgeOptions, SpecError> {
        BridgeOptions::parse(&[(name.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn an_unknown_option_names_the_nearest() {
        for (given, wanted) in [("com.docker.network.driver.mtuu", MTU), ("mtu", MTU), ("enable_ic", ICC)] {
            let Err(SpecError::Option { nearest, .. }) = parse(given, "1") else {
                panic!("{given} was taken")
            };
            assert_eq!(nearest, wanted);
        }
    }

    #[test]
    fn values_are_checked() {
        assert_eq!(parse(MTU, "1400").unwrap().mtu, Some(1400));
        assert!(!parse(ICC, "false").unwrap().icc);
        for (name, value) in [(MTU, "67"), (MTU, "x"), (ICC, "no"), (NAME, "a/b"), (NAME, "sixteen-letters-")]
        {
            assert!(parse(name, value).is_err(), "{name}={value}");
        }
    }
}
