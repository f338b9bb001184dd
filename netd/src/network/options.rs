//! Docker's options of a bridge network, and how a wrong option is told.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::SpecError;

const NAME: &str = "com.docker.network.bridge.name";
pub(super) const MTU: &str = "com.docker.network.driver.mtu";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const BINDING4: &str = "com.docker.network.bridge.host_binding_ipv4";
const BINDING6: &str = "com.docker.network.bridge.host_binding_ipv6";
const INHIBIT4: &str = "com.docker.network.bridge.inhibit_ipv4";
/// By family: IPv4, IPv6.
const GATEWAY: [&str; 2] =
    ["com.docker.network.bridge.gateway_mode_ipv4", "com.docker.network.bridge.gateway_mode_ipv6"];
const HOST_IP: [&str; 2] = ["com.docker.network.host_ipv4", "com.docker.network.host_ipv6"];
pub(super) const PREFIX: &str = "com.docker.network.container_iface_prefix";
const KNOWN: [&str; 12] = [
    NAME, MTU, ICC, MASQUERADE, BINDING4, BINDING6, INHIBIT4, GATEWAY[0], GATEWAY[1], HOST_IP[0], HOST_IP[1],
    PREFIX,
];

/// How a bridge network meets the world, of one IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// Sources are hidden on the way out; only published ports are open, through the host's.
    #[default]
    Nat,
    /// The same, but whoever routes to a container's address reaches all its ports.
    NatUnprotected,
    /// Containers have addresses that the world routes to; published ports are open there, and none is taken on the host.
    Routed,
    /// Of an internal network: the bridge has no address, so the host is no neighbour either.
    Isolated,
}

impl GatewayMode {
    /// Docker's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::NatUnprotected => "nat-unprotected",
            Self::Routed => "routed",
            Self::Isolated => "isolated",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        let all = [Self::Nat, Self::NatUnprotected, Self::Routed, Self::Isolated];
        all.into_iter().find(|m| m.name() == word)
    }
}

/// Options, understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
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
    /// The same of IPv6.
    pub host_binding6: Option<Ipv6Addr>,
    /// How it leads out: IPv4, IPv6.
    pub gateway_mode: [GatewayMode; 2],
    /// The bridge gets no IPv4 address: somebody else gives it one.
    pub inhibit_ipv4: bool,
    /// The host's address that sources are hidden behind, in place of the way out's: IPv4, IPv6.
    pub host_ip: [Option<IpAddr>; 2],
    /// What names of interfaces inside start with, in place of `eth`.
    pub prefix: Option<String>,
}

impl Default for BridgeOptions {
    fn default() -> Self {
        Self {
            name: None,
            mtu: None,
            icc: true,
            masquerade: true,
            host_binding: None,
            host_binding6: None,
            gateway_mode: Default::default(),
            inhibit_ipv4: false,
            host_ip: [None; 2],
            prefix: None,
        }
    }
}

impl BridgeOptions {
    /// Checks options.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Self, SpecError> {
        let mut me = Self::default();
        for (name, value) in options {
            let given = Given { name, value };
            match name.as_str() {
                NAME => me.name = Some(given.read(chosen_name, NAMES)?),
                MTU => me.mtu = Some(given.mtu()?),
                ICC => me.icc = given.read(boolean, "true or false")?,
                MASQUERADE => me.masquerade = given.read(boolean, "true or false")?,
                // Docker takes an address of either version here.
                BINDING4 => me.host_binding = Some(given.parsed("an address of the host")?),
                BINDING6 => me.host_binding6 = Some(given.parsed("an IPv6 address of the host")?),
                INHIBIT4 => me.inhibit_ipv4 = given.read(boolean, "true or false")?,
                PREFIX => me.prefix = Some(given.read(prefix, PREFIXES)?),
                _ if GATEWAY.contains(&name.as_str()) => {
                    let version = usize::from(*name == GATEWAY[1]);
                    me.gateway_mode[version] = given.read(GatewayMode::parse, MODES)?;
                }
                _ if HOST_IP.contains(&name.as_str()) => {
                    let version = usize::from(*name == HOST_IP[1]);
                    let fits = |v: &str| v.parse().ok().filter(|ip: &IpAddr| ip.is_ipv6() == (version == 1));
                    me.host_ip[version] =
                        Some(given.read(fits, "an address of the host, of this IP version")?);
                }
                _ => return Err(given.unknown("bridge", KNOWN)),
            }
        }
        Ok(me)
    }

    /// How it meets the world over a version of IP.
    pub fn gateway_mode(&self, ipv4: bool) -> GatewayMode {
        self.gateway_mode[usize::from(!ipv4)]
    }

    /// The same of IPv4 and of IPv6.
    pub fn gateway_modes(&self) -> [GatewayMode; 2] {
        self.gateway_mode
    }

    /// Whether the bridge itself has an address of this version.
    pub fn has_address(&self, ipv4: bool) -> bool {
        self.gateway_mode(ipv4) != GatewayMode::Isolated && !(ipv4 && self.inhibit_ipv4)
    }
}

const MODES: &str = "nat, nat-unprotected, routed or isolated";
const PREFIXES: &str = "the beginning of an interface name (ten letters, digits, '.', '_' and '-' at most, the first a letter or digit)";
/// What a name of an interface that we make may be, for messages.
pub const NAMES: &str = "a name of 1 to 15 letters, digits, '.', '_' and '-', the first a letter or digit, and not all, default or lo";

/// An option as it was given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a str,
}

