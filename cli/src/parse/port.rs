//! `-p`: `[HOST_IP:][HOST_PORT[-END]]:CONTAINER_PORT[-END][/PROTO]`, `CONTAINER_PORT`, with IPv6 addresses in brackets, and docker's
//! long form `published=,target=[,protocol=][,host_ip=]`.

use std::collections::HashMap;
use std::net::IpAddr;

use davit_contracts::network::PortMapping;

/// Which flag names a port, and at which address; none is every one of both versions.
type Place = (usize, Option<IpAddr>);

/// Host ports that two flags name: the two as they were given. A flag that leaves the choice meets nobody.
pub fn clash<'a>(given: &'a [(&'a str, Vec<PortMapping>)]) -> Option<(&'a str, &'a str)> {
    // Ranges are long: a port looks only at those that name the same one.
    let mut earlier: HashMap<(&str, u32), Vec<Place>> = HashMap::new();
    for (at, (text, mappings)) in given.iter().enumerate() {
        let chosen = |m: &&PortMapping| m.host_port == 0 || m.host_port_end != 0;
        for m in mappings.iter().filter(|m| !chosen(m)) {
            let address = m.host_ip.parse().ok();
            let same_port = earlier.entry((&m.protocol, m.host_port)).or_default();
            if let Some((other, _)) = same_port.iter().find(|(n, o)| *n != at && meet(*o, address)) {
                return Some((given[*other].0, text));
            }
            same_port.push((at, address));
        }
    }
    None
}

/// Whether two places of the host have an address in common. None is every address of both versions; `0.0.0.0` and `::` are
/// those of one.
fn meet(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return true };
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

/// All mappings that one `-p` means. A range of host ports for one container port means "a free one of these".
pub fn publish(text: &str) -> Result<Vec<PortMapping>, String> {
    if text.contains('=') {
        let short = long(text).map_err(|why| {
            format!("'{text}' is no port mapping: {why} (such as published=8080,target=80,protocol=tcp)")
        })?;
        return publish(&short);
    }
    let bad = |why: &str| {
        format!("'{text}' is no port mapping: {why} (such as 8080:80, 127.0.0.1:53:53/udp, 8000-8010:80)")
    };
    let (rest, protocol) = match text.rsplit_once('/') {
        // docker takes `80/` for `80`.
        Some((rest, protocol)) if !protocol.is_empty() => (rest, protocol.to_ascii_lowercase()),
        Some((rest, _)) => (rest, "tcp".to_owned()),
        None => (text, "tcp".to_owned()),
    };
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(bad(&format!("the protocol '{protocol}' is none of tcp, udp, sctp")));
    }
    let (host, container) = match rest.rsplit_once(':') {
        Some((host, container)) => (Some(host), container),
        None => (None, rest),
    };
    let (first, last) =
        range(container).ok_or_else(|| bad(&format!("'{container}' is not a port of 1 to 65535")))?;
    let (ip, ports) = match host {
        None => ("", ""),
        Some(host) => address(host).ok_or_else(|| bad(&no_address(host)))?,
    };
    if ports.parse::<IpAddr>().is_ok() {
        return Err(bad(&format!(
            "behind an address come two ports, {ports}:{container}:{container} or {ports}::{container}"
        )));
    }
    let mapping = |host_port, host_port_end, container_port| PortMapping {
        host_ip: ip.to_owned(),
        host_port: u32::from(host_port),
        container_port: u32::from(container_port),
        protocol: protocol.clone(),
        host_port_end: u32::from(host_port_end),
    };
    if ports.is_empty() || ports == "0" {
        return Ok((first..=last).map(|port| mapping(0, 0, port)).collect());
    }
    let (host_first, host_last) =
        range(ports).ok_or_else(|| bad(&format!("'{ports}' is not a port of 1 to 65535")))?;
    if host_last - host_first == last - first {
        return Ok((host_first..=host_last).zip(first..=last).map(|(h, c)| mapping(h, 0, c)).collect());
    }
    if first == last {
        return Ok(vec![mapping(host_first, host_last, first)]);
    }
    Err(bad("the two ranges are not of the same length"))
}

