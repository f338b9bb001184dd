//! Volumes in lists and inspections.

use davit_contracts::storage::Volume;
use serde_json::{Value, json};

use super::labels;
use crate::output::template::LABEL;
use crate::output::words;

/// docker's columns of `volume ls`.
pub const COLUMNS: [(&str, &str); 2] = [("DRIVER", "Driver"), ("VOLUME NAME", "Name")];

fn driver(v: &Volume) -> &str {
    if v.driver.is_empty() { "local" } else { &v.driver }
}

/// docker's keys.
pub fn row(v: &Volume) -> Value {
    json!({
        "Name": v.name,
        "Driver": driver(v),
        "Mountpoint": v.mountpoint,
        "Scope": "local",
        "Labels": labels(&v.labels),
        LABEL: v.labels,
        "Links": v.users.len().to_string(),
        "Size": "N/A",
        "Availability": "N/A",
        "Group": "N/A",
        "Status": "N/A",
    })
}

/// docker's object of a volume.
pub fn inspect(v: &Volume) -> Value {
    json!({
        "Name": v.name,
        "Driver": driver(v),
        "Mountpoint": v.mountpoint,
        "Scope": "local",
        "CreatedAt": words::rfc3339(v.created_unix_ns),
        "Labels": v.labels,
        "Options": v.options,
        "Anonymous": v.anonymous,
        "UsedBy": v.users,
    })
}
