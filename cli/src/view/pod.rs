//! Pods in lists and inspections: podman's keys.

use davit_contracts::runtime::{Container, Pod};
use serde_json::{Value, json};

use super::labels;
use crate::output::words;

/// podman's columns of `pod ps`.
pub const COLUMNS: [(&str, &str); 6] = [
    ("POD ID", "Id"),
    ("NAME", "Name"),
    ("STATUS", "Status"),
    ("CREATED", "Created"),
    ("INFRA ID", "InfraId"),
    ("# OF CONTAINERS", "NumberOfContainers"),
];

fn cut(id: &str, no_trunc: bool) -> &str {
    if no_trunc { id } else { words::short(id) }
}

/// One line of `pod ps`. The infra container counts, as podman has it.
pub fn row(pod: &Pod, now: i64, no_trunc: bool) -> Value {
    json!({
        "Id": cut(&pod.id, no_trunc),
        "ID": cut(&pod.id, no_trunc),
        "Name": pod.name,
        "Status": pod.status,
        "Created": words::ago(pod.created_unix_ns, now),
        "InfraId": cut(&pod.id, no_trunc),
        "NumberOfContainers": pod.containers.len() + 1,
        "Labels": labels(&pod.labels),
        "Namespace": pod.shared.join(","),
        "Containers": pod.containers.iter().map(member).collect::<Vec<_>>(),
    })
}

fn member(c: &Container) -> Value {
    json!({
        "Id": c.id,
        "Name": c.name,
        "State": c.state.as_ref().map_or("", |s| s.status.as_str()),
    })
}

/// The object of `pod inspect`.
pub fn inspect(pod: &Pod) -> Value {
    let infra = pod.infra.clone().unwrap_or_default();
    let all: Vec<Value> = std::iter::once(&infra).chain(&pod.containers).map(member).collect();
    let networks: Vec<&str> = infra.endpoints.iter().map(|e| e.network.as_str()).collect();
    json!({
        "Id": pod.id,
        "Name": pod.name,
        "Created": words::rfc3339(pod.created_unix_ns),
        "State": pod.status,
        "Hostname": infra.hostname,
        "Labels": pod.labels,
        "CreateInfra": true,
        "InfraContainerID": infra.id,
        "InfraConfig": {
            "PortBindings": super::inspect::bindings(&infra.ports),
            "Networks": networks,
            "HostNetwork": infra.spec.as_ref().and_then(|s| s.network.as_ref()).is_some_and(|n| n.mode == "host"),
        },
        "SharedNamespaces": pod.shared,
        "NumContainers": all.len(),
        "Containers": all,
    })
}

/// Whether it passes filters: keys are ANDed, values of one key ORed.
pub fn passes(pod: &Pod, filters: &[(String, String)]) -> Result<bool, String> {
    let one = |key: &str, value: &str| match key {
        "name" => Ok(pod.name.contains(value)),
        "id" => Ok(pod.id.starts_with(value)),
        "status" => Ok(pod.status.eq_ignore_ascii_case(value)),
        "label" => Ok(match value.split_once('=') {
            Some((k, v)) => pod.labels.get(k).is_some_and(|have| have == v),
            None => pod.labels.contains_key(value),
        }),
        _ => Err(format!("invalid filter '{key}': name, id, status and label are known")),
    };
    for (key, _) in filters {
        let mut any = false;
        for (_, value) in filters.iter().filter(|(k, _)| k == key) {
            any |= one(key, value)?;
        }
        if !any {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_pods() {
        let pod = Pod {
            name: "front".into(),
            status: "Running".into(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..Pod::default()
        };
        let f = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            passes(&pod, &pairs)
        };
        assert_eq!(f(&[("name", "fro"), ("status", "running"), ("label", "a=b")]), Ok(true));
        assert_eq!(f(&[("name", "x"), ("name", "front")]), Ok(true));
        assert_eq!(f(&[("name", "front"), ("label", "a=c")]), Ok(false));
        assert!(f(&[("nmae", "x")]).is_err());
    }
}
