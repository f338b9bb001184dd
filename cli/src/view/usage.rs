//! What takes space, in docker's tables.

use std::collections::HashMap;

use davit_contracts::runtime::Container;
use davit_contracts::storage::DiskUsageResponse;
use davit_contracts::storage::disk_usage_response::Usage;
use serde_json::{Value, json};

use super::{container, image, volume};
use crate::output::words;

/// Title and key of each column.
pub type Columns = &'static [(&'static str, &'static str)];

/// docker's columns of `system df`.
pub const COLUMNS: [(&str, &str); 5] = [
    ("TYPE", "Type"),
    ("TOTAL", "TotalCount"),
    ("ACTIVE", "Active"),
    ("SIZE", "Size"),
    ("RECLAIMABLE", "Reclaimable"),
];
const IMAGES: Columns = &[
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
    ("SHARED SIZE", "SharedSize"),
    ("UNIQUE SIZE", "UniqueSize"),
    ("CONTAINERS", "Containers"),
];
const CONTAINERS: Columns = &[
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("LOCAL VOLUMES", "LocalVolumes"),
    ("SIZE", "Size"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("NAMES", "Names"),
];
const VOLUMES: Columns = &[("VOLUME NAME", "Name"), ("LINKS", "Links"), ("SIZE", "Size")];

/// A row for each kind of thing; nothing here has a build cache.
pub fn rows(answer: &DiskUsageResponse) -> Vec<Value> {
    let row = |kind: &str, usage: Option<Usage>| {
        let u = usage.unwrap_or_default();
        json!({
            "Type": kind,
            "TotalCount": u.count.to_string(),
            "Active": u.active.to_string(),
            "Size": words::size(u.bytes),
            "Reclaimable": reclaimable(u),
        })
    };
    vec![
        row("Images", answer.images),
        row("Containers", answer.containers),
        row("Local Volumes", answer.volumes),
        row("Build Cache", None),
    ]
}

fn reclaimable(u: Usage) -> String {
    let size = words::size(u.reclaimable);
    match (u128::from(u.reclaimable) * 100).checked_div(u128::from(u.bytes)) {
        Some(percent) => format!("{size} ({percent}%)"),
        None => size,
    }
}

/// The three tables of `-v`, with what they are of.
pub fn verbose(
    answer: &DiskUsageResponse,
    containers: &[Container],
    sizes: &HashMap<&str, u64>,
    now: i64,
) -> Vec<(&'static str, Columns, Vec<Value>)> {
    let mut images = Vec::new();
    for usage in &answer.image {
        let Some(i) = &usage.image else { continue };
        for line in image::lines(i, false) {
            let mut row = line.row(now, false);
            row["SharedSize"] = words::size(usage.shared_bytes).into();
            row["UniqueSize"] = words::size(usage.unique_bytes).into();
            images.push(row);
        }
    }
    let with_size = |c: &Container| {
        let mut row = container::row(c, now, false);
        row["Size"] = words::size(sizes.get(c.id.as_str()).copied().unwrap_or(0)).into();
        row
    };
    let volumes = answer.volume.iter().filter_map(|v| {
        let mut row = volume::row(v.volume.as_ref()?);
        row["Size"] = words::size(v.bytes).into();
        Some(row)
    });
    vec![
        ("Images", IMAGES, images),
        ("Containers", CONTAINERS, containers.iter().map(with_size).collect()),
        ("Local Volumes", VOLUMES, volumes.collect()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_whole_and_nothing_has_none() {
        let images = Usage { count: 3, active: 1, bytes: 2_000, reclaimable: 1_500 };
        let answer = DiskUsageResponse { images: Some(images), ..DiskUsageResponse::default() };
        let rows = rows(&answer);
        assert_eq!((&rows[0]["Size"], &rows[0]["Reclaimable"]), (&json!("2kB"), &json!("1.5kB (75%)")));
        assert_eq!(rows[1]["Reclaimable"], "0B");
        assert_eq!(rows.iter().filter_map(|r| r["Type"].as_str()).count(), 4);
    }
}
