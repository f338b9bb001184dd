//! Between messages and the engine's types. Texts from outside are checked here when they have one form only.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use davit_contracts::network as proto;
use davit_contracts::{Error, Kind};
use davit_sys::netns::NetnsError;
use tonic::Status;

use crate::dns::nameserver::NameServer;
use crate::endpoint::journal::Journal;
use crate::endpoint::{Bandwidth, Endpoint, Holder, Mapping, Sandbox};
use crate::engine::{AttachSpec, Attached, EndpointSpec, Listed};
use crate::firewall::Transport;
use crate::network::Driver;
use crate::publish::Wanted;

fn invalid(message: String) -> Status {
    Error::new(Kind::InvalidArgument, message).into()
}

/// An attach request, checked.
pub(super) fn attach_spec(request: proto::AttachRequest) -> Result<AttachSpec, Status> {
    if !Journal::acceptable(&request.sandbox_id) {
        return Err(invalid(format!("'{}' is not a sandbox id", request.sandbox_id)));
    }
    let holder = request.holder.ok_or_else(|| invalid("the sandbox's holder is missing".into()))?;
    // They are written into files of lines and words.
    one_word("hostname", &request.hostname)?;
    request.dns_search.iter().try_for_each(|domain| one_word("search domain", domain))?;
    request.dns_options.iter().try_for_each(|option| one_word("DNS option", option))?;
    let servers = request
        .dns_servers
        .iter()
        .map(|text| NameServer::given(text).map_err(|e| invalid(format!("DNS server {e}"))));
    Ok(AttachSpec {
        holder: holder_of(&holder)?,
        endpoints: request.endpoints.into_iter().map(endpoint_spec).collect(),
        ports: request.ports.iter().map(port).collect::<Result<_, _>>()?,
        dns_servers: servers.collect::<Result<_, _>>()?,
        dns_search: request.dns_search,
        dns_options: request.dns_options,
        labels: request.labels.into_iter().collect(),
        without_resolver: request.without_resolver,
        must_be_new: request.must_be_new,
        without_ipv6: request.without_ipv6,
        name: if request.name.is_empty() { request.sandbox_id.clone() } else { request.name },
        id: request.sandbox_id,
        hostname: request.hostname,
    })
}

/// Refuses white space and control characters.
fn one_word(what: &str, text: &str) -> Result<(), Status> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(invalid(format!("{what} {text:?} has a space, a line end or a control character in it")));
    }
    Ok(())
}

fn holder_of(holder: &proto::Holder) -> Result<Holder, Status> {
    if holder.netns.is_empty() {
        return Ok(Holder::Process { pid: holder.pid, start_time: holder.start_time });
    }
    let path = Path::new(&holder.netns);
    if holder.pid != 0 || !path.is_absolute() {
        let text =
            format!("a sandbox is named by its process or by an absolute path, not by '{}'", holder.netns);
        return Err(invalid(text));
    }
    Holder::at(path).map_err(|error| {
        let kind = match &error {
            NetnsError::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => Kind::WrongState,
            NetnsError::Open { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Kind::PermissionDenied
            }
            NetnsError::Other(_) => Kind::InvalidArgument,
            _ => Kind::Internal,
        };
        Error::from_error(kind, &error).with_subject(holder.netns.clone()).into()
    })
}

/// A wanted connection.
pub(super) fn endpoint_spec(spec: proto::EndpointSpec) -> EndpointSpec {
    EndpointSpec {
        network: spec.network,
        aliases: spec.aliases,
        ip: spec.ip,
        ip6: spec.ip6,
        mac: spec.mac,
        interface: spec.interface,
        gateway_priority: spec.gateway_priority,
        links: spec.links,
        bandwidth: spec.bandwidth.map(limits).unwrap_or_default(),
        options: spec.options.into_iter().collect(),
    }
}

fn limits(b: proto::Bandwidth) -> Bandwidth {
    Bandwidth {
        ingress_rate: b.ingress_rate,
        ingress_burst: b.ingress_burst,
        egress_rate: b.egress_rate,
        egress_burst: b.egress_burst,
    }
}

fn bandwidth(b: &Bandwidth) -> proto::Bandwidth {
    proto::Bandwidth {
        ingress_rate: b.ingress_rate,
        ingress_burst: b.ingress_burst,
        egress_rate: b.egress_rate,
        egress_burst: b.egress_burst,
    }
}

