//! Refuses what cannot be before anything is made.

use davit_contracts::nameserver::NameServer;
use davit_contracts::network::{EndpointSpec, PortMapping};
use davit_contracts::runtime::{ContainerSpec, MountSpec};
use davit_contracts::storage::ImageConfig;
use std::collections::BTreeSet;
use std::path::Path;

use super::merge::clean;
use super::{caps, health, host::Host, namespaces, resources, security, system};
use crate::error::RuntimeError;
use crate::logs::options;
use crate::signal;

/// How a container is connected.
#[derive(Debug, Clone, PartialEq)]
pub enum Network {
    /// Its own namespace with these endpoints; none after the last was taken away, until another comes.
    Endpoints(Vec<EndpointSpec>),
    /// Its own namespace with nothing but loopback.
    None,
    /// The host's.
    Host,
    /// Another container's, named by name or id.
    Container(String),
}

/// Checks a spec and answers warnings.
pub fn spec(spec: &ContainerSpec, host: &Host) -> Result<Vec<String>, RuntimeError> {
    let invalid = |text: String| Err(RuntimeError::Invalid(text));
    let unsupported = |text: &str| Err(RuntimeError::Unsupported(text.to_owned()));
    if spec.image.is_empty() {
        return invalid("no image was named".into());
    }
    namespaces::check(spec)?;
    let ns = spec.namespaces.clone().unwrap_or_default();
    if host.rootless && namespaces::user(&ns) != namespaces::Mode::Host {
        return unsupported(
            "--userns: a rootless instance has one user namespace, which all its containers share",
        );
    }
    if !spec.stop_signal.is_empty() && signal::parse(&spec.stop_signal).is_none() {
        return invalid(format!("invalid signal: {}", spec.stop_signal));
    }
    system::check(spec, host.rootless)?;
    check_hostname(&spec.hostname)?;
    check_mounts(spec)?;
    let security = spec.security.clone().unwrap_or_default();
    security::possible(&security::options(&security)?, host.modules, None)?;
    caps::bounding(&security, host.capabilities)?;
    let (_, mut warnings) = resources::settle(&spec.resources.clone().unwrap_or_default(), host)?;
    for device in &spec.devices {
        resources::devices::devices(device)?;
    }
    check_cgroup_parent(&spec.cgroup_parent)?;
    warnings.append(&mut resources::rlimits(&spec.ulimits, host)?.1);
    check_lines(spec)?;
    restart(spec)?;
    spec.health.as_ref().map_or(Ok(()), health::check)?;
    if matches!(network(spec)?, Network::Host) && has_ports(spec) {
        warnings.push("Published ports are discarded when using host network mode".into());
    }
    options::check(&spec.log.clone().unwrap_or_default())?;
    Ok(warnings)
}

/// A path below the hierarchies' roots; nothing leads out of them.
fn check_cgroup_parent(path: &str) -> Result<(), RuntimeError> {
    let odd =
        |part: &str| matches!(part, "." | "..") || part.chars().any(char::is_control) || part.len() > 255;
    if path.split('/').any(odd) || path.len() > 2048 {
        return Err(RuntimeError::Invalid(format!("invalid --cgroup-parent: {path:?}")));
    }
    Ok(())
}

/// A policy that is known, and is not of a container that removes itself.
pub fn restart(spec: &ContainerSpec) -> Result<(), RuntimeError> {
    let invalid = |text: String| Err(RuntimeError::Invalid(text));
    let policy = spec.restart.clone().unwrap_or_default();
    match policy.name.as_str() {
        "" | "no" | "on-failure" | "always" | "unless-stopped" => {}
        other => return invalid(format!("invalid restart policy '{other}'")),
    }
    if policy.max_retries > 0 && policy.name != "on-failure" {
        return invalid(format!("maximum retry count cannot be used with restart policy '{}'", policy.name));
    }
    if spec.auto_remove && !matches!(policy.name.as_str(), "" | "no") {
        return invalid("conflicting options: --restart and --rm".into());
    }
    Ok(())
}

fn has_ports(spec: &ContainerSpec) -> bool {
    spec.network.as_ref().is_some_and(|n| !n.ports.is_empty() || n.publish_all)
}

