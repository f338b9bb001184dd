//! `--network`: a name, or docker's long form `name=NET,alias=A,ip=ADDRESS,...`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use davit_contracts::nameserver::{NameServer, NameServerError};
use davit_contracts::network::{Bandwidth, EndpointSpec};
use ipnet::IpNet;

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
        "link" => spec.links.push(link(value)?),
        "ip" => {
            let ip: Ipv4Addr = value.parse().map_err(|_| no_address(value, "IPv4"))?;
            spec.ip = ip.to_string();
        }
        "ip6" => {
            let ip: Ipv6Addr = value.parse().map_err(|_| no_address(value, "IPv6"))?;
            spec.ip6 = ip.to_string();
        }
        "mac-address" => spec.mac = mac(value)?,
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
    if bytes.len() != 6 || !bytes.iter().all(hex) {
        return Err(format!("'{text}' is not a hardware address such as 02:42:ac:11:00:02"));
    }
    if u8::from_str_radix(bytes[0], 16).is_ok_and(|first| first & 1 == 1) {
        return Err(format!(
            "'{text}' is a group's hardware address: the first byte of an interface's is even"
        ));
    }
    Ok(text.to_owned())
}

/// `CONTAINER` or `CONTAINER:NAME`.
pub fn link(text: &str) -> Result<String, String> {
    let mut parts = text.split(':');
    let good = parts.clone().count() <= 2 && parts.all(|part| !part.is_empty());
    if good {
        Ok(text.to_owned())
    } else {
        Err(format!("'{text}' is not a link: CONTAINER[:NAME] is expected"))
    }
}

/// A subnet or a part of one, as CIDR. Host bits are netd's to refuse.
pub fn subnet(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(ip) => format!("'{text}' has no length: a subnet such as {} is expected", example(ip)),
        Err(_) => format!("'{text}' is not a subnet such as 10.89.0.0/24 or fd00:89::/64"),
    })
}

fn example(ip: IpAddr) -> String {
    let length = if ip.is_ipv4() { 24 } else { 64 };
    IpNet::new(ip, length).map_or_else(|_| ip.to_string(), |net| net.trunc().to_string())
}

/// An address of either version.
pub fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| match text.parse::<IpNet>() {
        Ok(net) => format!("'{text}' is an address with a length: only {} is expected", net.addr()),
        Err(_) => format!("'{text}' is not an IP address"),
    })
}

/// A name server that a container can ask.
pub fn name_server(text: &str) -> Result<NameServer, String> {
    NameServer::given(text).map_err(|e| match e {
        // Nothing but an address was meant: this one says more.
        NameServerError::Address(_) => ip(text).err().unwrap_or_else(|| e.to_string()),
        e => e.to_string(),
    })
}

/// An IPv4 address.
pub fn ipv4(text: &str) -> Result<Ipv4Addr, String> {
    match ip(text)? {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(_) => Err(format!("'{text}' is an IPv6 address, which --ip6 takes")),
    }
}

/// An IPv6 address.
pub fn ipv6(text: &str) -> Result<Ipv6Addr, String> {
    match ip(text)? {
        IpAddr::V6(ip) => Ok(ip),
        IpAddr::V4(_) => Err(format!("'{text}' is an IPv4 address, which --ip takes")),
    }
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
    fn what_looks_like_an_address_is_told_as_what_it_is() {
        let told = |result: Result<String, String>, why: &str| {
            let e = result.unwrap_err();
            assert!(e.contains(why), "{e}");
        };
        let text = |value: &dyn ToString| value.to_string();
        told(subnet("10.1.2.3").map(|v| text(&v)), "such as 10.1.2.0/24");
        told(subnet("fd00:1::1").map(|v| text(&v)), "such as fd00:1::/64");
        told(subnet("10.1.2.0/33").map(|v| text(&v)), "not a subnet");
        told(ip("10.1.2.3/24").map(|v| text(&v)), "only 10.1.2.3");
        told(ip("router").map(|v| text(&v)), "not an IP address");
        told(ipv4("fd00::1").map(|v| text(&v)), "--ip6");
        told(ipv6("10.1.2.3").map(|v| text(&v)), "--ip takes");
        told(mac("01:00:5e:00:00:01"), "a group's");
        told(mac("02:00:5e:00:00"), "not a hardware address");
        for bad in ["", "db:", ":db", "db:a:b"] {
            told(link(bad), "not a link");
        }
        assert!(link("db").is_ok() && link("db:data").is_ok());
        assert!(mac("2:42:ac:11:0:2").is_ok() && subnet("10.1.2.3/24").is_ok());
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, why) in [
            ("alias=a", "name is missing"),
            ("name=a,ip=fd00::1", "not an IPv4"),
            ("name=a,ipp=1", "'ipp' is none of"),
            ("name=a,alias", "no value"),
            ("name=a,gw-priority=x", "not a number"),
            ("name=v6,mac-address=01:00:5e:00:00:01", "a group's"),
            ("name=a,ingress-rate=fast", "not a rate"),
            ("name=a,driver-opt=x", "key=value"),
        ] {
            let e = network(text).unwrap_err();
            assert!(e.contains(why), "{text}: {e}");
        }
    }
}
