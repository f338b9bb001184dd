//! Filters of a list of networks, as docker's.

use std::collections::HashMap;

use davit_contracts::{Error, Kind};
use tonic::Status;

use crate::engine::Listed;
use crate::network::options::{distance, nearest};

const FILTERS: [&str; 7] = ["name", "id", "driver", "label", "scope", "type", "dangling"];
/// What else narrows a removal.
const OF_PRUNE: [&str; 2] = ["until", "label!"];

/// What a list is narrowed to. Several values of a filter, separated by commas, mean any of them; several labels, one a line, mean
/// all of them.
#[derive(Debug, Clone)]
pub(super) struct Filters {
    filters: HashMap<String, String>,
    /// Nanoseconds since 1970: only what was made before.
    until: Option<i64>,
}

impl Filters {
    /// Of a list.
    pub(super) fn parse(filters: &HashMap<String, String>) -> Result<Self, Status> {
        Self::checked(filters, &FILTERS)
    }

    /// Of what is to be removed.
    pub(super) fn of_prune(filters: &HashMap<String, String>) -> Result<Self, Status> {
        Self::checked(filters, &[&FILTERS[..], &OF_PRUNE[..]].concat())
    }

    fn checked(filters: &HashMap<String, String>, known: &[&'static str]) -> Result<Self, Status> {
        let mut filters = filters.clone();
        for (key, value) in &filters {
            if !known.contains(&key.as_str()) {
                let nearest = nearest(key, known.iter().copied());
                let hint = if distance(key, nearest) <= 2 {
                    format!("did you mean '{nearest}'?")
                } else {
                    format!("the filters are {}", known.join(", "))
                };
                let error = Error::new(Kind::InvalidArgument, format!("unknown filter '{key}'"));
                return Err(error.with_hint(hint).into());
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
        let until = filters.remove("until").map(|text| unix_ns(&text).ok_or(text)).transpose();
        let until = until.map_err(|text| {
            let error = Error::new(Kind::InvalidArgument, format!("filter until cannot be '{text}'"));
            error.with_hint("it is a Unix time such as 1700000000.5")
        })?;
        Ok(Self { filters, until })
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
            // docker's word for the network without networks is another than ours.
            "driver" => network.driver.name() == if value == "null" { "none" } else { value },
            "scope" => value == "local",
            "type" => network.predefined == (value == "builtin"),
            "dangling" => (!network.predefined && !listed.used) == matches!(value, "true" | "1"),
            _ => false,
        };
        let all = self.filters.iter().all(|(key, values)| match key.as_str() {
            "label" => values.split('\n').all(label),
            "label!" => !values.split('\n').any(label),
            _ => values.split(',').any(|value| matches(key, value)),
        });
        all && self.until.is_none_or(|at| network.created_unix_ns < at)
    }
}

/// `1700000000.5`
fn unix_ns(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) {
        return None;
    }
    let nanos: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos.parse().ok()?)
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
            (&[("label", "tier=web\nown")], true),
            (&[("label", "tier=web\nother")], false),
            (&[("label", "tier=web,own")], false),
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
    fn a_removal_is_narrowed_by_age_and_by_what_labels_are_not_there() {
        let mut network = example("front", "10.0.0.0/24");
        network.labels = [("tier".into(), "web".into())].into();
        network.created_unix_ns = 7_500_000_000;
        let listed = Listed { network, mtu: 1500, endpoints: Vec::new(), used: false, problems: Vec::new() };
        for (key, value, wanted) in [
            ("until", "7.5", false),
            ("until", "7.500000001", true),
            ("until", "8", true),
            ("label!", "tier", false),
            ("label!", "tier=db", true),
            ("label!", "own\ntier=web", false),
            ("label", "tier=web", true),
        ] {
            let given = HashMap::from([(key.to_owned(), value.to_owned())]);
            let filters = Filters::of_prune(&given).map_err(Error::from).unwrap();
            assert_eq!(filters.match_network(&listed), wanted, "{key}={value}");
        }
        for bad in ["", ".", "24h", "-1", "1.x", "99999999999999"] {
            let given = HashMap::from([("until".to_owned(), bad.to_owned())]);
            assert!(Filters::of_prune(&given).is_err(), "{bad}");
        }
        assert!(filters(&[("until", "7")]).is_err() && filters(&[("label!", "a")]).is_err(), "not of a list");
    }

    #[test]
    fn what_is_not_known_is_told() {
        let e = filters(&[("drivr", "bridge")]).unwrap_err();
        assert_eq!(e.hint(), "did you mean 'driver'?");
        let e = filters(&[("colour", "x")]).unwrap_err();
        assert!(e.hint().contains("name, id, driver"), "{}", e.hint());
        let e = filters(&[("type", "custm")]).unwrap_err();
        assert!(e.hint().contains("builtin"), "{}", e.hint());
    }
}