fn check_hostname(name: &str) -> Result<(), RuntimeError> {
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if name.is_empty() || (name.len() <= 63 && name.split('.').all(label)) {
        Ok(())
    } else {
        Err(RuntimeError::Invalid(format!("invalid hostname: {name}")))
    }
}

/// What is written into /etc/hosts and /etc/resolv.conf: nothing there may end a line or a word.
fn check_lines(spec: &ContainerSpec) -> Result<(), RuntimeError> {
    let invalid = |text: String| Err(RuntimeError::Invalid(text));
    let is_word = |text: &str| !text.chars().any(|c| c.is_whitespace() || c.is_control());
    for entry in &spec.extra_hosts {
        let known = |ip: &str| {
            let ip = ip.trim_start_matches('[').trim_end_matches(']');
            ip == "host-gateway" || ip.parse::<std::net::IpAddr>().is_ok()
        };
        let (name, ip) = entry.split_once([':', '=']).unwrap_or((entry, ""));
        if name.is_empty() || name.contains('#') || !is_word(name) || !known(ip) {
            return invalid(format!("bad format for --add-host: {entry:?}: NAME:IP is expected"));
        }
    }
    let network = spec.network.clone().unwrap_or_default();
    if let Some(e) = network.dns.iter().find_map(|server| NameServer::given(server).err()) {
        return invalid(format!("DNS server {e}"));
    }
    let domain = std::slice::from_ref(&spec.domainname);
    for (what, texts) in [
        ("--dns-search", network.dns_search.as_slice()),
        ("--dns-option", &network.dns_options),
        ("--domainname", domain),
    ] {
        if let Some(bad) = texts.iter().find(|text| !is_word(text)) {
            return invalid(format!("{what} {bad:?} has a space, a line end or a control character in it"));
        }
    }
    Ok(())
}

fn check_mounts(spec: &ContainerSpec) -> Result<(), RuntimeError> {
    let mut seen = BTreeSet::new();
    for m in &spec.mounts {
        check_mount(m)?;
        if !seen.insert(clean(&m.target)) {
            return Err(RuntimeError::Invalid(format!("duplicate mount point: {}", m.target)));
        }
    }
    Ok(())
}

