//! From a request to a network: everything that can be checked without looking at the host.

use std::collections::BTreeMap;
use std::net::IpAddr;

use davit_contracts::id::check_name;
use davit_contracts::network as proto;
use ipnet::IpNet;

use crate::driver::cni::list::{List, directories};
use crate::driver::cni::{CniNetwork, GC_OPTION, PATH_OPTION, PLUGIN_PATH};

use super::options::{MTU, unknown};
use super::{BridgeOptions, Driver, GatewayMode, SpecError, Sublink, Subnet, pools, reserved};
use crate::ipam::Pool;

/// Below it the kernel switches IPv6 off on an interface (RFC 8200, section 5).
const LEAST_MTU_OF_IPV6: u32 = 1280;

/// A checked request; subnets that are not given are still to be chosen.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// How it works.
    pub driver: Driver,
    /// Given subnets, IPv4 first; of a bridge at most one of a family.
    pub subnets: Vec<Subnet>,
    /// Whether IPv4 is wanted.
    pub ipv4: bool,
    /// Whether IPv6 is wanted.
    pub ipv6: bool,
    /// Options of a bridge.
    pub bridge: BridgeOptions,
    /// Options of macvlan and ipvlan.
    pub sublink: Option<Sublink>,
    /// The plugins of a cni network.
    pub cni: Option<CniNetwork>,
}

/// Checks a request.
pub fn check(request: &proto::CreateNetworkRequest) -> Result<Spec, SpecError> {
    check_name(&request.name)?;
    if RESERVED.contains(&request.name.as_str()) {
        return Err(SpecError::ReservedName(request.name.clone()));
    }
    let options: BTreeMap<_, _> = request.options.clone().into_iter().collect();
    let (mut bridge, mut sublink) = (BridgeOptions::default(), None);
    let driver = match request.driver.as_str() {
        "" | "bridge" => {
            bridge = BridgeOptions::parse(&options)?;
            check_modes(&bridge, request.internal)?;
            Driver::Bridge
        }
        "macvlan" => {
            sublink = Some(Sublink::parse(Driver::Macvlan, &options)?);
            Driver::Macvlan
        }
        "ipvlan" => {
            sublink = Some(Sublink::parse(Driver::Ipvlan, &options)?);
            Driver::Ipvlan
        }
        "cni" => return cni(request, &options),
        driver @ ("host" | "none" | "null") => return Err(SpecError::Predefined(driver.to_owned())),
        other => return Err(SpecError::Driver(other.to_owned())),
    };
    let mut subnets =
        request.subnets.iter().map(|given| subnet(given, driver)).collect::<Result<Vec<_>, _>>()?;
    subnets.sort_by_key(|s| s.subnet.addr().is_ipv6());
    let (ipv4, ipv6) = check_families(request, driver, &subnets)?;
    let mtu = sublink.as_ref().map_or(bridge.mtu, |s| s.mtu);
    if let Some(mtu) = mtu.filter(|mtu| ipv6 && *mtu < LEAST_MTU_OF_IPV6) {
        let (name, value) = (MTU.to_owned(), mtu.to_string());
        return Err(SpecError::Value { name, value, expected: "with IPv6, a number from 1280 to 65535" });
    }
    Ok(Spec { name: request.name.clone(), driver, subnets, ipv4, ipv6, bridge, sublink, cni: None })
}

/// Of a network of plugins only the plugins are ours to know.
fn cni(request: &proto::CreateNetworkRequest, options: &BTreeMap<String, String>) -> Result<Spec, SpecError> {
    let refused = [
        (!request.subnets.is_empty(), "no subnet can be given"),
        (request.ipv6 || request.disable_ipv4, "no IP version can be chosen"),
        (request.internal, "--internal cannot be asked for"),
    ];
    if let Some((_, what)) = refused.into_iter().find(|(given, _)| *given) {
        return Err(SpecError::Plugins(what));
    }
    let known = [PATH_OPTION, GC_OPTION];
    if let Some(name) = options.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(unknown(name, "cni", &known));
    }
    let gc = match options.get(GC_OPTION).map(String::as_str) {
        None | Some("false") => false,
        Some("true") => true,
        Some(value) => {
            let (name, value) = (GC_OPTION.to_owned(), value.to_owned());
            return Err(SpecError::Value { name, value, expected: "true or false" });
        }
    };
    let list = List::parse(&request.cni_config)?;
    let path = directories(options.get(PATH_OPTION).map_or(PLUGIN_PATH, String::as_str))?;
    for plugin in &list.plugins {
        plugin.program(&path)?;
    }
    Ok(Spec {
        name: request.name.clone(),
        driver: Driver::Cni,
        subnets: Vec::new(),
        ipv4: false,
        ipv6: false,
        bridge: BridgeOptions::default(),
        sublink: None,
        cni: Some(CniNetwork { config: request.cni_config.clone(), path, gc }),
    })
}

