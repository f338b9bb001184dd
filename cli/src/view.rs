//! From the contracts' messages to the JSON that docker's users know: rows of lists, and inspections.

pub mod container;
pub mod image;
pub mod inspect;
pub mod network;
pub mod state;
pub mod stats;
pub mod usage;
pub mod volume;

use std::collections::{BTreeMap, HashMap};

use davit_contracts::runtime::KeyValue;
use davit_contracts::storage::Filter;

/// `a=b,c=d`, sorted, as lists show labels.
pub fn labels(map: &HashMap<String, String>) -> String {
    let sorted: BTreeMap<_, _> = map.iter().collect();
    sorted.into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

/// Filters of storaged's lists, where a key may be given several times. Ages become moments here: `until=24h`.
pub fn storage_filters(pairs: &[(String, String)], now: i64) -> Result<Vec<Filter>, String> {
    let filter = |(key, value): &(String, String)| {
        let value = if key == "until" {
            crate::output::words::unix(crate::parse::duration::moment(value, now)?)
        } else {
            value.clone()
        };
        Ok(Filter { key: key.clone(), value })
    };
    pairs.iter().map(filter).collect()
}

/// Filters of runtimed's lists and events, where a key may be given several times.
pub fn key_values(pairs: &[(String, String)]) -> Vec<KeyValue> {
    pairs.iter().map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() }).collect()
}
