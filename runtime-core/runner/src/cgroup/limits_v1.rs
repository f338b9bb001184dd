//! Limits on v1 hierarchies.

use std::path::Path;

use davit_sys::cgroup::{CgroupError, read, write};

use super::Placement;
use crate::error::{Error, Result};
use crate::spec::Resources;
use crate::spec::resources::{BlockIo, Cpu, Memory};

/// Writes all limits that `resources` names.
pub fn apply(placement: &Placement, resources: &Resources) -> Result<()> {
    let directory = |controller: &str, asked: bool| -> Result<Option<&Path>> {
        match placement.controller(controller) {
            Some(group) => Ok(Some(group.directory.as_path())),
            None if asked => Err(Error::Limit {
                what: controller.to_owned(),
                reason: "this machine has no such cgroup controller, or it is not delegated to this user"
                    .into(),
            }),
            None => Ok(None),
        }
    };
    if let Some(wanted) = &resources.memory
        && let Some(d) = directory("memory", wanted.limit.is_some_and(|l| l > 0))?
    {
        memory(d, wanted)?;
    }
    if let Some(wanted) = &resources.cpu {
        let bandwidth = wanted.quota.is_some_and(|q| q > 0) || wanted.shares.is_some_and(|s| s > 0);
        if let Some(d) = directory("cpu", bandwidth)? {
            cpu(d, wanted)?;
        }
        if let Some(d) = directory("cpuset", !wanted.cpus.is_empty() || !wanted.mems.is_empty())? {
            cpuset(d, wanted)?;
        }
    }
    if let Some(wanted) = resources.pids.as_ref().filter(|p| p.limit != 0)
        && let Some(d) = directory("pids", wanted.limit > 0)?
    {
        let value = if wanted.limit > 0 { wanted.limit.to_string() } else { "max".into() };
        write(&d.join("pids.max"), &value)?;
    }
    if let Some(wanted) = &resources.block_io
        && resources.block_io_asked()
        && let Some(d) = directory("blkio", true)?
    {
        block_io(d, wanted)?;
    }
    for page in &resources.hugepage_limits {
        if let Some(d) = directory("hugetlb", placement.unified().is_none())? {
            write(&d.join(format!("hugetlb.{}.limit_in_bytes", page.page_size)), &page.limit.to_string())?;
        }
    }
    Ok(())
}

/// `memory + swap` may never be below `memory`: when raising, the sum goes first, when lowering, memory does.
fn memory(d: &Path, wanted: &Memory) -> Result<(), CgroupError> {
    let limit = wanted.limit.filter(|v| *v != 0);
    let swap = wanted.swap.filter(|v| *v != 0);
    let (limit_file, swap_file) = (d.join("memory.limit_in_bytes"), d.join("memory.memsw.limit_in_bytes"));
    let has_swap = swap_file.exists();
    match (limit, swap.filter(|_| has_swap)) {
        (Some(limit), Some(swap)) => {
            let current: u64 = read(&swap_file)?.trim().parse().unwrap_or(u64::MAX);
            let raising = swap == -1 || swap.unsigned_abs() > current;
            let order = [(&limit_file, limit), (&swap_file, swap)];
            let order = if raising { [order[1], order[0]] } else { order };
            order.iter().try_for_each(|(file, value)| write(file, &value.to_string()))?;
        }
        (Some(limit), None) => {
            // A lifted limit needs the sum lifted before.
            if limit == -1 && has_swap {
                write(&swap_file, "-1")?;
            }
            write(&limit_file, &limit.to_string())?;
        }
        (None, Some(swap)) => write(&swap_file, &swap.to_string())?,
        (None, None) => {}
    }
    if let Some(v) = wanted.reservation.filter(|v| *v != 0) {
        write(&d.join("memory.soft_limit_in_bytes"), &v.to_string())?;
    }
    if let Some(v) = wanted.swappiness {
        write(&d.join("memory.swappiness"), &v.to_string())?;
    }
    if wanted.disable_oom_killer == Some(true) {
        write(&d.join("memory.oom_control"), "1")?;
    }
    Ok(())
}

