//! The network flags of `run`.

use davit_contracts::network::{EndpointSpec, PortMapping};
use davit_contracts::runtime::NetworkSpec;

use crate::args::run::CreateArgs;
use crate::parse;

/// What the flags say of networks, names and ports.
pub(super) fn network(args: &CreateArgs) -> Result<NetworkSpec, String> {
    let published = args.publish.iter().map(|text| Ok((text.as_str(), parse::port::publish(text)?)));
    let published = published.collect::<Result<Vec<_>, String>>()?;
    if let Some((one, other)) = parse::port::clash(&published) {
        return Err(format!(
            "-p {one} and -p {other} are for the same port of the host: one of them has to be another"
        ));
    }
    let ports: Vec<PortMapping> = published.into_iter().flat_map(|(_, mappings)| mappings).collect();
    let mut exposed = Vec::new();
    for text in &args.expose {
        exposed.extend(parse::port::exposed(text)?.iter().map(parse::port::inside));
    }
    let wanted = args.network.iter().map(|text| parse::network::network(text));
    let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
    let mode = wanted.first().map(|e| e.network.clone()).unwrap_or_default();
    let mode = if mode == "default" { String::new() } else { mode };
    check_shared(args, &mode, &wanted, &ports)?;
    for (flag, texts) in [("dns-search", &args.dns_search), ("dns-option", &args.dns_option)] {
        if texts.iter().any(String::is_empty) {
            return Err(format!("--{flag} is empty"));
        }
        if let Some(bad) = texts.iter().find(|text| !super::is_word(text)) {
            return Err(format!("--{flag} {bad:?} has a space, a line end or a control character in it"));
        }
    }
    if let Some(bad) = args.dns_search.iter().find(|domain| !is_domain(domain)) {
        return Err(format!("--dns-search {bad} is not a valid domain"));
    }
    Ok(NetworkSpec {
        endpoints: if is_shared(&mode) { Vec::new() } else { endpoints(args, wanted)? },
        mode,
        ports,
        publish_all: args.publish_all,
        exposed,
        dns: args.dns.iter().map(ToString::to_string).collect(),
        dns_search: args.dns_search.clone(),
        dns_options: args.dns_option.clone(),
        mac: args.mac_address.clone().unwrap_or_default(),
        disconnected: false,
    })
}

/// Whether DNS has a place for it (RFC 1035, section 2.3.4); the root stands for no domain at all.
fn is_domain(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    text == "." || (name.len() <= 253 && name.split('.').all(|label| (1..=63).contains(&label.len())))
}

fn is_shared(mode: &str) -> bool {
    mode == "host" || mode == "none" || mode.starts_with("container:")
}

/// Whether any of the flags that are about one endpoint is there.
fn has_own(args: &CreateArgs) -> bool {
    let address = args.ip.is_some() || args.ip6.is_some() || args.mac_address.is_some();
    address || !args.network_alias.is_empty() || !args.link.is_empty()
}

fn check_shared(
    args: &CreateArgs,
    mode: &str,
    wanted: &[EndpointSpec],
    ports: &[PortMapping],
) -> Result<(), String> {
    if let Some(other) = wanted.iter().skip(1).find(|e| is_shared(&e.network)) {
        return Err(format!("the network '{}' excludes others", other.network));
    }
    if !is_shared(mode) {
        return Ok(());
    }
    if wanted.len() > 1 {
        return Err(format!("the network '{mode}' excludes others"));
    }
    let plain = EndpointSpec { network: mode.to_owned(), ..EndpointSpec::default() };
    if has_own(args) || wanted.first().is_some_and(|e| *e != plain) {
        return Err(format!("the network '{mode}' has neither aliases nor addresses of the container's own"));
    }
    if !mode.starts_with("container:") {
        return Ok(());
    }
    if !ports.is_empty() {
        return Err("ports are published by the container whose network is shared".into());
    }
    if !args.expose.is_empty() {
        return Err("ports are exposed by the container whose network is shared".into());
    }
    // Its files of /etc are the other container's too.
    let dns = !args.dns.is_empty() || !args.dns_search.is_empty() || !args.dns_option.is_empty();
    for (given, what) in [
        (args.hostname.is_some(), "hostname"),
        (dns, "dns"),
        (!args.add_host.is_empty(), "custom host-to-IP mapping"),
    ] {
        if given {
            return Err(format!("conflicting options: {what} and the network mode '{mode}'"));
        }
    }
    Ok(())
}

