//! events: what the container's cgroups count, in the shape of runc's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::print;
use crate::cgroup::Placement;
use crate::error::{Error, Result};
use crate::state::{StateDir, Status};

/// Prints statistics once, or again and again until the container has ended; out of memory in between.
pub fn events(root: &Path, id: &str, once: bool, interval: Duration) -> Result<()> {
    let dir = StateDir::at(root, id);
    let state = dir.load()?;
    if dir.status(&state) == Status::Stopped {
        return Err(Error::Status { operation: "watch", id: id.to_owned(), status: "stopped" });
    }
    let mut ooms = oom_kills(&state.cgroups);
    loop {
        let line = |kind: &str, data: Value| format!("{}\n", json!({ "type": kind, "id": id, "data": data }));
        print(&line("stats", stats(&state.cgroups)))?;
        if once {
            return Ok(());
        }
        std::thread::sleep(interval);
        let now = oom_kills(&state.cgroups);
        if now > ooms {
            print(&line("oom", Value::Null))?;
        }
        ooms = now;
        if dir.status(&state) == Status::Stopped {
            return Ok(());
        }
    }
}

/// Files of one cgroup; what cannot be read is absent.
struct Files(PathBuf);

impl Files {
    fn text(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.0.join(name)).ok()
    }

    fn number(&self, name: &str) -> u64 {
        // "max" is no limit: runc says 2^64 - 1.
        let parse =
            |text: String| if text.trim() == "max" { Some(u64::MAX) } else { text.trim().parse().ok() };
        self.text(name).and_then(parse).unwrap_or(0)
    }

    /// `KEY NUMBER` lines.
    fn table(&self, name: &str) -> BTreeMap<String, u64> {
        let text = self.text(name).unwrap_or_default();
        let line = |l: &str| {
            let (key, value) = l.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        };
        text.lines().filter_map(line).collect()
    }
}

fn files(placement: &Placement, controller: &str) -> Option<(Files, bool)> {
    if let Some(group) = placement.controller(controller) {
        return Some((Files(group.directory.clone()), false));
    }
    placement.unified().map(|g| (Files(g.directory.clone()), true))
}

fn oom_kills(placement: &Placement) -> u64 {
    let Some((memory, unified)) = files(placement, "memory") else { return 0 };
    let table = memory.table(if unified { "memory.events" } else { "memory.oom_control" });
    table.get("oom_kill").copied().unwrap_or(0)
}

fn stats(placement: &Placement) -> Value {
    let mut out = Map::new();
    out.insert("cpu".into(), cpu(placement));
    if let Some((memory, unified)) = files(placement, "memory") {
        out.insert("memory".into(), if unified { memory_v2(&memory) } else { memory_v1(&memory) });
    }
    if let Some((pids, _)) = files(placement, "pids") {
        let limit = Some(pids.number("pids.max")).filter(|l| *l != u64::MAX).unwrap_or(0);
        out.insert("pids".into(), json!({ "current": pids.number("pids.current"), "limit": limit }));
    }
    out.insert("blkio".into(), json!({}));
    out.insert("hugetlb".into(), json!({}));
    out.insert("intel_rdt".into(), json!({}));
    Value::Object(out)
}

fn cpu(placement: &Placement) -> Value {
    if let Some((acct, false)) = files(placement, "cpuacct") {
        let percpu: Vec<u64> = acct
            .text("cpuacct.usage_percpu")
            .map(|t| t.split_whitespace().filter_map(|n| n.parse().ok()).collect())
            .unwrap_or_default();
        let throttled = files(placement, "cpu").map(|(f, _)| f.table("cpu.stat")).unwrap_or_default();
        let of = |key: &str| throttled.get(key).copied().unwrap_or(0);
        return json!({
            "usage": {
                "total": acct.number("cpuacct.usage"),
                "percpu": percpu,
                "kernel": acct.number("cpuacct.usage_sys"),
                "user": acct.number("cpuacct.usage_user"),
            },
            "throttling": {
                "periods": of("nr_periods"),
                "throttledPeriods": of("nr_throttled"),
                "throttledTime": of("throttled_time"),
            },
        });
    }
    let stat = placement.unified().map(|g| Files(g.directory.clone()).table("cpu.stat")).unwrap_or_default();
    let ns = |key: &str| stat.get(key).copied().unwrap_or(0) * 1000;
    json!({
        "usage": { "total": ns("usage_usec"), "kernel": ns("system_usec"), "user": ns("user_usec") },
        "throttling": {
            "periods": ns("nr_periods") / 1000,
            "throttledPeriods": ns("nr_throttled") / 1000,
            "throttledTime": ns("throttled_usec"),
        },
    })
}

fn memory_v1(files: &Files) -> Value {
    let raw = files.table("memory.stat");
    let entry = |prefix: &str| {
        json!({
            "limit": files.number(&format!("{prefix}.limit_in_bytes")),
            "usage": files.number(&format!("{prefix}.usage_in_bytes")),
            "max": files.number(&format!("{prefix}.max_usage_in_bytes")),
            "failcnt": files.number(&format!("{prefix}.failcnt")),
        })
    };
    json!({
        "cache": raw.get("cache").copied().unwrap_or(0),
        "usage": entry("memory"),
        "swap": entry("memory.memsw"),
        "kernel": entry("memory.kmem"),
        "raw": raw,
    })
}

fn memory_v2(files: &Files) -> Value {
    let raw = files.table("memory.stat");
    let entry = |prefix: &str| {
        json!({
            "limit": files.number(&format!("{prefix}.max")),
            "usage": files.number(&format!("{prefix}.current")),
            "max": files.number(&format!("{prefix}.peak")),
            "failcnt": 0,
        })
    };
    json!({
        "cache": raw.get("file").copied().unwrap_or(0),
        "usage": entry("memory"),
        "swap": entry("memory.swap"),
        "raw": raw,
    })
}
