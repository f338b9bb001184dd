//! docker's checks of limits, in docker's words: what cannot be is refused, what this host cannot give is left out with a warning.

use std::collections::BTreeSet;

use davit_contracts::runtime::{DeviceRate, Resources};

use super::super::host::Host;
use super::super::host::cgroups::{Cgroups, numbers};
use super::devices;
use crate::error::RuntimeError;

/// docker refuses less.
const MIN_MEMORY: i64 = 6 << 20;

/// What is left of `asked` on this host, with docker's defaults filled in, and warnings about what is not. For a container's whole
/// limits; those of a change are merged into the whole first.
pub fn settle(asked: &Resources, host: &Host) -> Result<(Resources, Vec<String>), RuntimeError> {
    let (mut r, mut warnings) = (asked.clone(), Vec::new());
    possible(asked, &host.cgroups)?;
    let mut warn = |text: &str| warnings.push(text.to_owned());
    memory(&mut r, &host.cgroups, &mut warn);
    cpu(&mut r, &host.cgroups, &mut warn);
    if r.pids_limit > 0 && !host.cgroups.pids {
        r.pids_limit = 0;
        warn(
            "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
        );
    }
    blkio(&mut r, &host.cgroups, &mut warn)?;
    if r.oom_score_adj < host.oom_score_min {
        warn(&format!(
            "The OOM score adjustment {} is below {}, which this host does not let davit go under. It stays at {}.",
            r.oom_score_adj, host.oom_score_min, host.oom_score_min
        ));
        r.oom_score_adj = host.oom_score_min;
    }
    Ok((r, warnings))
}

fn refuse<T>(text: impl Into<String>) -> Result<T, RuntimeError> {
    Err(RuntimeError::Invalid(text.into()))
}

/// What is nonsense on any host, and what asks for more than this one has.
fn possible(r: &Resources, host: &Cgroups) -> Result<(), RuntimeError> {
    possible_memory(r)?;
    possible_cpu(r, host)?;
    if !(-1000..=1000).contains(&r.oom_score_adj) {
        return refuse(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            r.oom_score_adj
        ));
    }
    let weights = r.blkio.iter().map(|d| d.weight).chain([r.blkio_weight]);
    if weights.into_iter().any(|w| w != 0 && !(10..=1000).contains(&w)) {
        return refuse("Range of blkio weight is from 10 to 1000");
    }
    r.device_cgroup_rules.iter().try_for_each(|rule| devices::rule_of(rule).map(drop))
}

