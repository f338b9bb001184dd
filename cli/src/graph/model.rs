//! What is drawn: the host, its networks, the containers on them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use davit_contracts::network as proto;
use serde_json::{Value, json};

/// Everything, in the order of drawing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Graph {
    /// The host's name.
    pub host: String,
    /// "nftables" or "iptables".
    pub firewall: String,
    /// Servers that names of the world are asked from.
    pub nameservers: Vec<String>,
    /// The host's own interfaces: those with a default route first.
    pub interfaces: Vec<Interface>,
    /// Networks.
    pub networks: Vec<Network>,
    /// Containers.
    pub containers: Vec<Container>,
    /// Who is on which network.
    pub links: Vec<Link>,
}

/// An interface of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// CIDR.
    pub addresses: Vec<String>,
    /// It works.
    pub up: bool,
    /// A default route leads through it.
    pub uplink: bool,
}

/// A network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `bridge`, ...
    pub driver: String,
    /// `nat`, `routed`, `internal`, ...
    pub mode: String,
    /// Its bridge, or the parent that it sits on.
    pub interface: String,
    /// Subnets with their gateways.
    pub subnets: Vec<(String, String)>,
    /// Whether anything leads out of it.
    pub leads_out: bool,
}

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `8080 → 80/tcp`.
    pub ports: Vec<String>,
}

/// A container's place on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Index of the container.
    pub container: usize,
    /// Index of the network.
    pub network: usize,
    /// Interface inside.
    pub interface: String,
    /// Ethernet address.
    pub mac: String,
    /// Addresses without prefix lengths.
    pub addresses: Vec<String>,
    /// Published ports lead here, and the default route leads out here.
    pub main: bool,
}

impl Graph {
    /// Puts netd's lists together. `networks` are those to draw; with `all`, predefined ones that nobody uses are left
    /// out.
    pub fn new(
        host: &proto::HostResponse,
        networks: &[proto::Network],
        sandboxes: &[proto::Sandbox],
        all: bool,
    ) -> Self {
        let used = |n: &proto::Network| {
            let by = |s: &proto::Sandbox| {
                s.endpoints.iter().any(|e| e.network_id == n.id)
                    || (s.endpoints.is_empty() && n.driver == "none")
            };
            sandboxes.iter().any(by)
        };
        let shown: Vec<&proto::Network> =
            networks.iter().filter(|n| !all || !n.predefined || used(n)).collect();
        let mut graph = Self {
            host: host.hostname.clone(),
            firewall: host.firewall.clone(),
            nameservers: host.nameservers.clone(),
            interfaces: interfaces(host),
            networks: shown.iter().map(|n| network(n)).collect(),
            ..Self::default()
        };
        for sandbox in sandboxes {
            graph.add(sandbox, &shown);
        }
        graph
    }