/// The endpoints: addresses, mac and links of the flags are the first network's, aliases everyone's.
fn endpoints(args: &CreateArgs, mut wanted: Vec<EndpointSpec>) -> Result<Vec<EndpointSpec>, String> {
    if wanted.is_empty() {
        wanted.push(EndpointSpec { network: "bridge".into(), ..EndpointSpec::default() });
    }
    for endpoint in &mut wanted {
        if endpoint.network == "default" {
            endpoint.network = "bridge".into();
        }
        endpoint.aliases.extend(args.network_alias.iter().cloned());
    }
    for (at, endpoint) in wanted.iter().enumerate() {
        if wanted[..at].iter().any(|e| e.network == endpoint.network) {
            return Err(format!("--network {} is given twice", endpoint.network));
        }
    }
    let first = &mut wanted[0];
    first.links.extend(args.link.iter().cloned());
    let text = |ip: Option<String>| ip.unwrap_or_default();
    for (flag, given, place) in [
        ("ip", text(args.ip.map(|ip| ip.to_string())), &mut first.ip),
        ("ip6", text(args.ip6.map(|ip| ip.to_string())), &mut first.ip6),
        ("mac-address", text(args.mac_address.clone()), &mut first.mac),
    ] {
        if !given.is_empty() && !place.is_empty() {
            return Err(format!("--{flag} and {flag}= of --network are both given: one of them is enough"));
        }
        if !given.is_empty() {
            *place = given;
        }
    }
    // A name says it all: nothing to keep of it beside the mode.
    let plain =
        |e: &EndpointSpec| *e == EndpointSpec { network: e.network.clone(), ..EndpointSpec::default() };
    if wanted.len() == 1 && plain(&wanted[0]) {
        wanted.clear();
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: CreateArgs,
    }

    fn of(line: &str) -> Result<NetworkSpec, String> {
        let words = ["run"].into_iter().chain(line.split_whitespace()).chain(["image"]);
        network(&Line::try_parse_from(words).map_err(|e| e.to_string())?.args)
    }

    #[test]
    fn one_network_by_name_needs_no_endpoint() {
        assert!(of("").unwrap().endpoints.is_empty());
        let got = of("--network front").unwrap();
        assert_eq!((got.mode.as_str(), got.endpoints.len()), ("front", 0));
        assert_eq!(of("--network name=host").unwrap().mode, "host");
    }

    #[test]
    fn flags_are_the_first_networks_and_aliases_everyones() {
        let got = of(
            "--network front --network name=back,gw-priority=1 --ip 10.0.0.9 --link db:data --network-alias a",
        );
        let got = got.unwrap();
        assert_eq!(got.mode, "front");
        let [front, back] = got.endpoints.as_slice() else { panic!("{:?}", got.endpoints) };
        assert_eq!((front.ip.as_str(), front.links.as_slice()), ("10.0.0.9", &["db:data".to_owned()][..]));
        assert_eq!((back.ip.as_str(), back.gateway_priority), ("", 1));
        assert!([front, back].iter().all(|e| e.aliases == ["a"]));
        let got = of("--link db").unwrap();
        assert_eq!(got.endpoints[0].network, "bridge");
    }

    #[test]
    fn exposed_ports_are_kept_one_by_one() {
        assert_eq!(of("--expose 80-81 --expose 53/UDP").unwrap().exposed, ["80/tcp", "81/tcp", "53/udp"]);
    }

    #[test]
    fn contradictions_are_refused() {
        for (line, why) in [
            ("--network name=front,ip=10.0.0.9 --ip 10.0.0.8", "both given"),
            ("--network host --network front", "excludes"),
            ("--network front --network name=front,alias=a", "--network front is given twice"),
            ("--network default --network bridge", "--network bridge is given twice"),
            ("--link db:a:b", "not a link"),
            ("--network front --network none", "excludes"),
            ("--network name=host,alias=a", "neither aliases"),
            ("--network none --link db", "neither aliases"),
            ("--network container:web -p 80:80", "published by the container whose network is shared"),
            ("--network container:web --expose 80", "exposed by the container whose network is shared"),
            ("--mac-address nonsense", "hardware address"),
            ("-p 8080:80 -p 8080:81", "-p 8080:80 and -p 8080:81"),
            ("--network container:web --mac-address 02:00:00:00:00:01", "neither aliases"),
            ("--network container:web --hostname a", "conflicting options: hostname"),
            ("--network container:web --dns 192.0.2.1", "conflicting options: dns"),
            ("--network container:web --dns-search a", "conflicting options: dns"),
            ("--network container:web --dns-option ndots:1", "conflicting options: dns"),
            ("--network container:web --add-host a:10.0.0.1", "conflicting options: custom host-to-IP"),
            ("--dns-search=", "--dns-search is empty"),
            ("--dns-search a..b", "--dns-search a..b is not a valid domain"),
            ("--dns-search ..", "not a valid domain"),
            ("--dns-search good.example. --dns-search .bad", "--dns-search .bad is not"),
            ("--dns x", "'x' is not an IP address"),
            ("--dns 10.0.0.1/24", "only 10.0.0.1 is expected"),
            ("--dns 127.0.0.11", "own resolver"),
            ("--dns fe80::1", "fe80::1%eth0"),
            ("-p 8080:80 -p [::1]:8080:81", "-p 8080:80 and -p [::1]:8080:81"),
            ("--dns-search a\u{1}b", "control character"),
        ] {
            let e = of(line).unwrap_err();
            assert!(e.contains(why), "{line}: {e}");
        }
    }
}