/// docker's long form in the short one.
fn long(text: &str) -> Result<String, String> {
    let (mut ip, mut published, mut target, mut protocol) = ("", "", "", "tcp");
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if value.is_empty() || value.contains(['/', ' ']) {
            return Err(format!("'{key}' has no value that fits"));
        }
        match key.trim().to_ascii_lowercase().as_str() {
            "target" => target = value,
            "published" => published = value,
            "protocol" => protocol = value,
            "host_ip" | "host-ip" => ip = value.trim_start_matches('[').trim_end_matches(']'),
            // Of swarms: without one both mean the same.
            "mode" if matches!(value, "ingress" | "host") => {}
            "mode" => return Err(format!("the mode '{value}' is none of ingress and host")),
            _ => return Err(format!("'{key}' is none of published, target, protocol, host_ip and mode")),
        }
    }
    if target.is_empty() {
        return Err("the container's port is missing, target=".into());
    }
    for (key, value) in [("target", target), ("published", published)] {
        if value.contains(':') {
            return Err(format!("{key} '{value}' is not a port"));
        }
    }
    Ok(match ip {
        "" => format!("{published}:{target}/{protocol}"),
        ip if ip.contains(':') => format!("[{ip}]:{published}:{target}/{protocol}"),
        ip => format!("{ip}:{published}:{target}/{protocol}"),
    })
}

fn no_address(host: &str) -> String {
    match host.rsplit_once(':') {
        Some((ip, ports)) if range(ports).is_some() || ports.is_empty() => {
            format!("'{ip}' is not an IP address")
        }
        _ => format!("'{host}' is not an address and a port"),
    }
}

/// `IP:PORTS`, `IP:`, `[V6]:PORTS` or `PORTS`.
fn address(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, ports) = rest.split_once(']')?;
        let ports = if ports.is_empty() { "" } else { ports.strip_prefix(':')? };
        return matches!(ip.parse(), Ok(IpAddr::V6(_))).then_some((ip, ports));
    }
    match text.rsplit_once(':') {
        // docker takes an empty address for none.
        Some((ip, ports)) => (ip.is_empty() || ip.parse::<IpAddr>().is_ok()).then_some((ip, ports)),
        // `127.0.0.1::80` was cut at its last colon: what is left ends with one. `127.0.0.1:80` is docker's error.
        None => Some(("", text)),
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let port = |s: &str| {
        let digits = !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| s.parse::<u16>().ok()).flatten().filter(|p| *p != 0)
    };
    match text.split_once('-') {
        Some((first, last)) => Some((port(first)?, port(last)?)).filter(|(first, last)| first <= last),
        None => port(text).map(|p| (p, p)),
    }
}

/// `--expose` and an image's exposed ports: `80`, `80/udp`, `80-90`.
pub fn exposed(text: &str) -> Result<Vec<PortMapping>, String> {
    if text.contains([':', '=']) {
        return Err(format!("'{text}' is no port to expose: only PORT[-END][/PROTO] is"));
    }
    publish(text).map_err(|_| {
        format!("'{text}' is no port to expose: a port of 1 to 65535, of tcp, udp or sctp, is (such as 80, 53/udp, 80-90)")
    })
}