    fn add(&mut self, sandbox: &proto::Sandbox, shown: &[&proto::Network]) {
        let container = self.containers.len();
        let main = main_endpoint(sandbox);
        let mut links: Vec<Link> = Vec::new();
        for (n, endpoint) in sandbox.endpoints.iter().enumerate() {
            let Some(network) = shown.iter().position(|s| s.id == endpoint.network_id) else { continue };
            let bare = |cidr: &String| cidr.split('/').next().unwrap_or_default().to_owned();
            links.push(Link {
                container,
                network,
                interface: endpoint.interface.clone(),
                mac: endpoint.mac.clone(),
                addresses: [&endpoint.ip, &endpoint.ip6]
                    .into_iter()
                    .filter(|a| !a.is_empty())
                    .map(bare)
                    .collect(),
                main: main == Some(n),
            });
        }
        if sandbox.endpoints.is_empty()
            && let Some(network) = shown.iter().position(|s| s.driver == "none")
        {
            links.push(Link { container, network, main: true, ..Link::default() });
        }
        if links.is_empty() {
            return;
        }
        if !links.iter().any(|l| l.main) {
            links[0].main = true;
        }
        self.links.extend(links);
        let name = if sandbox.name.is_empty() { &sandbox.id } else { &sandbox.name };
        let ports = ports(&sandbox.ports);
        self.containers.push(Container { id: sandbox.id.clone(), name: name.clone(), ports });
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let endpoints = |container: usize| -> Vec<Value> {
            let of = self.links.iter().filter(|l| l.container == container);
            of.map(|l| {
                json!({
                    "Network": self.networks[l.network].name,
                    "Interface": l.interface,
                    "MacAddress": l.mac,
                    "Addresses": l.addresses,
                })
            })
            .collect()
        };
        let containers =
            self.containers.iter().enumerate().map(
                |(n, c)| json!({"Id": c.id, "Name": c.name, "Ports": c.ports, "Endpoints": endpoints(n)}),
            );
        let networks = self.networks.iter().map(|n| {
            let subnets: Vec<Value> =
                n.subnets.iter().map(|(net, gateway)| json!({"Subnet": net, "Gateway": gateway})).collect();
            json!({
                "Id": n.id, "Name": n.name, "Driver": n.driver, "Mode": n.mode, "Interface": n.interface,
                "Subnets": subnets,
            })
        });
        let interfaces = self
            .interfaces
            .iter()
            .map(|i| json!({"Name": i.name, "Addresses": i.addresses, "Up": i.up, "Uplink": i.uplink}));
        json!({
            "Host": {
                "Name": self.host,
                "Firewall": self.firewall,
                "Nameservers": self.nameservers,
                "Interfaces": interfaces.collect::<Vec<_>>(),
            },
            "Networks": networks.collect::<Vec<_>>(),
            "Containers": containers.collect::<Vec<_>>(),
        })
    }
}

/// Those that are no network's bridge and nobody's end of a pair.
fn interfaces(host: &proto::HostResponse) -> Vec<Interface> {
    let own =
        |i: &&proto::HostInterface| i.default_route || (i.network.is_empty() && !i.addresses.is_empty());
    let mut all: Vec<Interface> = host
        .interfaces
        .iter()
        .filter(own)
        .map(|i| Interface {
            name: i.name.clone(),
            addresses: i.addresses.clone(),
            up: i.up,
            uplink: i.default_route,
        })
        .collect();
    all.sort_by_key(|i| !i.uplink);
    all
}

fn network(n: &proto::Network) -> Network {
    let mode = match (n.driver.as_str(), n.mode.as_str()) {
        _ if n.internal => "internal",
        ("bridge", "") => "nat",
        (_, mode) => mode,
    };
    let apart = matches!(n.driver.as_str(), "none") || n.internal || mode == "isolated";
    Network {
        id: n.id.clone(),
        name: n.name.clone(),
        driver: n.driver.clone(),
        mode: mode.to_owned(),
        interface: if n.parent.is_empty() { n.interface.clone() } else { n.parent.clone() },
        subnets: n.subnets.iter().map(|s| (s.subnet.clone(), s.gateway.clone())).collect(),
        leads_out: !apart,
    }
}

/// The endpoint that published ports lead to: the highest priority, then the first with a way out.
fn main_endpoint(sandbox: &proto::Sandbox) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (n, e) in sandbox.endpoints.iter().enumerate() {
        let out = !e.gateway.is_empty() || !e.gateway6.is_empty();
        if out && best.is_none_or(|b| e.gateway_priority > sandbox.endpoints[b].gateway_priority) {
            best = Some(n);
        }
    }
    best
}

