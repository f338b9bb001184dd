//! Lists of containers and docker's filters over them.

use davit_contracts::network::PortMapping;
use davit_contracts::runtime::{Container, ListRequest};

use super::Engine;
use crate::container::handle::View;
use crate::container::state::Status;
use crate::error::RuntimeError;
use crate::filters::{Filters, has_label};

const FILTERS: &[&str] = &[
    "name", "id", "status", "label", "ancestor", "network", "exited", "before", "since", "volume", "publish",
    "expose", "health", "is-task",
];

/// docker's words for states.
const STATES: &[&str] = &["created", "restarting", "running", "removing", "paused", "exited", "dead"];

impl Engine {
    /// Newest first; only living ones unless asked otherwise.
    pub fn list(&self, request: &ListRequest) -> Result<Vec<Container>, RuntimeError> {
        let filters = Filters::new(&request.filters, &request.filter, FILTERS)?;
        check(&filters)?;
        let (before, since) = (self.moments(&filters, "before")?, self.moments(&filters, "since")?);
        let all = request.all
            || request.last > 0
            || ["status", "exited", "before", "since"].iter().any(|key| filters.has(key));
        let views = self.registry.all().into_iter().map(|h| h.view());
        let fits = |v: &View| {
            let c = &v.record.container;
            let inside = before.is_none_or(|at| c.created_unix_ns < at)
                && since.is_none_or(|at| c.created_unix_ns > at);
            inside && filters.pass(|key, value| fits(c, key, value))
        };
        let mut found: Vec<Container> = views
            .filter(|v| !v.gone && (all || v.status().is_alive()) && fits(v))
            .map(|v| v.record.container.clone())
            .collect();
        found.sort_by_key(|c| std::cmp::Reverse(c.created_unix_ns));
        if request.last > 0 {
            found.truncate(request.last as usize);
        }
        Ok(found)
    }

    /// When the container was made that `before` or `since` names; docker takes the last one given.
    fn moments(&self, filters: &Filters, key: &str) -> Result<Option<i64>, RuntimeError> {
        let Some(name) = filters.of(key).last() else { return Ok(None) };
        Ok(Some(self.registry.find(name)?.view().record.container.created_unix_ns))
    }
}

/// Values that nothing could ever fit.
fn check(filters: &Filters) -> Result<(), RuntimeError> {
    let bad = |key: &str, value: &str, known: &str| {
        Err(RuntimeError::Invalid(format!("invalid value '{value}' of filter {key}: {known}")))
    };
    for value in filters.of("status") {
        if !STATES.contains(&value.as_str()) {
            return bad("status", value, &STATES.join(", "));
        }
    }
    for value in filters.of("exited") {
        if value.parse::<i32>().is_err() {
            return bad("exited", value, "an exit code is expected");
        }
    }
    for value in filters.of("health") {
        if !matches!(value.as_str(), "starting" | "healthy" | "unhealthy" | "none") {
            return bad("health", value, "starting, healthy, unhealthy, none");
        }
    }
    for key in ["publish", "expose"] {
        for value in filters.of(key) {
            if ports(value).is_none() {
                return bad(key, value, "PORT[-PORT][/PROTOCOL] is expected");
            }
        }
    }
    Ok(())
}

fn fits(c: &Container, key: &str, value: &str) -> bool {
    let state = c.state.clone().unwrap_or_default();
    match key {
        "name" => c.name.contains(value.trim_start_matches('/')),
        "id" => c.id.starts_with(value),
        "status" => state.status == value,
        "label" => c.spec.as_ref().is_some_and(|s| has_label(&s.labels, value)),
        "ancestor" => is_image(c, value),
        "network" => is_on(c, value),
        "exited" => Status::parse(&state.status) == Status::Exited && value.parse() == Ok(state.exit_code),
        "volume" => {
            c.mount_points.iter().any(|m| [&m.name, &m.source, &m.target].iter().any(|t| *t == value))
        }
        "publish" => ports(value).is_some_and(|p| c.ports.iter().any(|have| p.has_published(have))),
        "expose" => ports(value).is_some_and(|p| c.exposed_ports.iter().any(|have| p.has_exposed(have))),
        "health" => match value {
            "none" => state.health.is_empty(),
            value => state.health == value,
        },
        // Moments were looked at already, and nothing here is a task of swarm.
        "before" | "since" => true,
        "is-task" => value == "false",
        _ => false,
    }
}

