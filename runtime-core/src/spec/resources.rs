//! Limits, devices and ulimits in the words of the OCI specification.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use davit_contracts::runtime::{Resources, Ulimit};

use super::host::Host;
use super::oci::{BlockIo, Cpu, Device, DeviceRule, Memory, Pids, Resources as OciResources, Rlimit};
use crate::error::RuntimeError;

/// docker refuses less.
const MIN_MEMORY: i64 = 6 << 20;
const CPU_PERIOD: u64 = 100_000;

/// cgroup limits; `rules` are those of extra devices.
pub fn limits(
    asked: Option<&Resources>,
    rules: Vec<DeviceRule>,
    host: &Host,
) -> Result<OciResources, RuntimeError> {
    let mut out = OciResources::default();
    if !host.rootless {
        out.devices = default_rules();
        out.devices.extend(rules);
    }
    let Some(r) = asked else { return Ok(out) };
    if r.memory != 0 || r.memory_swap != 0 || r.memory_reservation != 0 || r.oom_kill_disable {
        out.memory = Some(memory(r)?);
    }
    out.cpu = cpu(r)?;
    out.pids = (r.pids_limit > 0).then_some(Pids { limit: r.pids_limit });
    out.block_io = (r.blkio_weight > 0).then_some(BlockIo { weight: r.blkio_weight as u16 });
    if !r.blkio.is_empty() {
        return Err(RuntimeError::Unsupported("block device rate limits are not supported yet".into()));
    }
    Ok(out)
}

fn memory(r: &Resources) -> Result<Memory, RuntimeError> {
    if r.memory != 0 && r.memory < MIN_MEMORY {
        return Err(RuntimeError::Invalid("the minimum memory limit is 6MB".into()));
    }
    if r.memory_swap > 0 && r.memory == 0 {
        return Err(RuntimeError::Invalid("a limit of memory and swap needs a memory limit too".into()));
    }
    if r.memory_swap > 0 && r.memory_swap < r.memory {
        return Err(RuntimeError::Invalid(
            "the limit of memory and swap is lower than that of memory".into(),
        ));
    }
    let swap = match r.memory_swap {
        0 if r.memory > 0 => Some(r.memory.saturating_mul(2)),
        0 => None,
        n => Some(n),
    };
    Ok(Memory {
        limit: (r.memory > 0).then_some(r.memory),
        reservation: (r.memory_reservation > 0).then_some(r.memory_reservation),
        swap,
        disable_oom_killer: r.oom_kill_disable,
    })
}

fn cpu(r: &Resources) -> Result<Option<Cpu>, RuntimeError> {
    if r.nano_cpus < 0 || (r.nano_cpus > 0 && (r.cpu_quota != 0 || r.cpu_period != 0)) {
        return Err(RuntimeError::Invalid("--cpus is a positive number, without a quota or period".into()));
    }
    let mut cpu = Cpu {
        shares: (r.cpu_shares > 0).then_some(r.cpu_shares),
        quota: (r.cpu_quota != 0).then_some(r.cpu_quota),
        period: (r.cpu_period != 0).then_some(r.cpu_period),
        cpus: r.cpuset_cpus.clone(),
        mems: r.cpuset_mems.clone(),
    };
    if r.nano_cpus > 0 {
        cpu.quota = Some(r.nano_cpus / (1_000_000_000 / CPU_PERIOD as i64));
        cpu.period = Some(CPU_PERIOD);
    }
    Ok((cpu != Cpu::default()).then_some(cpu))
}

fn rule(
    allow: bool,
    kind: Option<&'static str>,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> DeviceRule {
    DeviceRule { allow, kind, major, minor, access: access.to_owned() }
}

/// docker's: nothing, but any mknod, the harmless character devices, and terminals.
fn default_rules() -> Vec<DeviceRule> {
    let c = |major, minor| rule(true, Some("c"), Some(major), minor, "rwm");
    vec![
        rule(false, None, None, None, "rwm"),
        rule(true, Some("c"), None, None, "m"),
        rule(true, Some("b"), None, None, "m"),
        c(1, Some(3)),
        c(1, Some(5)),
        c(1, Some(7)),
        c(1, Some(8)),
        c(1, Some(9)),
        c(5, Some(0)),
        c(5, Some(1)),
        c(5, Some(2)),
        c(136, None),
    ]
}

/// A rule that allows everything, for `--privileged`.
pub fn allow_all() -> DeviceRule {
    rule(true, None, None, None, "rwm")
}