/// A mapping's port in the container, as docker's keys name it: `80/tcp`.
pub fn inside(p: &PortMapping) -> String {
    format!("{}/{}", p.container_port, if p.protocol.is_empty() { "tcp" } else { &p.protocol })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(text: &str) -> Vec<String> {
        let one = |m: PortMapping| {
            format!("{}|{}|{}|{}|{}", m.host_ip, m.host_port, m.host_port_end, m.container_port, m.protocol)
        };
        publish(text).unwrap_or_else(|e| panic!("{e}")).into_iter().map(one).collect()
    }

    #[test]
    fn dockers_forms() {
        for (text, expected) in [
            ("80", vec!["|0|0|80|tcp"]),
            ("8080:80", vec!["|8080|0|80|tcp"]),
            ("53:53/udp", vec!["|53|0|53|udp"]),
            (":80", vec!["|0|0|80|tcp"]),
            ("0:80", vec!["|0|0|80|tcp"]),
            (":8080:80", vec!["|8080|0|80|tcp"]),
            ("8080:80/", vec!["|8080|0|80|tcp"]),
            ("127.0.0.1:8080:80", vec!["127.0.0.1|8080|0|80|tcp"]),
            ("127.0.0.1::80", vec!["127.0.0.1|0|0|80|tcp"]),
            ("[::1]:8080:80/TCP", vec!["::1|8080|0|80|tcp"]),
            ("[::1]::80", vec!["::1|0|0|80|tcp"]),
            ("::1:8080:80", vec!["::1|8080|0|80|tcp"]),
            ("8000-8001:80-81", vec!["|8000|0|80|tcp", "|8001|0|81|tcp"]),
            ("8000-8010:80", vec!["|8000|8010|80|tcp"]),
            ("80-81/udp", vec!["|0|0|80|udp", "|0|0|81|udp"]),
        ] {
            assert_eq!(show(text), expected, "{text}");
        }
    }

    #[test]
    fn dockers_long_form() {
        for (text, short) in [
            ("published=8080,target=80", "8080:80/tcp"),
            ("target=53,published=53,protocol=udp", "53:53/udp"),
            ("target=80", ":80"),
            ("published=8000-8001,target=80-81,mode=host", "8000-8001:80-81"),
            ("host_ip=127.0.0.1,published=8080,target=80", "127.0.0.1:8080:80"),
            ("host_ip=::1,published=8080,target=80", "[::1]:8080:80"),
            ("host_ip=[::1],target=80", "[::1]::80"),
        ] {
            assert_eq!(show(text), show(short), "{text}");
        }
        for (text, why) in [
            ("published=8080", "target="),
            ("published=8080,target=", "'target' has no value"),
            ("publish=8080,target=80", "'publish' is none of"),
            ("published=8080,target=80,protocol=icmp", "none of tcp, udp, sctp"),
            ("published=8080,target=80,mode=x", "none of ingress and host"),
            ("published=127.0.0.1:8080,target=80", "not a port"),
            ("host_ip=web,published=8080,target=80", "'web' is not an IP address"),
        ] {
            let e = publish(text).unwrap_err();
            assert!(e.contains(why), "{text}: {e}");
        }
        assert!(exposed("published=1,target=2").is_err());
    }

    #[test]
    fn what_is_wrong_is_told() {
        let says = |text: &str, why: &str| {
            let e = publish(text).unwrap_err();
            assert!(e.contains(why), "{e}");
        };
        says("127.0.0.1:80", "127.0.0.1:80:80 or 127.0.0.1::80");
        says("web:8080:80", "'web' is not an IP address");
        says("[::1:8080:80", "'[::1' is not an IP address");
        let e = exposed("80/x").unwrap_err();
        assert!(e.contains("to expose") && !e.contains("8080"), "{e}");
    }

    #[test]
    fn two_flags_of_one_host_port_are_found() {
        let clash = |texts: &[&'static str]| {
            let given: Vec<_> = texts.iter().map(|t| (*t, publish(t).unwrap())).collect();
            clash(&given).map(|(a, b)| format!("{a} {b}"))
        };
        for texts in [
            ["8080:80", "8080:81"],
            ["8080:80", "8080:80"],
            ["8080:80", "127.0.0.1:8080:81"],
            ["8000-8002:80-82", "8001:90"],
            ["[::]:8080:80", "[::1]:8080:80"],
            ["53:53/udp", "0.0.0.0:53:54/udp"],
            ["8080:80", "[::1]:8080:80"],
            ["[::]:8080:80", "8080:80"],
        ] {
            assert_eq!(clash(&texts), Some(texts.join(" ")));
        }
        for texts in [
            ["8080:80", "8081:80"],
            ["53:53/udp", "53:53/tcp"],
            ["127.0.0.1:8080:80", "127.0.0.2:8080:80"],
            ["0.0.0.0:8080:80", "[::]:8080:80"],
            ["0.0.0.0:8080:80", "[::1]:8080:80"],
            ["8000-8010:80", "8005:81"],
            ["80", "80"],
        ] {
            assert_eq!(clash(&texts), None);
        }
    }

    /// Four flags of thirty thousand ports each: compared one by one these are billions of pairs.
    #[test]
    fn long_ranges_are_compared_by_port() {
        let texts = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"]
            .map(|ip| format!("{ip}:10001-40000:10001-40000"));
        let mut given: Vec<_> = texts.iter().map(|t| (t.as_str(), publish(t).unwrap())).collect();
        assert_eq!(clash(&given), None);
        given.push(("40000:1", publish("40000:1").unwrap()));
        assert_eq!(clash(&given), Some((texts[0].as_str(), "40000:1")));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            ":",
            "a:80",
            "80:",
            "80:b",
            "0",
            "65536",
            "80/icmp",
            "/",
            "80/tcp/",
            "8000-8001:80-82",
            "9-8",
            "1-2-3:1",
            "host:80:80",
            "[::1:80:80",
            "[127.0.0.1]:80:80",
            "1.2.3.4.5:80:80",
            "+80:80",
            "127.0.0.1:80",
        ] {
            let result = publish(bad);
            assert!(result.is_err(), "{bad}: {result:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,30}") {
            let _ = publish(&text);
            let _ = exposed(&text);
        }

        #[test]
        fn a_pair_of_ports_is_kept(host in 1u16.., container in 1u16..) {
            let got = publish(&format!("{host}:{container}")).unwrap();
            prop_assert_eq!(got.len(), 1);
            prop_assert_eq!((got[0].host_port, got[0].container_port), (host.into(), container.into()));
        }

        #[test]
        fn equal_ranges_are_paired(first in 1u16..60000, to in 1u16..60000, length in 0u16..20) {
            let got = publish(&format!("{}-{}:{}-{}", first, first + length, to, to + length)).unwrap();
            prop_assert_eq!(got.len(), usize::from(length) + 1);
            prop_assert!(got.iter().all(|m| m.host_port - u32::from(first) == m.container_port - u32::from(to)));
        }
    }
}
