//! A container's row in `ps`.

use davit_contracts::network::{Endpoint, PortMapping};
use davit_contracts::runtime::{Container, State};
use serde_json::{Value, json};

use super::labels;
use crate::output::template::LABEL;
use crate::output::words;
use crate::parse::port::inside;

/// docker's columns of `ps`.
pub const COLUMNS: [(&str, &str); 7] = [
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
];

/// docker's keys.
pub fn row(c: &Container, now: i64, no_trunc: bool) -> Value {
    let state = c.state.clone().unwrap_or_default();
    let networks = connections(c).into_iter().map(|e| e.network).collect::<Vec<_>>();
    let networks = if networks.is_empty() { mode(c) } else { networks.join(",") };
    let mounts: Vec<&str> = c
        .mount_points
        .iter()
        .map(|m| if m.name.is_empty() { m.source.as_str() } else { m.name.as_str() })
        .collect();
    let volumes = c.mount_points.iter().filter(|m| m.r#type == "volume").count();
    let command = c.argv.join(" ");
    let command = if no_trunc { command } else { words::cut(&command, 20) };
    let own_labels = c.spec.clone().unwrap_or_default().labels;
    json!({
        "ID": if no_trunc { c.id.as_str() } else { words::short(&c.id) },
        "Image": c.image,
        "Command": format!("\"{}\"", command.escape_default().to_string().replace("\\u{2026}", "…").replace("\\'", "'")),
        "CreatedAt": words::listed(c.created_unix_ns),
        "RunningFor": words::ago(c.created_unix_ns, now),
        "Ports": ports(&[c.ports.clone(), unpublished(c)].concat()),
        "State": state.status,
        "Status": status(&state, now),
        "Size": "0B",
        "Names": c.name,
        "Labels": labels(&own_labels),
        LABEL: own_labels,
        "Mounts": mounts.join(","),
        "LocalVolumes": volumes.to_string(),
        "Networks": networks,
    })
}

/// The network mode as docker names it.
pub fn mode(c: &Container) -> String {
    let mode = c.spec.as_ref().and_then(|s| s.network.as_ref()).map_or("", |n| n.mode.as_str());
    if mode.is_empty() { "bridge".into() } else { mode.to_owned() }
}

/// Its connections: those that it has; of one that does not run, those that it will have, without addresses.
pub fn connections(c: &Container) -> Vec<Endpoint> {
    if !c.endpoints.is_empty() {
        return c.endpoints.clone();
    }
    let asked = c.spec.as_ref().and_then(|s| s.network.clone()).unwrap_or_default();
    let mut names: Vec<&str> = asked.endpoints.iter().map(|e| e.network.as_str()).collect();
    match asked.mode.as_str() {
        mode if mode.starts_with("container:") => return Vec::new(),
        "" if !names.is_empty() => {}
        _ if asked.disconnected && names.is_empty() => return Vec::new(),
        mode => {
            let first = if matches!(mode, "" | "default") { "bridge" } else { mode };
            names.retain(|name| *name != first);
            names.insert(0, first);
        }
    }
    names.into_iter().map(|name| Endpoint { network: name.to_owned(), ..Endpoint::default() }).collect()
}

/// `Up 5 minutes (healthy)`, `Exited (0) 2 hours ago`.
pub fn status(state: &State, now: i64) -> String {
    let up = || format!("Up {}", words::duration(now - state.started_unix_ns));
    match state.status.as_str() {
        "running" => match state.health.as_str() {
            "" => up(),
            "starting" => format!("{} (health: starting)", up()),
            health => format!("{} ({health})", up()),
        },
        "paused" => format!("{} (Paused)", up()),
        "exited" if state.oom_killed => {
            format!(
                "Exited ({}) {} (out of memory)",
                state.exit_code,
                words::ago(state.finished_unix_ns, now)
            )
        }
        "created" => "Created".into(),
        "removing" => "Removal In Progress".into(),
        "dead" => "Dead".into(),
        "restarting" => {
            format!("Restarting ({}) {}", state.exit_code, words::ago(state.finished_unix_ns, now))
        }
        _ => format!("Exited ({}) {}", state.exit_code, words::ago(state.finished_unix_ns, now)),
    }
}

/// The ports that a living container exposes in networks of its own and does not publish; without a port of the host.
pub fn unpublished(c: &Container) -> Vec<PortMapping> {
    if c.endpoints.is_empty() {
        return Vec::new();
    }
    let published: Vec<String> = c.ports.iter().map(inside).collect();
    let exposed = c.exposed_ports.iter().filter(|text| !published.contains(text));
    let port = |(port, protocol): (&str, &str)| {
        let container_port = port.parse().ok()?;
        Some(PortMapping { container_port, protocol: protocol.to_owned(), ..PortMapping::default() })
    };
    exposed.filter_map(|text| text.split_once('/').and_then(port)).collect()
}

/// `0.0.0.0:8080->80/tcp, [::]:8080->80/tcp`, with neighbouring ports as one range.
pub fn ports(ports: &[PortMapping]) -> String {
    let mut sorted: Vec<&PortMapping> = ports.iter().collect();
    sorted.sort_by_key(|p| (p.protocol.clone(), p.host_ip.clone(), p.container_port, p.host_port));
    let mut groups: Vec<(&PortMapping, u32)> = Vec::new();
    for p in sorted {
        match groups.last_mut() {
            Some((first, n))
                if first.protocol == p.protocol
                    && first.host_ip == p.host_ip
                    && first.container_port + *n == p.container_port
                    && p.host_port == if first.host_port == 0 { 0 } else { first.host_port + *n } =>
            {
                *n += 1;
            }
            _ => groups.push((p, 1)),
        }
    }
    let range =
        |first: u32, n: u32| if n == 1 { first.to_string() } else { format!("{first}-{}", first + n - 1) };
    let show = |(p, n): &(&PortMapping, u32)| {
        let protocol = if p.protocol.is_empty() { "tcp" } else { &p.protocol };
        let inside = format!("{}/{protocol}", range(p.container_port, *n));
        match (p.host_port, p.host_ip.as_str()) {
            (0, _) => inside,
            (port, "") => format!("0.0.0.0:{}->{inside}", range(port, *n)),
            (port, ip) if ip.contains(':') => format!("[{ip}]:{}->{inside}", range(port, *n)),
            (port, ip) => format!("{ip}:{}->{inside}", range(port, *n)),
        }
    };
    groups.iter().map(show).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, host: u32, container: u32, protocol: &str) -> PortMapping {
        PortMapping {
            host_ip: ip.into(),
            host_port: host,
            container_port: container,
            protocol: protocol.into(),
            host_port_end: 0,
        }
    }

    #[test]
    fn ports_are_shown_as_docker_does() {
        let all = [
            port("", 8081, 81, "tcp"),
            port("", 8080, 80, "tcp"),
            port("::1", 53, 53, "udp"),
            port("127.0.0.1", 9, 90, "tcp"),
        ];
        assert_eq!(ports(&all), "0.0.0.0:8080-8081->80-81/tcp, 127.0.0.1:9->90/tcp, [::1]:53->53/udp");
        assert_eq!(ports(&[port("", 0, 80, "tcp")]), "80/tcp");
        assert_eq!(ports(&[]), "");
        assert_eq!(ports(&[port("", 0, 80, "tcp"), port("", 1, 81, "tcp")]), "80/tcp, 0.0.0.0:1->81/tcp");
    }

    #[test]
    fn states_in_dockers_words() {
        let s = |status: &str, health: &str| State {
            status: status.into(),
            health: health.into(),
            exit_code: 3,
            started_unix_ns: 1,
            finished_unix_ns: 1,
            ..State::default()
        };
        let oom = State { oom_killed: true, ..s("exited", "") };
        assert_eq!(status(&oom, 120_000_000_001), "Exited (3) 2 minutes ago (out of memory)");
        let now = 120_000_000_001;
        for (state, text) in [
            (s("running", ""), "Up 2 minutes"),
            (s("running", "healthy"), "Up 2 minutes (healthy)"),
            (s("running", "starting"), "Up 2 minutes (health: starting)"),
            (s("paused", ""), "Up 2 minutes (Paused)"),
            (s("exited", ""), "Exited (3) 2 minutes ago"),
            (s("created", ""), "Created"),
        ] {
            assert_eq!(status(&state, now), text);
        }
    }

    #[test]
    fn a_row_has_dockers_keys() {
        let c = Container {
            id: "a".repeat(64),
            name: "web".into(),
            argv: vec!["sh".into(), "-c".into(), "echo a long command line".into()],
            ..Container::default()
        };
        let row = row(&c, 0, false);
        assert_eq!(row["ID"], "aaaaaaaaaaaa");
        assert_eq!(row["Command"], "\"sh -c echo a long c…\"");
        assert_eq!(row["Networks"], "bridge");
    }

    #[test]
    fn exposed_ports_stand_beside_published_ones_while_it_lives() {
        let mut c = Container {
            exposed_ports: ["53/udp", "80/tcp", "81/tcp"].map(str::to_owned).to_vec(),
            ports: vec![port("", 8080, 80, "tcp")],
            endpoints: vec![davit_contracts::network::Endpoint::default()],
            ..Container::default()
        };
        assert_eq!(row(&c, 0, false)["Ports"], "0.0.0.0:8080->80/tcp, 81/tcp, 53/udp");
        c.endpoints.clear();
        c.ports.clear();
        assert_eq!(row(&c, 0, false)["Ports"], "");
    }
}