fn check_mount(m: &MountSpec) -> Result<(), RuntimeError> {
    let invalid = |why: String| {
        Err(RuntimeError::Invalid(format!("invalid mount config for type \"{}\": {why}", m.r#type)))
    };
    if !m.target.starts_with('/') {
        return invalid(format!("mount path must be absolute: '{}'", m.target));
    }
    if clean(&m.target) == "/" {
        return invalid("destination can't be '/'".into());
    }
    if !matches!(
        m.propagation.as_str(),
        "" | "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave"
    ) {
        return invalid(format!("unknown propagation '{}'", m.propagation));
    }
    match m.r#type.as_str() {
        "bind" if !m.source.starts_with('/') => {
            invalid(format!("the source must be an absolute path: '{}'", m.source))
        }
        "bind" if !m.create_source && !Path::new(&m.source).exists() => {
            invalid(format!("bind source path does not exist: {}", m.source))
        }
        "volume" if !m.propagation.is_empty() => invalid("a volume has no propagation".into()),
        "volume" if !m.source.is_empty() => Ok(davit_contracts::id::check_name(&m.source)?),
        "tmpfs" if !m.source.is_empty() => invalid("a tmpfs has no source".into()),
        "bind" => super::propagation::possible(m),
        "volume" | "tmpfs" => Ok(()),
        _ => invalid("only bind, volume and tmpfs are known".into()),
    }
}

/// What the network part means.
pub fn network(spec: &ContainerSpec) -> Result<Network, RuntimeError> {
    let asked = spec.network.clone().unwrap_or_default();
    for p in &asked.ports {
        check_port(p)?;
    }
    if let Some(bad) = asked.exposed.iter().find(|text| exposed(text).is_none()) {
        return Err(RuntimeError::Invalid(format!("invalid exposed port {bad}: PORT[/PROTO] is expected")));
    }
    let only_one = |mode: &str| {
        Err(RuntimeError::Invalid(format!(
            "conflicting options: the network '{mode}' cannot be combined with other networks"
        )))
    };
    match asked.mode.as_str() {
        "host" | "none" if asked.endpoints.iter().any(|e| e.network != asked.mode) => {
            return only_one(&asked.mode);
        }
        "host" => return Ok(Network::Host),
        "none" => return Ok(Network::None),
        mode => {
            if let Some(other) = mode.strip_prefix("container:") {
                if other.is_empty() {
                    return Err(RuntimeError::Invalid(
                        "invalid network mode 'container:': it names no container".into(),
                    ));
                }
                if !asked.endpoints.is_empty() {
                    return only_one(mode);
                }
                if !asked.ports.is_empty() {
                    return Err(RuntimeError::Invalid(
                        "conflicting options: port publishing and the container type network mode".into(),
                    ));
                }
                if !asked.exposed.is_empty() {
                    return Err(RuntimeError::Invalid(
                        "conflicting options: port exposing and the container type network mode".into(),
                    ));
                }
                return Ok(Network::Container(other.to_owned()));
            }
        }
    }
    if asked.disconnected && asked.endpoints.is_empty() {
        return Ok(Network::Endpoints(Vec::new()));
    }
    let first = match asked.mode.as_str() {
        "" if !asked.endpoints.is_empty() => asked.endpoints[0].network.clone(),
        "" | "default" => "bridge".to_owned(),
        name => name.to_owned(),
    };
    let mut endpoints = asked.endpoints;
    match endpoints.iter().position(|e| e.network == first) {
        Some(at) => endpoints.swap(0, at),
        None => endpoints.insert(0, EndpointSpec { network: first, ..EndpointSpec::default() }),
    }
    if !asked.mac.is_empty() && endpoints[0].mac.is_empty() {
        endpoints[0].mac = asked.mac;
    }
    Ok(Network::Endpoints(endpoints))
}

fn check_port(p: &PortMapping) -> Result<(), RuntimeError> {
    let bad = |why: &str| {
        Err(RuntimeError::Invalid(format!(
            "invalid port mapping {}:{}/{}: {why}",
            p.host_port, p.container_port, p.protocol
        )))
    };
    if p.container_port == 0 || p.container_port > 65_535 || p.host_port > 65_535 || p.host_port_end > 65_535
    {
        return bad("ports are 1 to 65535");
    }
    if p.host_port_end != 0 && p.host_port_end < p.host_port {
        return bad("the range ends before it begins");
    }
    if !matches!(p.protocol.as_str(), "" | "tcp" | "udp" | "sctp") {
        return bad("the protocol is tcp, udp or sctp");
    }
    if !p.host_ip.is_empty() && p.host_ip.parse::<std::net::IpAddr>().is_err() {
        return bad("the host address is no IP address");
    }
    Ok(())
}

/// The ports to publish: those asked for, and with `publish_all` every exposed one that is not among them.
pub fn ports(spec: &ContainerSpec, image: &ImageConfig) -> Vec<PortMapping> {
    let asked = spec.network.clone().unwrap_or_default();
    let mut ports: Vec<PortMapping> = asked.ports;
    for p in &mut ports {
        if p.protocol.is_empty() {
            "tcp".clone_into(&mut p.protocol);
        }
    }
    if asked.publish_all {
        for (port, protocol) in all_exposed(spec, image) {
            if !ports.iter().any(|p| p.container_port == port && p.protocol == protocol) {
                ports.push(PortMapping { container_port: port, protocol, ..PortMapping::default() });
            }
        }
    }
    ports
}

/// The ports that the image and the spec expose, each once: "53/udp".
pub fn exposed_ports(spec: &ContainerSpec, image: &ImageConfig) -> Vec<String> {
    all_exposed(spec, image).into_iter().map(|(port, protocol)| format!("{port}/{protocol}")).collect()
}

fn all_exposed(spec: &ContainerSpec, image: &ImageConfig) -> BTreeSet<(u32, String)> {
    let own = spec.network.iter().flat_map(|n| &n.exposed);
    image.exposed_ports.iter().chain(own).filter_map(|e| exposed(e)).collect()
}

/// "80/tcp", "80".
fn exposed(text: &str) -> Option<(u32, String)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let port = port.parse().ok().filter(|p| (1..=65_535).contains(p))?;
    let protocol = protocol.to_ascii_lowercase();
    matches!(protocol.as_str(), "tcp" | "udp" | "sctp").then_some((port, protocol))
}

#[cfg(test)]
mod tests;
