//! Lists of containers and docker's filters over them.

use std::collections::HashMap;

use davit_contracts::runtime::{Container, ListRequest};

use super::Engine;
use crate::container::state::Status;
use crate::error::RuntimeError;
use crate::nearest::nearest;

const FILTERS: &[&str] = &["name", "id", "status", "label", "ancestor", "network", "exited", "health"];

impl Engine {
    /// Newest first; only living ones unless asked otherwise.
    pub fn list(&self, request: &ListRequest) -> Result<Vec<Container>, RuntimeError> {
        check(&request.filters)?;
        let all = request.all
            || request.last > 0
            || request.filters.contains_key("status")
            || request.filters.contains_key("exited");
        let views = self.registry.all().into_iter().map(|h| h.view());
        let mut found: Vec<Container> = views
            .filter(|v| !v.gone && (all || v.status().is_alive()))
            .map(|v| v.record.container.clone())
            .filter(|c| passes(c, &request.filters))
            .collect();
        found.sort_by_key(|c| std::cmp::Reverse(c.created_unix_ns));
        if request.last > 0 {
            found.truncate(request.last as usize);
        }
        Ok(found)
    }
}

fn check(filters: &HashMap<String, String>) -> Result<(), RuntimeError> {
    let Some(unknown) = filters.keys().find(|k| !FILTERS.contains(&k.as_str())) else { return Ok(()) };
    let near = nearest(unknown, FILTERS.iter().copied());
    let hint = near.first().map_or_else(|| FILTERS.join(", "), |n| format!("did you mean {n}?"));
    Err(RuntimeError::Invalid(format!("invalid filter '{unknown}': {hint}")))
}

fn passes(c: &Container, filters: &HashMap<String, String>) -> bool {
    let state = c.state.clone().unwrap_or_default();
    let labels = c.spec.as_ref().map(|s| &s.labels);
    filters.iter().all(|(key, value)| match key.as_str() {
        "name" => c.name.contains(value.trim_start_matches('/')),
        "id" => c.id.starts_with(value.as_str()),
        "status" => state.status == *value,
        "label" => labels.is_some_and(|l| match value.split_once('=') {
            Some((k, v)) => l.get(k).is_some_and(|have| have == v),
            None => l.contains_key(value),
        }),
        "ancestor" => is_image(c, value),
        "network" => {
            c.endpoints.iter().any(|e| e.network == *value || e.network_id.starts_with(value.as_str()))
                || (c.endpoints.is_empty() && mode(c) == value)
        }
        "health" => {
            let health = if state.health.is_empty() { "none" } else { &state.health };
            health == value
        }
        "exited" => Status::parse(&state.status) == Status::Exited && value.parse() == Ok(state.exit_code),
        _ => false,
    })
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
    use davit_contracts::runtime::{ContainerSpec, State};

    fn container() -> Container {
        Container {
            id: "abcd".into(),
            name: "web".into(),
            image: "busybox:latest".into(),
            image_id: "sha256:1234abcd".into(),
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
        let f = |k: &str, v: &str| passes(&container(), &[(k.to_owned(), v.to_owned())].into());
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
            ("health", "none"),
        ] {
            assert!(f(k, v), "{k}={v}");
        }
        for (k, v) in
            [("name", "db"), ("label", "a=c"), ("exited", "0"), ("ancestor", "box"), ("status", "running")]
        {
            assert!(!f(k, v), "{k}={v}");
        }
        let e = check(&[("stauts".to_owned(), String::new())].into()).unwrap_err().to_string();
        assert!(e.contains("status"), "{e}");
    }
}
