//! Which limits the control groups of this machine can hold: v1 by the files of each hierarchy's root, v2 by its controllers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use davit_sys::cgroup::{Hierarchy, Version, hierarchies};

/// What can be limited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // one a limit
pub struct Cgroups {
    /// The unified hierarchy carries the controllers.
    pub unified: bool,
    /// Memory.
    pub memory: bool,
    /// Memory and swap together.
    pub swap: bool,
    /// Swappiness and the switch of the OOM killer: v1 only.
    pub v1_memory: bool,
    /// CPU shares and bandwidth.
    pub cpu: bool,
    /// Bandwidth: quota and period.
    pub cpu_quota: bool,
    /// Number of tasks.
    pub pids: bool,
    /// CPUs that can be given out; none: no cpuset.
    pub cpus: Option<BTreeSet<u32>>,
    /// Memory nodes that can be given out.
    pub nodes: Option<BTreeSet<u32>>,
    /// Rates of block devices.
    pub io_rates: bool,
    /// Weights of block devices.
    pub io_weight: bool,
    /// How many CPUs the machine has.
    pub cpu_count: u32,
}

impl Cgroups {
    /// Looks at what is mounted.
    pub fn read() -> Self {
        let all = hierarchies().unwrap_or_default();
        let cpu_count = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        let has_v1 = all.iter().any(|h| h.controllers.iter().any(|c| !c.starts_with("name=")));
        let found = match all.iter().find(|h| h.version == Version::V2) {
            Some(h) if !has_v1 => unified(h),
            _ => v1(&all),
        };
        Self { cpu_count: online().unwrap_or(cpu_count), ..found }
    }
}

/// CPUs that are on, also those that we may not run on ourselves.
fn online() -> Option<u32> {
    let text = fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    u32::try_from(numbers(text.trim())?.len()).ok().filter(|n| *n > 0)
}

fn unified(h: &Hierarchy) -> Cgroups {
    let available = h.available();
    let has = |c: &str| available.iter().any(|a| a == c);
    let list = |file: &str| has("cpuset").then(|| set_of(&h.mount_point.join(file))).flatten();
    Cgroups {
        unified: true,
        memory: has("memory"),
        swap: has("memory"),
        v1_memory: false,
        cpu: has("cpu"),
        cpu_quota: has("cpu"),
        pids: has("pids"),
        cpus: list("cpuset.cpus.effective"),
        nodes: list("cpuset.mems.effective"),
        io_rates: has("io"),
        io_weight: has("io"),
        cpu_count: 1,
    }
}

fn v1(all: &[Hierarchy]) -> Cgroups {
    let of =
        |c: &str| all.iter().find(|h| h.controllers.iter().any(|x| x == c)).map(|h| h.mount_point.as_path());
    let has = |c: &str, file: &str| of(c).is_some_and(|d| d.join(file).exists());
    let list = |file: &str| of("cpuset").and_then(|d| set_of(&d.join(file)));
    Cgroups {
        unified: false,
        memory: has("memory", "memory.limit_in_bytes"),
        swap: has("memory", "memory.memsw.limit_in_bytes"),
        v1_memory: has("memory", "memory.swappiness"),
        cpu: has("cpu", "cpu.shares") || of("cpu").is_some(),
        cpu_quota: of("cpu").is_some_and(|d| has_below(d, "cpu.cfs_quota_us")),
        pids: of("pids").is_some(),
        cpus: list("cpuset.cpus"),
        nodes: list("cpuset.mems"),
        io_rates: has("blkio", "blkio.throttle.read_bps_device"),
        io_weight: of("blkio").is_some_and(|d| has_below(d, "blkio.weight") || bfq()),
        cpu_count: 1,
    }
}

/// Some files are in all cgroups but the root.
fn has_below(root: &Path, file: &str) -> bool {
    let below = || fs::read_dir(root).into_iter().flatten().flatten().any(|e| e.path().join(file).exists());
    root.join(file).exists() || below()
}

/// The only scheduler that weighs on v1 now.
fn bfq() -> bool {
    let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    disks
        .filter_map(|d| fs::read_to_string(d.path().join("queue/scheduler")).ok())
        .any(|s| s.split([' ', '[', ']', '\n']).any(|word| word == "bfq"))
}

fn set_of(file: &Path) -> Option<BTreeSet<u32>> {
    numbers(fs::read_to_string(file).ok()?.trim())
}

/// `0-2,4` as a set (the kernel's list format); none when it is no such list. At most 8192, the kernel's most CPUs.
pub fn numbers(text: &str) -> Option<BTreeSet<u32>> {
    let mut out = BTreeSet::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u32>().ok()).flatten();
        let (first, last) = (digits(first)?, digits(last)?);
        if last < first || last >= 8192 {
            return None;
        }
        out.extend(first..=last);
    }
    Some(out)
}

#[cfg(test)]
impl Cgroups {
    /// Two CPUs, one node, everything.
    pub fn of_tests() -> Self {
        Self {
            unified: false,
            memory: true,
            swap: true,
            v1_memory: true,
            cpu: true,
            cpu_quota: true,
            pids: true,
            cpus: Some(BTreeSet::from([0, 1])),
            nodes: Some(BTreeSet::from([0])),
            io_rates: true,
            io_weight: true,
            cpu_count: 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_of_numbers() {
        assert_eq!(numbers("0-2,4").unwrap().into_iter().collect::<Vec<_>>(), [0, 1, 2, 4]);
        assert_eq!(numbers(""), Some(BTreeSet::new()));
        for bad in ["a", "1-", "-1", "2-1", "1,,2", "0-4294967295", "+1", "1 ", "9000"] {
            assert_eq!(numbers(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[0-9,+ -]{0,20}") {
            let _ = numbers(&text);
        }
    }
}
