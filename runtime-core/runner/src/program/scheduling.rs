//! `scheduler`, `ioPriority`, `execCPUAffinity` and `personality` of the config, taken on by the process itself while it has its rights.

use davit_sys::scheduling::{self as sys, Attributes};

use crate::error::{Context, Error, Result};
use crate::spec::Process;
use crate::spec::linux::Personality;
use crate::spec::process::{IoPriority, Scheduler};

const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];
const FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x1),
    ("SCHED_FLAG_RECLAIM", 0x2),
    ("SCHED_FLAG_DL_OVERRUN", 0x4),
    ("SCHED_FLAG_KEEP_POLICY", 0x8),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];
const CLASSES: [(&str, u32); 3] = [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

fn known<T: Copy>(path: &str, table: &[(&str, T)], name: &str) -> Result<T> {
    table
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, value)| *value)
        .ok_or_else(|| Error::Config(format!("{path}: unknown value {name:?}")))
}

/// Takes on what the process object asks for.
pub fn apply(process: &Process) -> Result<()> {
    if let Some(s) = &process.scheduler {
        sys::set_scheduler(attributes(s)?).context(|| format!("set process.scheduler to {}", s.policy))?;
    }
    if let Some(io) = &process.io_priority {
        let class = class(io)?;
        sys::set_io_priority(class, io.priority)
            .context(|| format!("set process.ioPriority to {} {}", io.class, io.priority))?;
    }
    Ok(())
}

/// Refuses what [`apply`] would.
pub fn check(process: &Process) -> Result<()> {
    process.scheduler.as_ref().map(attributes).transpose()?;
    process.io_priority.as_ref().map(class).transpose()?;
    if let Some(a) = &process.exec_cpu_affinity {
        cpus("process.execCPUAffinity.initial", &a.initial)?;
        cpus("process.execCPUAffinity.final", &a.last)?;
    }
    Ok(())
}

fn attributes(s: &Scheduler) -> Result<Attributes> {
    let mut flags = 0;
    for flag in &s.flags {
        flags |= known("process.scheduler.flags", &FLAGS, flag)?;
    }
    Ok(Attributes {
        policy: known("process.scheduler.policy", &POLICIES, &s.policy)?,
        flags,
        nice: s.nice,
        priority: s.priority,
        runtime: s.runtime,
        deadline: s.deadline,
        period: s.period,
        ..Attributes::default()
    })
}

fn class(io: &IoPriority) -> Result<u32> {
    if io.priority > 7 {
        return Err(Error::Config(format!("process.ioPriority.priority: {} is not 0 to 7", io.priority)));
    }
    known("process.ioPriority.class", &CLASSES, &io.class)
}

/// Binds a process of exec to its CPUs; an empty list leaves it.
pub fn bind(path: &str, list: &str) -> Result<()> {
    let cpus = cpus(path, list)?;
    if cpus.is_empty() {
        return Ok(());
    }
    sys::set_affinity(&cpus).context(|| format!("bind the process to the CPUs {list} ({path})"))
}

/// `0-2,4`.
fn cpus(path: &str, list: &str) -> Result<Vec<usize>> {
    let bad = || Error::Config(format!("{path}: {list:?} is no list of CPUs"));
    let mut out = Vec::new();
    for part in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |s: &str| s.parse::<usize>().ok().filter(|n| *n < 8192);
        let (first, last) = number(first).zip(number(last)).ok_or_else(bad)?;
        if last < first {
            return Err(bad());
        }
        out.extend(first..=last);
    }
    Ok(out)
}

/// Takes on the execution domain.
pub fn take_personality(personality: &Personality) -> Result<()> {
    sys::set_personality(domain(personality)?)
        .context(|| format!("set linux.personality to {}", personality.domain))
}

/// The number of its domain.
pub fn domain(personality: &Personality) -> Result<u64> {
    if let Some(flag) = personality.flags.first() {
        return Err(Error::Config(format!("linux.personality.flags: unknown value {flag:?}")));
    }
    known("linux.personality.domain", &[("LINUX", 0), ("LINUX32", 8)], &personality.domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(cpus("x", "0-2, 4").unwrap(), [0, 1, 2, 4]);
        assert_eq!(cpus("x", "").unwrap(), [0usize; 0]);
        for bad in ["a", "2-1", "1-", "0-99999999"] {
            assert!(cpus("process.x", bad).unwrap_err().to_string().contains("process.x"), "{bad}");
        }
    }

    #[test]
    fn unknown_words_are_refused_with_their_path() {
        let s = Scheduler { policy: "SCHED_MAGIC".into(), ..Scheduler::default() };
        let e = attributes(&s).unwrap_err().to_string();
        assert_eq!(e, "config.json: process.scheduler.policy: unknown value \"SCHED_MAGIC\"");
        assert!(class(&IoPriority { class: "IOPRIO_CLASS_BE".into(), priority: 8 }).is_err());
        assert!(domain(&Personality { domain: "BSD".into(), ..Personality::default() }).is_err());
    }
}