fn possible_memory(r: &Resources) -> Result<(), RuntimeError> {
    if r.memory < 0 || r.memory_reservation < 0 || r.memory_swap < -1 {
        return refuse("a limit of memory is a number of bytes; only the one of memory and swap may be -1");
    }
    if r.memory != 0 && r.memory < MIN_MEMORY {
        return refuse("Minimum memory limit allowed is 6MB");
    }
    if r.memory > 0 && r.memory_swap > 0 && r.memory_swap < r.memory {
        return refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if r.memory == 0 && r.memory_swap > 0 {
        return refuse("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if let Some(v) = r.memory_swappiness.filter(|v| !(-1..=100).contains(v)) {
        return refuse(format!("Invalid value: {v}, valid memory swappiness range is 0-100"));
    }
    if r.memory_reservation != 0 && r.memory_reservation < MIN_MEMORY {
        return refuse("Minimum memory reservation allowed is 6MB");
    }
    if r.memory > 0 && r.memory < r.memory_reservation {
        return refuse("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    Ok(())
}

fn possible_cpu(r: &Resources, host: &Cgroups) -> Result<(), RuntimeError> {
    if r.nano_cpus != 0 && r.cpu_period != 0 {
        return refuse("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if r.nano_cpus != 0 && r.cpu_quota != 0 {
        return refuse("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    if r.nano_cpus < 0 || r.nano_cpus > i64::from(host.cpu_count) * 1_000_000_000 {
        let n = host.cpu_count;
        return refuse(format!("Range of CPUs is from 0.01 to {n}.00, as there are only {n} CPUs available"));
    }
    if r.nano_cpus > 0 && r.nano_cpus < 10_000_000 {
        return refuse(format!(
            "Range of CPUs is from 0.01 to {n}.00, as there are only {n} CPUs available",
            n = host.cpu_count
        ));
    }
    if r.nano_cpus > 0 && !host.cpu_quota {
        return refuse(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
        );
    }
    if r.cpu_period != 0 && !(1000..=1_000_000).contains(&r.cpu_period) {
        return refuse(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if r.cpu_quota > 0 && r.cpu_quota < 1000 {
        return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    within(&r.cpuset_cpus, host.cpus.as_ref(), "cpuset cpus", "CPUs")?;
    within(&r.cpuset_mems, host.nodes.as_ref(), "cpuset mems", "memory nodes")
}

fn within(asked: &str, there: Option<&BTreeSet<u32>>, option: &str, what: &str) -> Result<(), RuntimeError> {
    let Some(wanted) = numbers(asked).filter(|n| asked.is_empty() || !n.is_empty()) else {
        return refuse(format!("Invalid value {asked} for {option}"));
    };
    match there {
        Some(there) if !wanted.is_subset(there) => {
            let list: Vec<String> = there.iter().map(ToString::to_string).collect();
            refuse(format!(
                "Requested {what} are not available - requested {asked}, available: {}",
                list.join(",")
            ))
        }
        _ => Ok(()),
    }
}

fn memory(r: &mut Resources, host: &Cgroups, warn: &mut impl FnMut(&str)) {
    if r.memory > 0 && !host.memory {
        warn(
            "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
        );
        (r.memory, r.memory_swap) = (0, -1);
    }
    if r.memory > 0 && r.memory_swap != -1 && !host.swap {
        warn(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
        );
        r.memory_swap = -1;
    }
    if r.memory > 0 && r.memory_swap == 0 {
        r.memory_swap = r.memory.saturating_mul(2);
    }
    if r.memory_swappiness.is_some_and(|v| v != -1) && !host.v1_memory {
        warn(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
        );
        r.memory_swappiness = None;
    }
    if r.memory_reservation > 0 && !host.memory {
        warn(
            "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.",
        );
        r.memory_reservation = 0;
    }
    if r.oom_kill_disable && !host.v1_memory {
        warn("Your kernel does not support OomKillDisable. OomKillDisable discarded.");
        r.oom_kill_disable = false;
    }
    if r.oom_kill_disable && r.memory == 0 {
        warn(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.",
        );
    }
}

fn cpu(r: &mut Resources, host: &Cgroups, warn: &mut impl FnMut(&str)) {
    if r.cpu_shares > 0 && !host.cpu {
        warn("Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.");
        r.cpu_shares = 0;
    }
    if (r.cpu_period != 0 || r.cpu_quota != 0) && !host.cpu_quota {
        warn("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.");
        (r.cpu_period, r.cpu_quota) = (0, 0);
    }
    if (!r.cpuset_cpus.is_empty() || !r.cpuset_mems.is_empty()) && host.cpus.is_none() {
        warn("Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.");
        r.cpuset_cpus.clear();
        r.cpuset_mems.clear();
    }
}

fn blkio(r: &mut Resources, host: &Cgroups, warn: &mut impl FnMut(&str)) -> Result<(), RuntimeError> {
    for device in &r.blkio {
        devices::block_number(&device.path)?;
    }
    if r.blkio_weight > 0 && !host.io_weight {
        warn("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.");
        r.blkio_weight = 0;
    }
    let mut discard = |there: bool, field: fn(&mut DeviceRate) -> bool, text: &str| {
        // Every device is taken its value, and one warning is enough.
        let had = r.blkio.iter_mut().filter(|_| !there).map(field).fold(false, |any, had| any | had);
        if had {
            warn(text);
        }
    };
    discard(
        host.io_weight,
        |d| std::mem::take(&mut d.weight) > 0,
        "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
    );
    discard(
        host.io_rates,
        |d| std::mem::take(&mut d.read_bps) > 0,
        "Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded.",
    );
    discard(
        host.io_rates,
        |d| std::mem::take(&mut d.write_bps) > 0,
        "Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded.",
    );
    discard(
        host.io_rates,
        |d| std::mem::take(&mut d.read_iops) > 0,
        "Your kernel does not support IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded.",
    );
    discard(
        host.io_rates,
        |d| std::mem::take(&mut d.write_iops) > 0,
        "Your kernel does not support IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded.",
    );
    Ok(())
}

#[cfg(test)]
mod tests;