impl Given<'_> {
    pub(super) fn read<T>(
        &self,
        reader: impl FnOnce(&str) -> Option<T>,
        expected: &'static str,
    ) -> Result<T, SpecError> {
        reader(self.value).ok_or_else(|| {
            let (name, value) = (self.name.to_owned(), self.value.to_owned());
            SpecError::Value { name, value, expected }
        })
    }

    fn parsed<T: std::str::FromStr>(&self, expected: &'static str) -> Result<T, SpecError> {
        self.read(|v| v.parse().ok(), expected)
    }

    /// 68 is the least that IPv4 needs (RFC 791).
    pub(super) fn mtu(&self) -> Result<u32, SpecError> {
        let number = |v: &str| v.parse().ok().filter(|n| (68..=65535).contains(n));
        self.read(number, "a number from 68 to 65535")
    }

    pub(super) fn prefix(&self) -> Result<String, SpecError> {
        self.read(prefix, PREFIXES)
    }

    pub(super) fn unknown(
        &self,
        driver: &'static str,
        known: impl IntoIterator<Item = &'static str>,
    ) -> SpecError {
        unknown(self.name, driver, &known.into_iter().collect::<Vec<_>>())
    }
}

/// An option that is not known, with the one that is meant or all there are.
pub(super) fn unknown(name: &str, driver: &'static str, known: &[&'static str]) -> SpecError {
    let name = name.to_owned();
    match near(&name, known.iter().copied()) {
        Some(nearest) => SpecError::Option { name, driver, nearest },
        None => SpecError::NoOption { name, driver, known: known.join(", ") },
    }
}

fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "t" => Some(true),
        "false" | "0" | "f" => Some(false),
        _ => None,
    }
}

/// Leaves room for a number of five digits.
fn prefix(value: &str) -> Option<String> {
    plain(value).filter(|v| v.len() <= 10)
}

/// A name for an interface that we make. The kernel takes more, but firewalls read `u+` as all that begin with `u`, a space or a
/// quote as the end of a word, and settings of `all`, `default` and `lo` are others'.
pub fn chosen_name(name: &str) -> Option<String> {
    plain(name).filter(|n| n.len() <= 15 && !["all", "default", "lo"].contains(&n.as_str()))
}

/// Letters that mean nothing to a shell, a firewall or a path.
fn plain(text: &str) -> Option<String> {
    let legal = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    (legal && text.starts_with(|c: char| c.is_ascii_alphanumeric())).then(|| text.to_owned())
}

/// Of an interface that somebody else made. The kernel's rule: 1 to 15 bytes, no slash, colon or white space, and not `.` or `..`.
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

/// The nearest, when it is near enough to be meant.
pub fn near<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let last = |s: &str| s.rsplit('.').next().unwrap_or("").to_owned();
    let close = |known: &&str| {
        distance(word, known).min(distance(&last(word), &last(known))) <= last(word).len().max(3) / 2
    };
    Some(nearest(word, candidates)).filter(|known| !known.is_empty()).filter(close)
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
        for (given, wanted) in [
            ("com.docker.network.driver.mtuu", MTU),
            ("mtu", MTU),
            ("enable_ic", ICC),
            ("com.docker.network.bridge.gateway_mode_ip6", GATEWAY[1]),
        ] {
            let Err(SpecError::Option { nearest, driver, .. }) = parse(given, "1") else {
                panic!("{given} was taken")
            };
            assert_eq!(driver, "bridge");
            assert_eq!(nearest, wanted);
        }
        for given in ["foo", "com.docker.network.bridge.trusted_host_interfaces"] {
            let e = parse(given, "1").unwrap_err().to_string();
            assert!(e.contains(given) && e.contains(ICC) && e.contains(PREFIX), "{e}");
        }
    }

    #[test]
    fn values_are_checked() {
        assert_eq!(parse(MTU, "1400").unwrap().mtu, Some(1400));
        assert!(!parse(ICC, "false").unwrap().icc);
        assert_eq!(
            parse(GATEWAY[1], "nat-unprotected").unwrap().gateway_mode[1],
            GatewayMode::NatUnprotected
        );
        assert_eq!(parse(PREFIX, "net").unwrap().prefix.as_deref(), Some("net"));
        for (name, value) in [
            (MTU, "67"),
            (MTU, "x"),
            (ICC, "no"),
            (NAME, "a/b"),
            (NAME, "sixteen-letters-"),
            (GATEWAY[0], "NAT"),
            (HOST_IP[0], "fd00::1"),
            (HOST_IP[1], "10.0.0.1"),
            (PREFIX, "eleven-long"),
            (PREFIX, "u+"),
        ] {
            assert!(parse(name, value).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn a_bridge_has_no_name_that_means_more_than_itself() {
        for name in ["br0", "my-bridge_1.2", "0", "fifteen-letters"] {
            assert_eq!(parse(NAME, name).unwrap().name.as_deref(), Some(name));
        }
        for name in
            ["u+", "u*", "-j", ".x", "_x", "a\"b", "a'b", "a;b", "a,b", "ä", "", "all", "default", "lo"]
        {
            let Err(SpecError::Value { expected, .. }) = parse(NAME, name) else {
                panic!("'{name}' was taken")
            };
            assert!(expected.contains("all, default or lo"), "{expected}");
        }
    }

    #[test]
    fn options_of_an_older_record_have_todays_defaults() {
        let old = r#"{"name":null,"mtu":1400,"icc":false,"masquerade":true,"host_binding":null}"#;
        let read: BridgeOptions = serde_json::from_str(old).unwrap();
        assert_eq!(read, BridgeOptions { mtu: Some(1400), icc: false, ..BridgeOptions::default() });
    }

    #[test]
    fn a_bridge_without_address_is_isolated_or_inhibited() {
        let options = parse(INHIBIT4, "true").unwrap();
        assert!(!options.has_address(true) && options.has_address(false));
        let options = parse(GATEWAY[1], "isolated").unwrap();
        assert!(options.has_address(true) && !options.has_address(false));
    }
}