/// Docker's rule: where the host is no neighbour, it is no router either.
fn check_modes(bridge: &BridgeOptions, internal: bool) -> Result<(), SpecError> {
    if bridge.gateway_mode.contains(&GatewayMode::Isolated) && !internal {
        return Err(SpecError::Contradiction {
            what: "the gateway mode 'isolated' is of internal networks only",
            instead: "add --internal, or choose nat, nat-unprotected or routed",
        });
    }
    Ok(())
}

/// Which families a network has.
fn check_families(
    request: &proto::CreateNetworkRequest,
    driver: Driver,
    subnets: &[Subnet],
) -> Result<(bool, bool), SpecError> {
    let v4 = subnets.iter().filter(|s| s.subnet.addr().is_ipv4()).count();
    let v6 = subnets.len() - v4;
    if driver == Driver::Bridge && (v4 > 1 || v6 > 1) {
        return Err(SpecError::Families("a bridge network has at most one subnet of each IP version"));
    }
    for (at, subnet) in subnets.iter().enumerate() {
        if let Some(other) = subnets[..at].iter().find(|o| pools::overlap(&o.subnet, &subnet.subnet)) {
            return Err(SpecError::Overlap { one: other.subnet, other: subnet.subnet });
        }
    }
    if request.disable_ipv4 && v4 > 0 {
        return Err(SpecError::Families("a network without IPv4 cannot have an IPv4 subnet"));
    }
    let ipv6 = request.ipv6 || v6 > 0;
    if request.disable_ipv4 && !ipv6 {
        return Err(SpecError::Families("a network needs IPv4 or IPv6: add --ipv6"));
    }
    Ok((!request.disable_ipv4, ipv6))
}

fn parse<T: std::str::FromStr>(value: &str, expected: &'static str) -> Result<T, SpecError> {
    value.parse().map_err(|_| SpecError::Parse { value: value.to_owned(), expected })
}

/// Checks one subnet. A bridge is the gateway of its subnet, by the first address unless another is given; the gateway of
/// other networks is a router that is there or not.
fn subnet(given: &proto::Subnet, driver: Driver) -> Result<Subnet, SpecError> {
    let whole = network_address("subnet", parse(&given.subnet, "a subnet such as 10.89.0.0/24")?)?;
    // A /30 has one address for the bridge and one for a container.
    if whole.max_prefix_len() - whole.prefix_len() < 2 {
        return Err(SpecError::TooSmall(whole));
    }
    if whole.addr().is_ipv4() && whole.prefix_len() < 8 {
        return Err(SpecError::TooLarge(whole));
    }
    if let Some(what) = reserved::against(&whole) {
        return Err(SpecError::Special { subnet: whole, what });
    }
    let ip_range = match given.ip_range.as_str() {
        "" => None,
        text => {
            let range = network_address("ip-range", parse(text, "a range such as 10.89.0.128/25")?)?;
            inside(&whole, "ip range", &range, whole.contains(&range))?;
            Some(range)
        }
    };
    let gateway = match given.gateway.as_str() {
        "" => (driver == Driver::Bridge).then(|| pools::first_address(&whole)),
        text => {
            let gateway: IpAddr = parse(text, "an address")?;
            inside(&whole, "gateway", &gateway, whole.contains(&gateway))?;
            if let Some(why) = no_host(&whole, gateway) {
                return Err(SpecError::Gateway { gateway, subnet: whole, why });
            }
            Some(gateway)
        }
    };
    let mut aux = BTreeMap::new();
    for (name, text) in &given.aux_addresses {
        let address: IpAddr = parse(text, "an address")?;
        inside(&whole, "aux address", &address, whole.contains(&address))?;
        if Some(address) == gateway && !given.gateway.is_empty() {
            return Err(SpecError::Twice { address, name: name.clone() });
        }
        aux.insert(name.clone(), address);
    }
    let subnet = Subnet { subnet: whole, gateway, ip_range, aux };
    match subnet.ip_range {
        Some(range) if Pool::new(&subnet).take_next(&[]).is_err() => {
            Err(SpecError::EmptyRange { range, subnet: whole })
        }
        _ => Ok(subnet),
    }
}

