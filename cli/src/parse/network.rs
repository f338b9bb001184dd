//! `--network`: a name, or docker's long form `name=NET,alias=A,ip=ADDRESS,...`.

use davit_contracts::network::{Bandwidth, EndpointSpec};

use super::mount::fields;
use super::{env, rate, size};

const KEYS: &str = "name, alias, ip, ip6, mac-address, gw-priority, interface-name, link, driver-opt, \
    ingress-rate, ingress-burst, egress-rate and egress-burst";

/// One `--network`. Without an equals sign it is a name.
pub fn network(text: &str) -> Result<EndpointSpec, String> {
    if !text.contains('=') {
        return Ok(EndpointSpec { network: text.to_owned(), ..EndpointSpec::default() });
    }
    let bad =
        |why: String| format!("'{text}' is no network: {why} (such as name=front,alias=web,ip=10.0.0.9)");
    let mut spec = EndpointSpec::default();
    for part in fields(text) {
        let (key, value) = part.split_once('=').unwrap_or((&part, ""));
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        if value.is_empty() {
            return Err(bad(format!("'{key}' has no value")));
        }
        field(&mut spec, &key, value).map_err(bad)?;
    }
    if spec.network.is_empty() {
        return Err(bad("its name is missing".into()));
    }
    Ok(spec)
}

fn field(spec: &mut EndpointSpec, key: &str, value: &str) -> Result<(), String> {
    let mut limits = spec.bandwidth.unwrap_or_default();
    match key {
        "name" => value.clone_into(&mut spec.network),
        "alias" => spec.aliases.push(value.to_owned()),
        "link" => spec.links.push(value.to_owned()),
        "ip" => {
            let ip: std::net::Ipv4Addr = value.parse().map_err(|_| no_address(value, "IPv4"))?;
            spec.ip = ip.to_string();
        }
        "ip6" => {
            let ip: std::net::Ipv6Addr = value.parse().map_err(|_| no_address(value, "IPv6"))?;
            spec.ip6 = ip.to_string();
        }
        "mac-address" => value.clone_into(&mut spec.mac),
        "gw-priority" => {
            let number = value.parse().map_err(|_| format!("gw-priority '{value}' is not a number"));
            spec.gateway_priority = number?;
        }
        "interface-name" => value.clone_into(&mut spec.interface),
        "driver-opt" => {
            let (name, value) = env::pair(value)?;
            spec.options.insert(name, value);
        }
        "ingress-rate" => limits.ingress_rate = rate::bits(value)?,
        "egress-rate" => limits.egress_rate = rate::bits(value)?,
        "ingress-burst" => limits.ingress_burst = size::bytes(value)?,
        "egress-burst" => limits.egress_burst = size::bytes(value)?,
        _ => return Err(format!("'{key}' is none of {KEYS}")),
    }
    if limits != Bandwidth::default() {
        spec.bandwidth = Some(limits);
    }
    Ok(())
}

fn no_address(value: &str, version: &str) -> String {
    format!("'{value}' is not an {version} address")
}

/// A mac as every tool writes it; netd checks the rest.
pub fn mac(text: &str) -> Result<String, String> {
    let bytes: Vec<_> = text.split([':', '-']).collect();
    let hex = |b: &&str| (1..=2).contains(&b.len()) && b.bytes().all(|c| c.is_ascii_hexdigit());
    if bytes.len() == 6 && bytes.iter().all(hex) {
        return Ok(text.to_owned());
    }
    Err(format!("'{text}' is not a hardware address such as 02:42:ac:11:00:02"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_name() {
        assert_eq!(network("front").unwrap().network, "front");
        assert_eq!(network("container:web").unwrap().network, "container:web");
    }

    #[test]
    fn the_long_form_is_understood() {
        let text = "name=front,alias=a,alias=b,ip=10.0.0.9,ip6=fd00::9,mac-address=02:00:00:00:00:01,\
            gw-priority=-5,interface-name=wan,ingress-rate=10mbit,egress-rate=1gbit,egress-burst=64k,link=db:data,\
            \"driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.a=1,net.ipv4.conf.IFNAME.b=0\"";
        let got = network(text).unwrap();
        assert_eq!((got.network.as_str(), got.aliases.len(), got.gateway_priority), ("front", 2, -5));
        assert_eq!(
            (got.ip.as_str(), got.ip6.as_str(), got.interface.as_str()),
            ("10.0.0.9", "fd00::9", "wan")
        );
        let limits = got.bandwidth.unwrap();
        assert_eq!(
            (limits.ingress_rate, limits.egress_rate, limits.egress_burst),
            (10_000_000, 1_000_000_000, 65536)
        );
        assert!(got.options["com.docker.network.endpoint.sysctls"].ends_with("IFNAME.b=0"));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, why) in [
            ("alias=a", "name is missing"),
            ("name=a,ip=fd00::1", "not an IPv4"),
            ("name=a,ipp=1", "'ipp' is none of"),
            ("name=a,alias", "no value"),
            ("name=a,gw-priority=x", "not a number"),
            ("name=a,ingress-rate=fast", "not a rate"),
            ("name=a,driver-opt=x", "key=value"),
        ] {
            let e = network(text).unwrap_err();
            assert!(e.contains(why), "{text}: {e}");
        }
    }
}
