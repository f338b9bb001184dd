//! From a request to a network: everything that can be checked without looking at the host.

use std::collections::BTreeMap;
use std::net::IpAddr;

use davit_contracts::id::check_name;
use davit_contracts::network as proto;
use ipnet::IpNet;

use super::{BridgeOptions, Driver, SpecError, Subnet, pools};

/// A checked request; subnets that are not given are still to be chosen.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// Given subnets, at most one of a family.
    pub subnets: Vec<Subnet>,
    /// Whether IPv6 is wanted.
    pub ipv6: bool,
    /// Its options.
    pub bridge: BridgeOptions,
}

/// Checks a request.
pub fn check(request: &proto::CreateNetworkRequest) -> Result<Spec, SpecError> {
    check_name(&request.name)?;
    match request.driver.as_str() {
        "" | "bridge" => {}
        driver @ ("host" | "none" | "null") => return Err(SpecError::Predefined(driver.to_owned())),
        other => return Err(SpecError::Driver(other.to_owned())),
    }
    let options: BTreeMap<_, _> = request.options.clone().into_iter().collect();
    let bridge = BridgeOptions::parse(&options)?;
    let subnets = request.subnets.iter().map(subnet).collect::<Result<Vec<_>, _>>()?;
    let v4 = subnets.iter().filter(|s| s.subnet.addr().is_ipv4()).count();
    let v6 = subnets.len() - v4;
    if v4 > 1 || v6 > 1 {
        return Err(SpecError::Families("a bridge network has at most one subnet of each IP version"));
    }
    Ok(Spec { name: request.name.clone(), subnets, ipv6: request.ipv6 || v6 == 1, bridge })
}

fn parse<T: std::str::FromStr>(value: &str, expected: &'static str) -> Result<T, SpecError> {
    value.parse().map_err(|_| SpecError::Parse { value: value.to_owned(), expected })
}

/// Checks one subnet.
fn subnet(given: &proto::Subnet) -> Result<Subnet, SpecError> {
    let whole: IpNet = parse(&given.subnet, "a subnet such as 10.89.0.0/24")?;
    let whole = whole.trunc();
    // A /30 has one address for the bridge and one for a container.
    if whole.max_prefix_len() - whole.prefix_len() < 2 || whole.prefix_len() == 0 {
        return Err(SpecError::TooSmall(whole));
    }
    let ip_range = match given.ip_range.as_str() {
        "" => None,
        text => {
            let range: IpNet = parse(text, "a range such as 10.89.0.128/25")?;
            inside(&whole, "ip range", &range, whole.contains(&range))?;
            Some(range.trunc())
        }
    };
    let gateway = match given.gateway.as_str() {
        "" => pools::first_address(&whole),
        text => {
            let gateway: IpAddr = parse(text, "an address")?;
            inside(&whole, "gateway", &gateway, whole.contains(&gateway) && usable(&whole, gateway))?;
            gateway
        }
    };
    let mut aux = BTreeMap::new();
    for (name, text) in &given.aux_addresses {
        let address: IpAddr = parse(text, "an address")?;
        inside(&whole, "aux address", &address, whole.contains(&address))?;
        aux.insert(name.clone(), address);
    }
    Ok(Subnet { subnet: whole, gateway, ip_range, aux })
}

fn inside(subnet: &IpNet, what: &str, address: &dyn std::fmt::Display, ok: bool) -> Result<(), SpecError> {
    if ok {
        return Ok(());
    }
    Err(SpecError::Outside { what: what.to_owned(), address: address.to_string(), subnet: *subnet })
}

/// Neither the network's own address nor IPv4's broadcast.
fn usable(net: &IpNet, ip: IpAddr) -> bool {
    ip != net.network() && (ip.is_ipv6() || ip != net.broadcast())
}

/// A subnet that was chosen rather than given.
pub fn chosen(subnet: IpNet) -> Subnet {
    Subnet { gateway: pools::first_address(&subnet), subnet, ip_range: None, aux: BTreeMap::new() }
}

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
        let spec = check(&request("10.89.0.7/24", "", "")).unwrap();
        assert_eq!(spec.subnets[0].subnet.to_string(), "10.89.0.0/24");
        assert_eq!(spec.subnets[0].gateway.to_string(), "10.89.0.1");
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
    fn drivers_and_families_are_checked() {
        let mut two = request("10.1.0.0/24", "", "");
        two.subnets.push(two.subnets[0].clone());
        assert!(matches!(check(&two), Err(SpecError::Families(_))));
        let driver = |d: &str| proto::CreateNetworkRequest {
            name: "n".into(),
            driver: d.into(),
            ..Default::default()
        };
        assert!(matches!(check(&driver("macvlan")), Err(SpecError::Driver(_))));
        assert!(matches!(check(&driver("host")), Err(SpecError::Predefined(_))));
    }
}