fn is_on(c: &Container, network: &str) -> bool {
    c.endpoints.iter().any(|e| e.network == network || e.network_id.starts_with(network))
        || (c.endpoints.is_empty() && mode(c) == network)
}

/// `80`, `80-90`, `53/udp`.
#[derive(Debug, PartialEq, Eq)]
struct Ports {
    first: u32,
    last: u32,
    protocol: String,
}

fn ports(text: &str) -> Option<Ports> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let port = |t: &str| t.parse::<u16>().ok().filter(|p| *p > 0).map(u32::from);
    let (first, last) = (port(first)?, port(last)?);
    let protocol = protocol.to_ascii_lowercase();
    let known = matches!(protocol.as_str(), "tcp" | "udp" | "sctp");
    (known && first <= last).then_some(Ports { first, last, protocol })
}

impl Ports {
    /// docker looks at the host's port.
    fn has_published(&self, p: &PortMapping) -> bool {
        p.protocol == self.protocol && (self.first..=self.last).contains(&p.host_port)
    }

    fn has_exposed(&self, text: &str) -> bool {
        ports(text)
            .is_some_and(|p| p.protocol == self.protocol && (self.first..=self.last).contains(&p.first))
    }
}

fn mode(c: &Container) -> &str {
    let mode = c.spec.as_ref().and_then(|s| s.network.as_ref()).map_or("", |n| n.mode.as_str());
    if mode.is_empty() { "bridge" } else { mode }
}

/// By familiar name with or without its tag, or by id.
fn is_image(c: &Container, asked: &str) -> bool {
    let id = c.image_id.strip_prefix("sha256:").unwrap_or(&c.image_id);
    let asked_id = asked.strip_prefix("sha256:").unwrap_or(asked);
    c.image == asked
        || c.image.strip_suffix(":latest") == Some(asked)
        || (asked_id.len() >= 4 && id.starts_with(asked_id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use davit_contracts::runtime::{ContainerSpec, MountPoint, State};

    fn container() -> Container {
        Container {
            id: "abcd".into(),
            name: "web".into(),
            image: "busybox:latest".into(),
            image_id: "sha256:1234abcd".into(),
            mount_points: vec![MountPoint {
                name: "data".into(),
                target: "/srv".into(),
                ..MountPoint::default()
            }],
            ports: vec![PortMapping {
                host_port: 8080,
                container_port: 80,
                protocol: "tcp".into(),
                ..PortMapping::default()
            }],
            exposed_ports: vec!["53/udp".into()],
            state: Some(State { status: "exited".into(), exit_code: 3, ..State::default() }),
            spec: Some(ContainerSpec {
                labels: [("a".to_owned(), "b".to_owned())].into(),
                ..ContainerSpec::default()
            }),
            ..Container::default()
        }
    }

    #[test]
    fn filters_as_dockers() {
        let f = |k: &str, v: &str| fits(&container(), k, v);
        for (k, v) in [
            ("name", "we"),
            ("id", "ab"),
            ("status", "exited"),
            ("label", "a"),
            ("label", "a=b"),
            ("ancestor", "busybox"),
            ("ancestor", "1234"),
            ("network", "bridge"),
            ("exited", "3"),
            ("volume", "data"),
            ("volume", "/srv"),
            ("publish", "8080"),
            ("publish", "8000-9000/tcp"),
            ("expose", "53/udp"),
            ("health", "none"),
        ] {
            assert!(f(k, v), "{k}={v}");
        }
        for (k, v) in [
            ("name", "db"),
            ("label", "a=c"),
            ("exited", "0"),
            ("ancestor", "box"),
            ("status", "running"),
            ("publish", "80"),
            ("expose", "53"),
            ("health", "healthy"),
            ("volume", "da"),
        ] {
            assert!(!f(k, v), "{k}={v}");
        }
        for bad in ["", "0", "x", "9-8", "80/icmp", "70000"] {
            assert_eq!(ports(bad), None, "{bad}");
        }
    }
}
