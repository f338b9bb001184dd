//! Filters of lists and of events, as docker combines them: one of the values of a key must fit (of `label` all), and every key.

use std::collections::{BTreeMap, HashMap};

use davit_contracts::runtime::KeyValue;

use crate::error::RuntimeError;
use crate::nearest::nearest;

/// The values asked for, by key.
#[derive(Debug, Default, Clone)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Joins both forms of the contract; refuses keys that are not `known`.
    pub fn new(
        map: &HashMap<String, String>,
        list: &[KeyValue],
        known: &[&str],
    ) -> Result<Self, RuntimeError> {
        let mut out = Self::default();
        let pairs = map.iter().chain(list.iter().map(|kv| (&kv.key, &kv.value)));
        for (key, value) in pairs {
            if !known.contains(&key.as_str()) {
                let near = nearest(key, known.iter().copied());
                let hint = near.first().map_or_else(|| known.join(", "), |n| format!("did you mean {n}?"));
                return Err(RuntimeError::Invalid(format!("invalid filter '{key}': {hint}")));
            }
            out.0.entry(key.clone()).or_default().push(value.clone());
        }
        Ok(out)
    }

    /// Whether a key is asked for.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The values of a key.
    pub fn of(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether everything fits; `fits` looks at one key and value.
    pub fn pass(&self, fits: impl Fn(&str, &str) -> bool) -> bool {
        self.0.iter().all(|(key, values)| match key.as_str() {
            "label" => values.iter().all(|v| fits(key, v)),
            _ => values.iter().any(|v| fits(key, v)),
        })
    }
}

/// `key` or `key=value` among labels.
pub fn has_label(labels: &HashMap<String, String>, asked: &str) -> bool {
    match asked.split_once('=') {
        Some((k, v)) => labels.get(k).is_some_and(|have| have == v),
        None => labels.contains_key(asked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(pairs: &[(&str, &str)]) -> Filters {
        let list: Vec<_> =
            pairs.iter().map(|(k, v)| KeyValue { key: (*k).into(), value: (*v).into() }).collect();
        Filters::new(&HashMap::new(), &list, &["a", "b", "label"]).unwrap()
    }

    #[test]
    fn values_are_alternatives_and_keys_are_not() {
        let is = |k: &str, v: &str| matches!((k, v), ("a", "1") | ("b", "2") | ("label", "x" | "y"));
        assert!(filters(&[]).pass(is));
        assert!(filters(&[("a", "1"), ("a", "9"), ("b", "2")]).pass(is));
        assert!(!filters(&[("a", "1"), ("b", "9")]).pass(is));
        assert!(filters(&[("label", "x"), ("label", "y")]).pass(is));
        assert!(!filters(&[("label", "x"), ("label", "z")]).pass(is));
    }

    #[test]
    fn unknown_keys_are_refused_with_their_neighbour() {
        let map = HashMap::from([("stauts".to_owned(), String::new())]);
        let e = Filters::new(&map, &[], &["status", "name"]).unwrap_err().to_string();
        assert!(e.contains("did you mean status?"), "{e}");
    }
}
