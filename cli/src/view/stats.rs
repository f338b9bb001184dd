//! A container's row in `stats`.

use davit_contracts::runtime::StatsResponse;
use serde_json::{Value, json};

use crate::output::words;

/// docker's columns.
pub const COLUMNS: [(&str, &str); 8] = [
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
];

/// docker's keys, and how often the limits were felt. The share of CPU is that since `before`, or the mean since the start.
pub fn row(now: &StatsResponse, before: Option<&StatsResponse>, no_trunc: bool) -> Value {
    let id = if no_trunc { now.id.as_str() } else { words::short(&now.id) };
    let memory = if now.memory_limit == 0 { 0.0 } else { share(now.memory_bytes, now.memory_limit) };
    json!({
        "ID": id,
        "Container": id,
        "Name": now.name,
        "CPUPerc": format!("{:.2}%", cpu(now, before)),
        "MemUsage": format!("{} / {}", binary(now.memory_bytes), binary(now.memory_limit)),
        "MemPerc": format!("{memory:.2}%"),
        "NetIO": format!("{} / {}", words::size(now.net_rx), words::size(now.net_tx)),
        "BlockIO": format!("{} / {}", words::size(now.blk_read), words::size(now.blk_write)),
        "PIDs": now.pids.to_string(),
        "ThrottledPeriods": now.throttled_periods,
        "ThrottledTime": now.throttled_ns,
        "OOMKills": now.oom_kills,
    })
}

#[allow(clippy::cast_precision_loss)] // percent with two digits
fn share(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole as f64
}

fn cpu(now: &StatsResponse, before: Option<&StatsResponse>) -> f64 {
    // A container that was started anew begins from zero.
    let before =
        before.filter(|b| b.running && b.started_unix_ns == now.started_unix_ns && b.cpu_ns <= now.cpu_ns);
    let (used, since) = match before {
        Some(b) => (now.cpu_ns - b.cpu_ns, b.time_unix_ns),
        None => (now.cpu_ns, now.started_unix_ns),
    };
    let took = u64::try_from(now.time_unix_ns - since).unwrap_or(0);
    if took == 0 || !now.running { 0.0 } else { share(used, took) }
}

/// docker's `BytesSize`: powers of 1024, four digits.
#[allow(clippy::cast_precision_loss)] // four digits
fn binary(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    let digits = if value >= 1000.0 {
        0
    } else if value >= 100.0 {
        1
    } else if value >= 10.0 {
        2
    } else {
        3
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (bytes, text) in [
            (0, "0B"),
            (512, "512B"),
            (1536, "1.5KiB"),
            (1_478_656, "1.41MiB"),
            (24 << 30, "24GiB"),
            (1000 << 10, "1000KiB"),
        ] {
            assert_eq!(binary(bytes), text);
        }
    }

    #[test]
    fn the_share_of_cpu_is_of_the_last_round_or_the_mean() {
        let at = |time: i64, cpu: u64| StatsResponse {
            running: true,
            time_unix_ns: time,
            started_unix_ns: 1_000_000_000,
            cpu_ns: cpu,
            ..StatsResponse::default()
        };
        let now = at(3_000_000_000, 1_000_000_000);
        assert_eq!(row(&now, None, false)["CPUPerc"], "50.00%");
        assert_eq!(row(&now, Some(&at(2_000_000_000, 900_000_000)), false)["CPUPerc"], "10.00%");
        // Started anew since.
        let other = StatsResponse { started_unix_ns: 5, ..at(2_000_000_000, 900_000_000) };
        assert_eq!(row(&now, Some(&other), false)["CPUPerc"], "50.00%");
    }

    #[test]
    fn what_does_not_run_uses_nothing() {
        let row = row(&StatsResponse { name: "c".into(), ..StatsResponse::default() }, None, false);
        for (key, text) in [
            ("CPUPerc", "0.00%"),
            ("MemUsage", "0B / 0B"),
            ("MemPerc", "0.00%"),
            ("NetIO", "0B / 0B"),
            ("PIDs", "0"),
        ] {
            assert_eq!(row[key], text, "{key}");
        }
    }
}
