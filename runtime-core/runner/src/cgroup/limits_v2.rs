//! Limits on the unified hierarchy, converted from the v1 units that the OCI config is written in.

use std::path::Path;

use davit_sys::cgroup::{CgroupError, read, write};

use super::Joined;
use crate::error::{Error, Result};
use crate::spec::Resources;
use crate::spec::resources::{BlockIo, Cpu, Memory};

const WANTED: [&str; 6] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"];

/// Turns controllers on from the root down to the parent of the container's cgroup, as far as they are there.
pub fn delegate(group: &Joined, resources: Option<&Resources>) -> Result<(), CgroupError> {
    let needed = resources.is_some_and(Resources::limits_asked);
    let Ok(below) = group.directory.strip_prefix(&group.mount_point) else { return Ok(()) };
    let mut at = group.mount_point.clone();
    for name in below {
        let available = read(&at.join("cgroup.controllers"))?;
        let active = read(&at.join("cgroup.subtree_control"))?;
        let has = |list: &str, c: &str| list.split_whitespace().any(|x| x == c);
        for controller in WANTED.iter().filter(|c| has(&available, c) && !has(&active, c)) {
            let done = write(&at.join("cgroup.subtree_control"), &format!("+{controller}"));
            if needed {
                done?;
            }
        }
        at.push(name);
    }
    Ok(())
}

/// Writes all limits that `resources` names.
pub fn apply(d: &Path, resources: &Resources) -> Result<()> {
    let bfq = d.join("io.bfq.weight").exists();
    for (file, value) in values(resources, bfq)?.into_iter().chain(resources.unified.clone()) {
        // A file name, never a path: the config must not reach other cgroups.
        let path = d.join(&file);
        if file == "memory.swap.max" && !path.exists() && d.join("memory.max").exists() {
            // A kernel that does not count swap: there is nothing to limit.
            continue;
        }
        if file.contains('/') || !path.exists() {
            let reason =
                "this machine has no such cgroup controller, or it is not delegated to this user".into();
            return Err(Error::Limit { what: file, reason });
        }
        write(&path, &value)?;
    }
    Ok(())
}

/// File names and values, in order. `bfq`: weights are the bfq scheduler's, in v1's units.
fn values(resources: &Resources, bfq: bool) -> Result<Vec<(String, String)>> {
    let mut out: Vec<(&str, String)> = Vec::new();
    if let Some(m) = &resources.memory {
        memory(m, &mut out)?;
    }
    if let Some(c) = &resources.cpu {
        cpu(c, &mut out);
    }
    if let Some(p) = resources.pids.as_ref().filter(|p| p.limit != 0) {
        out.push(("pids.max", if p.limit > 0 { p.limit.to_string() } else { "max".into() }));
    }
    let mut out: Vec<(String, String)> = out.into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
    if let Some(b) = &resources.block_io {
        block_io(b, bfq, &mut out);
    }
    out.extend(
        resources
            .hugepage_limits
            .iter()
            .map(|h| (format!("hugetlb.{}.max", h.page_size), h.limit.to_string())),
    );
    Ok(out)
}

