//! What containers use: CPU, memory, processes, disks from their cgroups (v1, v2 and hybrid), bytes from their network namespace.
//!
//! Nothing is entered for that: `/proc/PID/net/dev` shows the namespace of PID. Where the hierarchies are mounted is read once a
//! round. What cannot be read counts as zero, because the container may end at any moment.

mod files;

use std::fs;

use davit_contracts::runtime::StatsResponse;

use crate::clock::unix_ns;
use crate::container::record::Record;
pub use files::Hierarchies;

/// One round of figures; blocking.
pub fn of(records: &[std::sync::Arc<Record>]) -> Vec<StatsResponse> {
    let hierarchies = Hierarchies::of_this_process();
    let total = total_memory();
    records.iter().map(|r| one(r, &hierarchies, total)).collect()
}

fn one(record: &Record, hierarchies: &Hierarchies, total: u64) -> StatsResponse {
    let state = record.state();
    let mut out = StatsResponse {
        id: record.id().to_owned(),
        name: record.container.name.clone(),
        time_unix_ns: unix_ns(),
        online_cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        ..StatsResponse::default()
    };
    if state.pid <= 0 || !matches!(state.status.as_str(), "running" | "paused") {
        return out;
    }
    let Some(cgroups) = hierarchies.of(state.pid, record.id()) else { return out };
    out.running = true;
    out.started_unix_ns = state.started_unix_ns;
    cgroups.cpu(&mut out);
    cgroups.memory(&mut out, total);
    cgroups.pids(&mut out);
    cgroups.disks(&mut out);
    let host =
        record.container.spec.as_ref().and_then(|s| s.network.as_ref()).is_some_and(|n| n.mode == "host");
    if !host {
        let dev = fs::read_to_string(format!("/proc/{}/net/dev", state.pid)).unwrap_or_default();
        (out.net_rx, out.net_tx) = interfaces(&dev);
    }
    out
}

/// What the cgroup of a process holds that the kernel cannot drop at once.
pub fn memory_in_use(pid: i32) -> u64 {
    let mut out = StatsResponse::default();
    if let Some(cgroups) = Hierarchies::of_this_process().of(pid, "") {
        cgroups.memory(&mut out, u64::MAX);
    }
    out.memory_bytes
}

/// Bytes in and out of all interfaces but loopback, from /proc/net/dev (proc(5)).
fn interfaces(text: &str) -> (u64, u64) {
    let mut sum = (0, 0);
    for line in text.lines().skip(2) {
        let Some((name, rest)) = line.split_once(':') else { continue };
        if name.trim() == "lo" {
            continue;
        }
        let fields: Vec<u64> = rest.split_ascii_whitespace().map(|n| n.parse().unwrap_or(0)).collect();
        sum.0 += fields.first().copied().unwrap_or(0);
        sum.1 += fields.get(8).copied().unwrap_or(0);
    }
    sum
}

fn total_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        text.lines().find_map(|l| l.strip_prefix("MemTotal:")).and_then(|l| l.trim().strip_suffix(" kB"));
    kib.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_summed_without_loopback() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n\
                    eth0: 100 2 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n  eth1:5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0\nbroken\n";
        assert_eq!(interfaces(text), (105, 13));
        assert_eq!(interfaces(""), (0, 0));
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(total_memory() > 1 << 20);
    }
}
