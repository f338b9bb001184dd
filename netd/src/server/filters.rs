//! Filters of a list of networks, as docker's.

use std::collections::HashMap;

use davit_contracts::{Error, Kind};
use tonic::Status;

use crate::engine::Listed;
use crate::network::options::nearest;

const FILTERS: [&str; 7] = ["name", "id", "driver", "label", "scope", "type", "dangling"];

/// What a list is narrowed to. Several values of a filter, separated by commas, mean any of them; several labels mean all of
/// them.
#[derive(Debug, Clone)]
pub(super) struct Filters(HashMap<String, String>);

impl Filters {
    pub(super) fn parse(filters: &HashMap<String, String>) -> Result<Self, Status> {
        for (key, value) in filters {
            if !FILTERS.contains(&key.as_str()) {
                let nearest = nearest(key, FILTERS);
                let error = Error::new(Kind::InvalidArgument, format!("unknown filter '{key}'"));
                return Err(error.with_hint(format!("did you mean '{nearest}'?")).into());
            }
            let allowed: &[&str] = match key.as_str() {
                "type" => &["custom", "builtin"],
                "dangling" => &["true", "false", "1", "0"],
                "scope" => &["local", "global", "swarm"],
                _ => continue,
            };
            if let Some(bad) = value.split(',').find(|v| !allowed.contains(v)) {
                let error = Error::new(Kind::InvalidArgument, format!("filter {key} cannot be '{bad}'"));
                return Err(error.with_hint(format!("it is one of {}", allowed.join(", "))).into());
            }
        }
        Ok(Self(filters.clone()))
    }

    pub(super) fn match_network(&self, listed: &Listed) -> bool {
        let network = &listed.network;
        let label = |value: &str| match value.split_once('=') {
            Some((label, wanted)) => network.labels.get(label).is_some_and(|v| v == wanted),
            None => network.labels.contains_key(value),
        };
        let matches = |key: &str, value: &str| match key {
            "name" => network.name.contains(value),
            "id" => network.id.as_str().starts_with(value),
            "driver" => network.driver.name() == value,
            "scope" => value == "local",
            "type" => network.predefined == (value == "builtin"),
            "dangling" => (!network.predefined && !listed.used) == matches!(value, "true" | "1"),
            _ => label(value),
        };
        self.0.iter().all(|(key, values)| match key.as_str() {
            "label" => values.split(',').all(label),
            _ => values.split(',').any(|value| matches(key, value)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::example;

    fn filters(pairs: &[(&str, &str)]) -> Result<Filters, Error> {
        let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        Filters::parse(&pairs.iter().map(own).collect()).map_err(Error::from)
    }

    #[test]
    fn docker_s_words_are_understood() {
        let mut network = example("front", "10.0.0.0/24");
        network.labels = [("tier".into(), "web".into()), ("own".into(), String::new())].into();
        let listed = Listed { network, mtu: 1500, endpoints: Vec::new(), used: false, problems: Vec::new() };
        for (pairs, wanted) in [
            (&[("name", "ron")][..], true),
            (&[("name", "back,ron")], true),
            (&[("driver", "macvlan")], false),
            (&[("label", "tier=web,own")], true),
            (&[("label", "tier=web,other")], false),
            (&[("scope", "local")], true),
            (&[("scope", "swarm")], false),
            (&[("type", "custom")], true),
            (&[("type", "builtin")], false),
            (&[("dangling", "true")], true),
            (&[("dangling", "false")], false),
            (&[("name", "front"), ("type", "builtin")], false),
        ] {
            assert_eq!(filters(pairs).unwrap().match_network(&listed), wanted, "{pairs:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_told() {
        let e = filters(&[("drivr", "bridge")]).unwrap_err();
        assert_eq!(e.hint(), "did you mean 'driver'?");
        let e = filters(&[("type", "custm")]).unwrap_err();
        assert!(e.hint().contains("builtin"), "{}", e.hint());
    }
}