fn memory(m: &Memory, out: &mut Vec<(&'static str, String)>) -> Result<()> {
    let bytes = |v: i64| if v < 0 { "max".to_owned() } else { v.to_string() };
    let limit = m.limit.filter(|v| *v != 0);
    if let Some(v) = limit {
        out.push(("memory.max", bytes(v)));
    }
    if let Some(v) = m.reservation.filter(|v| *v != 0) {
        out.push(("memory.low", bytes(v)));
    }
    // v1 limits memory and swap together, v2 swap alone.
    match (m.swap.filter(|v| *v != 0), limit) {
        (Some(-1), _) | (None, Some(-1)) => out.push(("memory.swap.max", "max".into())),
        (Some(sum), Some(limit)) if limit > 0 && sum >= limit => {
            out.push(("memory.swap.max", (sum - limit).to_string()));
        }
        (Some(sum), _) => {
            let reason =
                format!("{sum} bytes of memory and swap need a limit of memory that is no greater, too");
            return Err(Error::Limit { what: "swap".into(), reason });
        }
        (None, _) => {}
    }
    Ok(())
}

fn cpu(c: &Cpu, out: &mut Vec<(&'static str, String)>) {
    if let Some(shares) = c.shares.filter(|v| *v != 0) {
        out.push(("cpu.weight", weight_of_shares(shares).to_string()));
    }
    let quota = c.quota.filter(|v| *v != 0);
    if quota.is_some() || c.period.is_some_and(|p| p != 0) {
        let quota = quota.filter(|q| *q > 0).map_or_else(|| "max".to_owned(), |q| q.to_string());
        let period = c.period.filter(|p| *p != 0).unwrap_or(100_000);
        out.push(("cpu.max", format!("{quota} {period}")));
    }
    if let Some(v) = c.burst.filter(|v| *v != 0) {
        out.push(("cpu.max.burst", v.to_string()));
    }
    if let Some(v) = c.idle {
        out.push(("cpu.idle", v.to_string()));
    }
    if !c.cpus.is_empty() {
        out.push(("cpuset.cpus", c.cpus.clone()));
    }
    if !c.mems.is_empty() {
        out.push(("cpuset.mems", c.mems.clone()));
    }
}

/// 2..=262144 onto 1..=10000, linearly, as runc and crun do.
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// 10..=1000 onto 1..=10000, linearly, as runc and crun do.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990
}

fn block_io(b: &BlockIo, bfq: bool, out: &mut Vec<(String, String)>) {
    let weight = |w: u16| if bfq { w.to_string() } else { io_weight(w).to_string() };
    let file = if bfq { "io.bfq.weight" } else { "io.weight" };
    if let Some(w) = b.weight.filter(|w| *w > 0) {
        out.push((file.into(), if bfq { weight(w) } else { format!("default {}", weight(w)) }));
    }
    for d in &b.weight_device {
        let Some(w) = d.weight.filter(|w| *w > 0) else { continue };
        out.push((file.into(), format!("{}:{} {}", d.major, d.minor, weight(w))));
    }
    let limits = [
        ("rbps", &b.throttle_read_bps_device),
        ("wbps", &b.throttle_write_bps_device),
        ("riops", &b.throttle_read_iops_device),
        ("wiops", &b.throttle_write_iops_device),
    ];
    for (key, devices) in limits {
        out.extend(
            devices
                .iter()
                .map(|d| ("io.max".to_owned(), format!("{}:{} {key}={}", d.major, d.minor, d.rate))),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(json: &str, bfq: bool) -> Result<Vec<String>> {
        let all = values(&serde_json::from_str(json).unwrap(), bfq)?;
        Ok(all.into_iter().map(|(f, v)| format!("{f}={v}")).collect())
    }

    #[test]
    fn swap_is_what_is_left_of_the_sum() {
        let memory = |json: &str| lines(&format!(r#"{{"memory":{json}}}"#), false);
        assert_eq!(memory(r#"{"limit":9,"swap":9}"#).unwrap()[1], "memory.swap.max=0");
        assert_eq!(memory(r#"{"limit":9,"swap":-1}"#).unwrap()[1], "memory.swap.max=max");
        assert_eq!(memory(r#"{"limit":-1}"#).unwrap(), ["memory.max=max", "memory.swap.max=max"]);
        assert_eq!(memory(r#"{"limit":9}"#).unwrap(), ["memory.max=9"]);
        memory(r#"{"limit":9,"swap":8}"#).unwrap_err();
        memory(r#"{"swap":8}"#).unwrap_err();
    }

    #[test]
    fn v1_units_become_v2_units() {
        let text = r#"{"memory":{"limit":1000,"swap":1500,"reservation":-1},"cpu":{"shares":1024,"quota":50000},
            "pids":{"limit":-1},"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":10}],
            "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":7}],"throttleWriteIOPSDevice":[{"major":8,"minor":1,"rate":9}]}}"#;
        let got = lines(text, false).unwrap();
        let want = [
            "memory.max=1000",
            "memory.low=max",
            "memory.swap.max=500",
            "cpu.weight=39",
            "cpu.max=50000 100000",
            "pids.max=max",
            "io.weight=default 4950",
            "io.weight=8:0 1",
            "io.max=8:0 rbps=7",
            "io.max=8:1 wiops=9",
        ];
        assert_eq!(got, want);
        let bfq =
            lines(r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":10}]}}"#, true);
        assert_eq!(bfq.unwrap(), ["io.bfq.weight=500", "io.bfq.weight=8:0 10"]);
        assert_eq!((weight_of_shares(2), weight_of_shares(262_144), weight_of_shares(0)), (1, 10_000, 1));
    }
}