/// `--device HOST[:CONTAINER[:rwm]]`: the node and its rule.
pub fn device(text: &str) -> Result<(Device, DeviceRule), RuntimeError> {
    let mut parts = text.split(':');
    let source = parts.next().unwrap_or("");
    let second = parts.next();
    let (target, access) = match (second, parts.next()) {
        (Some(mode), None) if is_access(mode) => (source, mode),
        (Some(target), access) => (target, access.unwrap_or("rwm")),
        (None, _) => (source, "rwm"),
    };
    if !source.starts_with('/') || !target.starts_with('/') || !is_access(access) || parts.next().is_some() {
        return Err(RuntimeError::Invalid(format!(
            "invalid device '{text}': /dev/HOST[:/dev/CONTAINER[:rwm]] is expected"
        )));
    }
    let meta = fs::metadata(source).map_err(|e| {
        RuntimeError::Invalid(format!("error gathering device information while adding {source}: {e}"))
    })?;
    let kind = match meta.file_type() {
        t if t.is_char_device() => "c",
        t if t.is_block_device() => "b",
        _ => return Err(RuntimeError::Invalid(format!("{source} is not a device node"))),
    };
    let (major, minor) =
        (i64::from(rustix::fs::major(meta.rdev())), i64::from(rustix::fs::minor(meta.rdev())));
    let device = Device {
        path: target.to_owned(),
        kind,
        major,
        minor,
        file_mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
    };
    Ok((device, rule(true, Some(kind), Some(major), Some(minor), access)))
}

fn is_access(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'r' | b'w' | b'm'))
}

const ULIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// What was asked for, and open files at docker's 1048576 or as many as this host allows. Warnings name what was capped.
pub fn rlimits(asked: &[Ulimit], host: &Host) -> Result<(Vec<Rlimit>, Vec<String>), RuntimeError> {
    let mut warnings = Vec::new();
    let mut out = Vec::new();
    if !asked.iter().any(|u| u.name == "nofile") {
        let n = host.nofile_hard.min(1 << 20);
        out.push(Rlimit { kind: "RLIMIT_NOFILE".into(), soft: n, hard: n });
    }
    for u in asked {
        if !ULIMITS.contains(&u.name.as_str()) {
            return Err(RuntimeError::Invalid(format!("invalid ulimit type: {}", u.name)));
        }
        if u.soft > u.hard {
            return Err(RuntimeError::Invalid(format!(
                "ulimit {}: the soft limit must be less than or equal to the hard limit: {} > {}",
                u.name, u.soft, u.hard
            )));
        }
        let mut hard = u.hard;
        if u.name == "nofile" && hard > host.nofile_hard {
            hard = host.nofile_hard;
            warnings.push(format!("ulimit nofile is capped to {hard}: this host allows no more"));
        }
        let kind = format!("RLIMIT_{}", u.name.to_ascii_uppercase());
        out.push(Rlimit { kind, soft: u.soft.min(hard), hard });
    }
    Ok((out, warnings))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host { capabilities: u64::MAX, nofile_hard: 20_000, rootless: false, hostname: "h".into() }
    }

    #[test]
    fn cpus_become_a_quota_and_memory_doubles_as_swap() {
        let r =
            Resources { nano_cpus: 1_500_000_000, memory: 64 << 20, pids_limit: 10, ..Resources::default() };
        let out = limits(Some(&r), Vec::new(), &host()).unwrap();
        let cpu = out.cpu.unwrap();
        assert_eq!((cpu.quota, cpu.period), (Some(150_000), Some(100_000)));
        assert_eq!(out.memory.unwrap().swap, Some(128 << 20));
        assert_eq!(out.pids.unwrap().limit, 10);
        assert!(!out.devices[0].allow);
    }

    #[test]
    fn impossible_limits_are_refused() {
        let bad = |r: Resources| limits(Some(&r), Vec::new(), &host()).is_err();
        assert!(bad(Resources { memory: 1, ..Resources::default() }));
        assert!(bad(Resources { memory_swap: 1 << 30, ..Resources::default() }));
        assert!(bad(Resources { nano_cpus: 1, cpu_quota: 1, ..Resources::default() }));
    }

    #[test]
    fn open_files_are_capped_with_a_warning() {
        let (limits, warnings) = rlimits(&[], &host()).unwrap();
        assert_eq!((limits[0].soft, limits[0].hard, warnings.len()), (20_000, 20_000, 0));
        let asked = [Ulimit { name: "nofile".into(), soft: 10, hard: 1 << 20 }];
        let (limits, warnings) = rlimits(&asked, &host()).unwrap();
        assert_eq!((limits[0].soft, limits[0].hard, warnings.len()), (10, 20_000, 1));
        assert!(rlimits(&[Ulimit { name: "x".into(), soft: 0, hard: 0 }], &host()).is_err());
    }

    #[test]
    fn devices_are_looked_up() {
        let (d, r) = device("/dev/null:/dev/nothing:r").unwrap();
        assert_eq!((d.path.as_str(), d.major, d.minor, r.access.as_str()), ("/dev/nothing", 1, 3, "r"));
        assert_eq!(device("/dev/null:rw").unwrap().0.path, "/dev/null");
        for bad in ["null", "/dev/null:x", "/dev/null:/a:z", "/nonexistent", "/dev"] {
            assert!(device(bad).is_err(), "{bad}");
        }
    }
}