fn cpu(d: &Path, wanted: &Cpu) -> Result<(), CgroupError> {
    if let Some(v) = wanted.shares.filter(|v| *v != 0) {
        write(&d.join("cpu.shares"), &v.to_string())?;
    }
    bandwidth(d, wanted)?;
    if let Some(v) = wanted.burst.filter(|v| *v != 0) {
        write(&d.join("cpu.cfs_burst_us"), &v.to_string())?;
    }
    if let Some(v) = wanted.realtime_period.filter(|v| *v != 0) {
        write(&d.join("cpu.rt_period_us"), &v.to_string())?;
    }
    if let Some(v) = wanted.realtime_runtime.filter(|v| *v != 0) {
        write(&d.join("cpu.rt_runtime_us"), &v.to_string())?;
    }
    if let Some(v) = wanted.idle {
        write(&d.join("cpu.idle"), &v.to_string())?;
    }
    Ok(())
}

/// The kernel refuses a period with which the quota of the moment would be more than the parent's: then the quota goes first.
fn bandwidth(d: &Path, wanted: &Cpu) -> Result<(), CgroupError> {
    let period = wanted.period.filter(|v| *v != 0).map(|v| ("cpu.cfs_period_us", v.to_string()));
    let quota = wanted.quota.filter(|v| *v != 0).map(|v| ("cpu.cfs_quota_us", v.max(-1).to_string()));
    let put = |setting: &Option<(&str, String)>| match setting {
        Some((file, value)) => write(&d.join(file), value),
        None => Ok(()),
    };
    match put(&period) {
        Err(e) if quota.is_some() && e.source.raw_os_error() == Some(libc::EINVAL) => {
            put(&quota)?;
            put(&period)
        }
        done => done.and_then(|()| put(&quota)),
    }
}

fn cpuset(d: &Path, wanted: &Cpu) -> Result<(), CgroupError> {
    if !wanted.cpus.is_empty() {
        write(&d.join("cpuset.cpus"), &wanted.cpus)?;
    }
    if !wanted.mems.is_empty() {
        write(&d.join("cpuset.mems"), &wanted.mems)?;
    }
    Ok(())
}

/// A new cpuset has no processors, and nothing can enter it: it takes its parent's.
pub fn inherit_cpuset(directory: &Path) -> Result<(), CgroupError> {
    let Some(parent) = directory.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if read(&directory.join(file))?.trim().is_empty() {
            let value = read(&parent.join(file))?;
            write(&directory.join(file), value.trim())?;
        }
    }
    Ok(())
}

fn block_io(d: &Path, wanted: &BlockIo) -> Result<()> {
    let first_of = |names: [&str; 2]| {
        names.iter().map(|n| d.join(n)).find(|p| p.exists()).ok_or_else(|| Error::Limit {
            what: names[0].to_owned(),
            reason: "this kernel has no block device scheduler with weights".into(),
        })
    };
    if let Some(weight) = wanted.weight.filter(|w| *w > 0) {
        write(&first_of(["blkio.weight", "blkio.bfq.weight"])?, &weight.to_string())?;
    }
    for device in &wanted.weight_device {
        let Some(weight) = device.weight else { continue };
        let file = first_of(["blkio.weight_device", "blkio.bfq.weight_device"])?;
        write(&file, &format!("{}:{} {weight}", device.major, device.minor)).map_err(|e| {
            let unsupported = e.source.raw_os_error() == Some(libc::EOPNOTSUPP);
            let what = format!("the weight of device {}:{}", device.major, device.minor);
            let reason = "the device has no scheduler with weights (bfq)".into();
            if unsupported { Error::Limit { what, reason } } else { e.into() }
        })?;
    }
    let throttles = [
        ("read_bps", &wanted.throttle_read_bps_device),
        ("write_bps", &wanted.throttle_write_bps_device),
        ("read_iops", &wanted.throttle_read_iops_device),
        ("write_iops", &wanted.throttle_write_iops_device),
    ];
    for (name, devices) in throttles {
        for device in devices {
            let line = format!("{}:{} {}", device.major, device.minor, device.rate);
            write(&d.join(format!("blkio.throttle.{name}_device")), &line)?;
        }
    }
    Ok(())
}