/// Host bits mean a mistyped length or an address in the place of a network: docker refuses them since 28.
fn network_address(what: &'static str, given: IpNet) -> Result<IpNet, SpecError> {
    let meant = given.trunc();
    if given == meant { Ok(meant) } else { Err(SpecError::HostBits { what, given, meant }) }
}

fn inside(subnet: &IpNet, what: &str, address: &dyn std::fmt::Display, ok: bool) -> Result<(), SpecError> {
    if ok {
        return Ok(());
    }
    Err(SpecError::Outside { what: what.to_owned(), address: address.to_string(), subnet: *subnet })
}

/// Why no host of a subnet has an address: it is the subnet's own, or IPv4's broadcast.
fn no_host(net: &IpNet, ip: IpAddr) -> Option<&'static str> {
    if ip == net.network() {
        return Some("the network's own address");
    }
    (ip.is_ipv4() && ip == net.broadcast()).then_some("the broadcast address")
}

/// A subnet that was chosen rather than given.
pub fn chosen(subnet: IpNet, driver: Driver) -> Subnet {
    let gateway = (driver == Driver::Bridge).then(|| pools::first_address(&subnet));
    Subnet { subnet, gateway, ip_range: None, aux: BTreeMap::new() }
}

/// Names with a meaning of their own wherever a network is named: `default` is docker's word for `bridge`.
const RESERVED: [&str; 4] = ["default", "bridge", "host", "none"];

/// The predefined networks, by name.
pub const PREDEFINED: [(&str, Driver); 3] =
    [("bridge", Driver::Bridge), ("host", Driver::Host), ("none", Driver::None)];

#[cfg(test)]
mod tests {
    use super::*;

