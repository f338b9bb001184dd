//! The `process` object: also the whole of what `exec --process FILE` reads.

use std::path::PathBuf;

use davit_sys::caps::{CapSet, Capability};
use serde::{Deserialize, Serialize};

use super::null_is_default;

/// A program and what it runs as.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// Give it a pseudo-terminal.
    pub terminal: bool,
    /// Its first size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// Who it runs as.
    pub user: User,
    /// argv.
    #[serde(deserialize_with = "null_is_default")]
    pub args: Vec<String>,
    /// KEY=VALUE.
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// Absolute, in the container.
    pub cwd: PathBuf,
    /// Absent: none at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Limits.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub rlimits: Vec<Rlimit>,
    /// Never gain privileges by exec.
    pub no_new_privileges: bool,
    /// AppArmor profile.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub apparmor_profile: String,
    /// SELinux label.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selinux_label: String,
    /// -1000..=1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// I/O scheduling class and level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    /// CPU scheduling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// CPUs of a process that exec starts.
    #[serde(rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

/// `ioPriority`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_RT`, `_BE`, `_IDLE`.
    pub class: String,
    /// 0 (first) to 7.
    pub priority: u32,
}

/// `scheduler`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Scheduler {
    /// `SCHED_OTHER`, ...
    pub policy: String,
    /// Of SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// Of SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// `SCHED_FLAG_RESET_ON_FORK`, ...
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// Of SCHED_DEADLINE, nanoseconds.
    pub runtime: u64,
    /// Of SCHED_DEADLINE, nanoseconds.
    pub deadline: u64,
    /// Of SCHED_DEADLINE, nanoseconds.
    pub period: u64,
}

/// `execCPUAffinity`: lists such as `0-2,4`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuAffinity {
    /// While it is set up.
    pub initial: String,
    /// Of the program.
    #[serde(rename = "final")]
    pub last: String,
}

/// Lines and columns.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsoleSize {
    /// Lines.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// Who a program runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// In the container's user namespace.
    pub uid: u32,
    /// In the container's user namespace.
    pub gid: u32,
    /// Octal 022 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Supplementary groups.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
}

/// One limit.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Ceiling.
    pub hard: u64,
    /// In force.
    pub soft: u64,
}

/// Names of capabilities, one list a set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// What can ever be had.
    #[serde(deserialize_with = "null_is_default")]
    pub bounding: Vec<String>,
    /// What is in force.
    #[serde(deserialize_with = "null_is_default")]
    pub effective: Vec<String>,
    /// What exec of a file with inheritable bits keeps.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub inheritable: Vec<String>,
    /// What may be put in force.
    #[serde(deserialize_with = "null_is_default")]
    pub permitted: Vec<String>,
    /// What exec keeps for non-root.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub ambient: Vec<String>,
}

/// The five sets as masks, unknown names left out (a newer engine may know more than this machine).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    /// See [`Capabilities::bounding`].
    pub bounding: CapSet,
    /// See [`Capabilities::effective`].
    pub effective: CapSet,
    /// See [`Capabilities::inheritable`].
    pub inheritable: CapSet,
    /// See [`Capabilities::permitted`].
    pub permitted: CapSet,
    /// See [`Capabilities::ambient`].
    pub ambient: CapSet,
}

impl Capabilities {
    /// The sets as the kernel can take them: ambient only what is permitted and inheritable too.
    pub fn sets(&self) -> CapabilitySets {
        let parse = |names: &[String]| -> CapSet {
            names.iter().filter_map(|n| n.parse::<Capability>().ok()).collect()
        };
        let (permitted, inheritable) = (parse(&self.permitted), parse(&self.inheritable));
        CapabilitySets {
            bounding: parse(&self.bounding),
            effective: parse(&self.effective).and(permitted),
            inheritable,
            permitted,
            ambient: parse(&self.ambient).and(permitted).and(inheritable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_made_consistent_and_unknown_names_left_out() {
        let names = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let caps = Capabilities {
            bounding: names(&["CAP_KILL", "CAP_FROM_THE_FUTURE"]),
            effective: names(&["CAP_KILL", "CAP_CHOWN"]),
            inheritable: vec![],
            permitted: names(&["CAP_KILL"]),
            ambient: names(&["CAP_KILL"]),
        };
        let sets = caps.sets();
        assert_eq!((sets.bounding.0, sets.effective.0, sets.ambient.0), (1 << 5, 1 << 5, 0));
    }
}