/// `8080 → 80/tcp`, `127.0.0.1:8080 → 80/tcp`; one line for a port of both IP versions.
fn ports(mappings: &[proto::PortMapping]) -> Vec<String> {
    let mut by_key: BTreeSet<(u32, u32, &str, String)> = BTreeSet::new();
    for m in mappings {
        let ip: Option<IpAddr> = m.host_ip.parse().ok();
        let at = match ip {
            None => String::new(),
            Some(ip) if ip.is_unspecified() => String::new(),
            Some(IpAddr::V6(ip)) => format!("[{ip}]:"),
            Some(IpAddr::V4(ip)) => format!("{ip}:"),
        };
        by_key.insert((m.host_port, m.container_port, m.protocol.as_str(), at));
    }
    by_key
        .into_iter()
        .map(|(host, container, protocol, at)| format!("{at}{host} → {container}/{protocol}"))
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn endpoint(network: &str, ip: &str, gateway: &str) -> proto::Endpoint {
        proto::Endpoint {
            network_id: format!("{network}-id"),
            network: network.into(),
            interface: "eth0".into(),
            mac: "02:da:ac:12:00:02".into(),
            ip: ip.into(),
            gateway: gateway.into(),
            ..Default::default()
        }
    }

    fn port(ip: &str, host: u32, container: u32) -> proto::PortMapping {
        proto::PortMapping {
            host_ip: ip.into(),
            host_port: host,
            container_port: container,
            protocol: "tcp".into(),
            host_port_end: 0,
        }
    }

    fn net(name: &str, subnet: &str, internal: bool) -> proto::Network {
        proto::Network {
            id: format!("{name}-id"),
            name: name.into(),
            driver: "bridge".into(),
            internal,
            interface: format!("dv-{name}"),
            subnets: vec![proto::Subnet {
                subnet: subnet.into(),
                gateway: subnet.replace(".0/24", ".1"),
                ..Default::default()
            }],
            predefined: name == "bridge",
            ..Default::default()
        }
    }

    /// A web server in front, an application behind, a database on an internal network.
    pub fn example() -> Graph {
        let host = proto::HostResponse {
            hostname: "harbour".into(),
            firewall: "nftables".into(),
            nameservers: vec!["192.0.2.53".into()],
            interfaces: vec![
                proto::HostInterface {
                    name: "eth0".into(),
                    addresses: vec!["192.0.2.10/24".into()],
                    up: true,
                    default_route: true,
                    ..Default::default()
                },
                proto::HostInterface {
                    name: "dv-front".into(),
                    kind: "bridge".into(),
                    addresses: vec!["10.89.0.1/24".into()],
                    network: "front-id".into(),
                    ..Default::default()
                },
            ],
        };
        let networks = [
            net("bridge", "172.17.0.0/24", false),
            net("front", "10.89.0.0/24", false),
            net("back", "10.89.1.0/24", true),
        ];
        let sandbox =
            |name: &str, endpoints: Vec<proto::Endpoint>, ports: Vec<proto::PortMapping>| proto::Sandbox {
                id: format!("{name}-0123456789ab"),
                name: name.into(),
                endpoints,
                ports,
                ..Default::default()
            };
        let sandboxes = [
            sandbox(
                "web",
                vec![endpoint("front", "10.89.0.2/24", "10.89.0.1")],
                vec![port("0.0.0.0", 8080, 80), port("::", 8080, 80), port("127.0.0.1", 8443, 443)],
            ),
            sandbox(
                "app",
                vec![endpoint("front", "10.89.0.3/24", "10.89.0.1"), endpoint("back", "10.89.1.2/24", "")],
                vec![],
            ),
            sandbox("db", vec![endpoint("back", "10.89.1.3/24", "")], vec![]),
        ];
        Graph::new(&host, &networks, &sandboxes, true)
    }

    #[test]
    fn lists_become_a_graph() {
        let graph = example();
        assert_eq!(graph.networks.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["front", "back"]);
        assert_eq!(graph.containers[0].ports, ["8080 → 80/tcp", "127.0.0.1:8443 → 443/tcp"]);
        assert_eq!(graph.interfaces.len(), 1);
        let of_app: Vec<_> =
            graph.links.iter().filter(|l| l.container == 1).map(|l| (l.network, l.main)).collect();
        assert_eq!(of_app, [(0, true), (1, false)]);
        assert!(graph.networks[0].leads_out && !graph.networks[1].leads_out);
        assert_eq!(graph.json()["Containers"][1]["Endpoints"][1]["Network"], "back");
    }
}