    fn request(subnet: &str, gateway: &str, range: &str) -> proto::CreateNetworkRequest {
        proto::CreateNetworkRequest {
            name: "n".into(),
            subnets: vec![proto::Subnet {
                subnet: subnet.into(),
                gateway: gateway.into(),
                ip_range: range.into(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn a_gateway_is_the_first_address_unless_given() {
        let spec = check(&request("10.89.0.0/24", "", "")).unwrap();
        assert_eq!(spec.subnets[0].subnet.to_string(), "10.89.0.0/24");
        assert_eq!(spec.subnets[0].gateway, Some("10.89.0.1".parse().unwrap()));
        assert!(check(&request("10.89.0.0/24", "10.89.0.254", "10.89.0.128/25")).is_ok());
    }

    #[test]
    fn what_lies_outside_is_refused() {
        for (subnet, gateway, range) in [
            ("10.89.0.0/24", "10.90.0.1", ""),
            ("10.89.0.0/24", "10.89.0.255", ""),
            ("10.89.0.0/24", "", "10.0.0.0/8"),
            ("10.89.0.0/31", "", ""),
            ("nonsense", "", ""),
            ("10.89.0.0/24", "nonsense", ""),
        ] {
            assert!(check(&request(subnet, gateway, range)).is_err(), "{subnet} {gateway} {range}");
        }
    }

    #[test]
    fn host_bits_are_told_in_dockers_words() {
        let say = |subnet, range| check(&request(subnet, "", range)).unwrap_err().to_string();
        assert_eq!(say("10.89.0.7/24", ""), "invalid subnet 10.89.0.7/24: it should be 10.89.0.0/24");
        assert_eq!(say("fd00::1/64", ""), "invalid subnet fd00::1/64: it should be fd00::/64");
        let range = say("10.89.0.0/24", "10.89.0.129/25");
        assert_eq!(range, "invalid ip-range 10.89.0.129/25: it should be 10.89.0.128/25");
    }

    #[test]
    fn drivers_and_families_are_checked() {
        let mut two = request("10.1.0.0/24", "", "");
        two.subnets.push(request("10.2.0.0/24", "", "").subnets[0].clone());
        assert!(matches!(check(&two), Err(SpecError::Families(_))));
        // A macvlan network may stand for several subnets of one wire.
        two.driver = "macvlan".into();
        let spec = check(&two).unwrap();
        assert!(spec.subnets.iter().all(|s| s.gateway.is_none()), "its router is not guessed");
        two.subnets.push(request("10.2.0.128/25", "", "").subnets[0].clone());
        assert!(matches!(check(&two), Err(SpecError::Overlap { .. })));
        let driver = |d: &str| proto::CreateNetworkRequest {
            name: "n".into(),
            driver: d.into(),
            ..Default::default()
        };
        assert!(matches!(check(&driver("overlay")), Err(SpecError::Driver(_))));
        assert!(matches!(check(&driver("host")), Err(SpecError::Predefined(_))));
        assert_eq!(check(&driver("ipvlan")).unwrap().driver, Driver::Ipvlan);
        let mut six = driver("");
        six.disable_ipv4 = true;
        assert!(matches!(check(&six), Err(SpecError::Families(_))));
        six.ipv6 = true;
        let spec = check(&six).unwrap();
        assert!(!spec.ipv4 && spec.ipv6);
    }

    #[test]
    fn subnets_without_a_place_or_room_are_refused() {
        let check = |subnet, gateway, range| check(&request(subnet, gateway, range));
        let special = check("169.254.0.0/16", "", "").unwrap_err();
        assert!(matches!(special, SpecError::Special { .. }));
        for wide in ["10.0.0.0/7", "0.0.0.0/0"] {
            assert!(matches!(check(wide, "", ""), Err(SpecError::TooLarge(_))), "{wide}");
        }
        assert!(check("10.0.0.0/8", "", "").is_ok());
        // The network's own address; the gateway; the broadcast address.
        for range in ["10.1.2.0/32", "10.1.2.0/31", "10.1.2.255/32"] {
            assert!(matches!(check("10.1.2.0/24", "", range), Err(SpecError::EmptyRange { .. })), "{range}");
        }
        assert!(check("10.1.2.0/24", "", "10.1.2.0/30").is_ok());
    }

    #[test]
    fn a_gateway_that_no_host_can_be_is_told_as_what_it_is() {
        let say = |gateway| check(&request("10.1.2.0/24", gateway, "")).unwrap_err().to_string();
        assert!(say("10.1.2.0").contains("the network's own address"));
        assert!(say("10.1.2.255").contains("the broadcast address"));
        assert!(say("10.1.3.0").contains("not inside"));
    }

    #[test]
    fn ipv6_needs_its_mtu() {
        let mut small = request("10.1.0.0/24", "", "");
        small.options = [(MTU.to_owned(), "1279".to_owned())].into();
        assert!(check(&small).is_ok());
        small.ipv6 = true;
        let e = check(&small).unwrap_err().to_string();
        assert!(e.contains("1279") && e.contains("1280"), "{e}");
        small.driver = "macvlan".into();
        assert!(check(&small).is_err());
        small.options = [(MTU.to_owned(), "1280".to_owned())].into();
        assert!(check(&small).is_ok());
    }

    #[test]
    fn names_with_a_meaning_are_refused() {
        for name in RESERVED {
            let request = proto::CreateNetworkRequest { name: name.into(), ..Default::default() };
            assert!(matches!(check(&request), Err(SpecError::ReservedName(_))), "{name}");
        }
    }

    #[test]
    fn an_isolated_bridge_is_internal() {
        let mut isolated = request("10.1.0.0/24", "", "");
        isolated.options = [("com.docker.network.bridge.gateway_mode_ipv4".into(), "isolated".into())].into();
        assert!(matches!(check(&isolated), Err(SpecError::Contradiction { .. })));
        isolated.internal = true;
        assert!(check(&isolated).is_ok());
    }

    #[test]
    fn the_gateway_is_nobody_elses() {
        let mut clash = request("10.1.0.0/24", "10.1.0.9", "");
        clash.subnets[0].aux_addresses = [("router".into(), "10.1.0.9".into())].into();
        assert!(matches!(check(&clash), Err(SpecError::Twice { .. })));
    }
}
