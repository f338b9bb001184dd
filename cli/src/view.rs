//! From the contracts' messages to the JSON that docker's users know: rows of lists, and inspections.

pub mod container;
pub mod image;
pub mod inspect;
pub mod network;
pub mod volume;

use std::collections::{BTreeMap, HashMap};

/// `a=b,c=d`, sorted, as lists show labels.
pub fn labels(map: &HashMap<String, String>) -> String {
    let sorted: BTreeMap<_, _> = map.iter().collect();
    sorted.into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

/// Filters as the contracts take them. Repeated keys are joined by commas.
pub fn filters(pairs: &[(String, String)]) -> HashMap<String, String> {
    let mut out: HashMap<String, String> = HashMap::new();
    for (key, value) in pairs {
        out.entry(key.clone()).and_modify(|v| *v = format!("{v},{value}")).or_insert_with(|| value.clone());
    }
    out
}