fn port(mapping: &proto::PortMapping) -> Result<Wanted, Status> {
    let number =
        |n: u32| u16::try_from(n).map_err(|_| invalid(format!("{n} is not a port: 65535 is the highest")));
    let transport = match mapping.protocol.as_str() {
        "" | "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        "sctp" => Transport::Sctp,
        other => return Err(invalid(format!("unknown protocol '{other}': tcp, udp or sctp is expected"))),
    };
    let host_ip: IpAddr = match mapping.host_ip.as_str() {
        "" => Ipv4Addr::UNSPECIFIED.into(),
        text => text.parse().map_err(|_| invalid(format!("host address '{text}' is not an IP address")))?,
    };
    if let Some(what) = no_place(host_ip) {
        let text = format!("cannot publish a port on {host_ip}: it is {what}");
        return Err(Error::new(Kind::InvalidArgument, text)
            .with_subject(host_ip.to_string())
            .with_hint("give an address that the host has, or none for all of them")
            .into());
    }
    let (first, last) = (number(mapping.host_port)?, number(mapping.host_port_end)?);
    let container_port = number(mapping.container_port)?;
    if container_port == 0 {
        return Err(invalid("a published port needs a container port from 1 to 65535".into()));
    }
    if last != 0 && (first == 0 || last < first) {
        return Err(invalid(format!("{first}-{last} is not a range of ports")));
    }
    let everywhere = mapping.host_ip.is_empty();
    Ok(Wanted { transport, host_ip, everywhere, first, last: last.max(first), container_port })
}

/// What an address is on which nobody outside would ask for a port, though the kernel may bind it.
fn no_place(ip: IpAddr) -> Option<&'static str> {
    match ip {
        ip if ip.is_multicast() => Some("a multicast address"),
        IpAddr::V4(ip) if ip.is_broadcast() => Some("the broadcast address"),
        IpAddr::V6(ip) if ip.is_unicast_link_local() => {
            Some("a link-local address, which means nothing without an interface")
        }
        _ => None,
    }
}

fn mapping(m: &Mapping) -> proto::PortMapping {
    proto::PortMapping {
        host_ip: m.host.ip().to_string(),
        host_port: m.host.port().into(),
        container_port: m.container_port.into(),
        protocol: m.transport.name().to_owned(),
        host_port_end: 0,
    }
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}

/// An endpoint, as answers show it.
pub(super) fn endpoint(sandbox: &Sandbox, e: &Endpoint, network: &str) -> proto::Endpoint {
    proto::Endpoint {
        id: e.id.to_string(),
        network_id: e.network.to_string(),
        network: network.to_owned(),
        sandbox_id: sandbox.id.clone(),
        name: sandbox.name.clone(),
        interface: e.interface.clone(),
        host_interface: e.host_interface.clone(),
        mac: text(e.mac),
        ip: text(e.ip),
        gateway: text(e.gateway),
        ip6: text(e.ip6),
        gateway6: text(e.gateway6),
        names: e.names.clone(),
        bandwidth: e.bandwidth.as_deref().map(bandwidth),
        gateway_priority: e.gateway_priority,
        ..proto::Endpoint::default()
    }
}

/// All endpoints of a sandbox.
pub(super) fn endpoints(attached: &Attached) -> Vec<proto::Endpoint> {
    let both = attached.sandbox.endpoints.iter().zip(&attached.networks);
    let mut all: Vec<_> = both.map(|(e, network)| endpoint(&attached.sandbox, e, network)).collect();
    for (told, end) in all.iter_mut().zip(&attached.ends) {
        told.mtu = end.mtu;
        told.host_mac = text(end.host_mac);
    }
    if attached.sandbox.holder.process().is_none() {
        for way in attached.sandbox.ways_made() {
            let everywhere = if way.ipv4 { "0.0.0.0/0" } else { "::/0" };
            let through = all.iter_mut().filter(|told| told.interface == way.interface);
            through.for_each(|told| told.default_routes.push(everywhere.to_owned()));
        }
    }
    all
}

/// The answer to an attach.
pub(super) fn attached(a: &Attached) -> proto::AttachResponse {
    proto::AttachResponse {
        endpoints: endpoints(a),
        ports: a.sandbox.ports.iter().map(mapping).collect(),
        resolv_conf: Some(proto::ResolvConf {
            nameservers: a.resolv.servers.iter().map(ToString::to_string).collect(),
            search: a.resolv.search.clone(),
            options: a.resolv.options.clone(),
        }),
        stage_us: a.stages.iter().map(|(stage, us)| ((*stage).to_owned(), *us)).collect(),
        host_gateway: a.host_gateway.iter().map(ToString::to_string).collect(),
    }
}

/// A sandbox in a list.
pub(super) fn sandbox(a: &Attached) -> proto::Sandbox {
    proto::Sandbox {
        id: a.sandbox.id.clone(),
        name: a.sandbox.name.clone(),
        holder: Some(match &a.sandbox.holder {
            Holder::Process { pid, start_time } => {
                proto::Holder { pid: *pid, start_time: *start_time, ..Default::default() }
            }
            Holder::Path { netns, .. } => {
                proto::Holder { netns: netns.display().to_string(), ..Default::default() }
            }
        }),
        labels: a.sandbox.labels.clone().into_iter().collect(),
        endpoints: endpoints(a),
        ports: a.sandbox.ports.iter().map(mapping).collect(),
    }
}

/// A network, as answers show it.
pub(super) fn network(listed: &Listed) -> proto::Network {
    let n = &listed.network;
    let subnet = |s: &crate::network::Subnet| proto::Subnet {
        subnet: s.subnet.to_string(),
        gateway: text(s.gateway),
        ip_range: text(s.ip_range),
        aux_addresses: s.aux.iter().map(|(name, ip)| (name.clone(), ip.to_string())).collect(),
    };
    proto::Network {
        id: n.id.to_string(),
        name: n.name.clone(),
        driver: n.driver.name().to_owned(),
        scope: "local".to_owned(),
        created_unix_ns: n.created_unix_ns,
        ipv6: n.ipv6,
        internal: n.internal,
        attachable: n.attachable,
        subnets: n.subnets.iter().map(subnet).collect(),
        options: n.options.clone().into_iter().collect(),
        labels: n.labels.clone().into_iter().collect(),
        interface: n.interface.clone(),
        predefined: n.predefined,
        endpoints: listed.endpoints.iter().map(|(s, e)| endpoint(s, e, &n.name)).collect(),
        dns: n.dns,
        mtu: listed.mtu,
        parent: n.sublink.as_ref().map(|s| s.parent.clone()).unwrap_or_default(),
        mode: n.mode().to_owned(),
        cni_config: n.cni.as_ref().map(|c| c.config.clone()).unwrap_or_default(),
        disable_ipv4: !n.ipv4,
        problems: listed.problems.clone(),
        policy: n.policy.iter().flat_map(|p| &p.rules).map(Into::into).collect(),
        policy_default: match &n.policy {
            Some(policy) if !policy.default_allow => "deny".to_owned(),
            _ if n.driver == Driver::Bridge => "allow".to_owned(),
            _ => String::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_published_where_somebody_can_ask() {
        let on = |host_ip: &str| {
            let host_ip = host_ip.to_owned();
            port(&proto::PortMapping { host_ip, host_port: 80, container_port: 80, ..Default::default() })
        };
        for ip in ["", "0.0.0.0", "127.0.0.1", "192.0.2.1", "::", "::1", "2001:db8::1"] {
            assert!(on(ip).is_ok(), "{ip}");
        }
        for (ip, what) in [
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("fe80::1", "link-local"),
        ] {
            let e = Error::from(on(ip).unwrap_err());
            assert!(e.message().contains(what) && e.message().contains(ip), "{e}");
        }
    }

    #[test]
    fn what_is_written_into_files_of_lines_is_one_word() {
        let request = || proto::AttachRequest {
            sandbox_id: "a".into(),
            holder: Some(proto::Holder { pid: 1, start_time: 1, ..Default::default() }),
            hostname: "web.lan".into(),
            dns_search: vec![".".into()],
            dns_options: vec!["ndots:2".into()],
            ..Default::default()
        };
        assert!(attach_spec(request()).is_ok());
        for bad in ["a b", "a\nnameserver 192.0.2.1", "a\r", "a\0", "\u{2028}a", "\u{85}"] {
            for (what, request) in [
                ("hostname", proto::AttachRequest { hostname: bad.into(), ..request() }),
                ("search", proto::AttachRequest { dns_search: vec![bad.into()], ..request() }),
                ("option", proto::AttachRequest { dns_options: vec![bad.into()], ..request() }),
            ] {
                let error = attach_spec(request).unwrap_err();
                assert!(error.message().contains(what), "{bad:?}: {error}");
            }
        }
    }
}
