//! The `linux.resources` object: also what `update --resources` reads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::null_is_default;

/// Limits, by controller.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Access rules, applied in order on top of "deny all, allow the default devices".
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceRule>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Number of tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<Pids>,
    /// Block devices.
    #[serde(rename = "blockIO", skip_serializing_if = "Option::is_none")]
    pub block_io: Option<BlockIo>,
    /// Huge pages.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub hugepage_limits: Vec<HugepageLimit>,
    /// v2 only: file names and values written as they are.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub unified: BTreeMap<String, String>,
}

/// One device access rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// `a` (also when absent), `b`, `c`.
    #[serde(rename = "type", deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Absent or negative: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major: Option<i64>,
    /// Absent or negative: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor: Option<i64>,
    /// Of `rwm`; empty: all.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub access: String,
}

/// Memory limits in bytes; -1: none.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// Hard limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// Soft limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservation: Option<i64>,
    /// Memory and swap together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<i64>,
    /// 0..=100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swappiness: Option<u64>,
    /// Pause instead of killing.
    #[serde(rename = "disableOOMKiller", skip_serializing_if = "Option::is_none")]
    pub disable_oom_killer: Option<bool>,
}

/// Processor limits.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cpu {
    /// Weight, 2..=262144.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<u64>,
    /// Microseconds a period; not positive: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<i64>,
    /// Microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<u64>,
    /// Microseconds that may be saved up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// Real-time microseconds a period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realtime_runtime: Option<i64>,
    /// Microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realtime_period: Option<u64>,
    /// `0-1,3`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub cpus: String,
    /// Memory nodes.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub mems: String,
    /// SCHED_IDLE for the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<i64>,
}

/// Task limit.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Pids {
    /// Not positive: none.
    pub limit: i64,
}

/// Block device limits.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockIo {
    /// 10..=1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Weights a device.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub weight_device: Vec<WeightDevice>,
    /// Bytes a second.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub throttle_read_bps_device: Vec<ThrottleDevice>,
    /// Bytes a second.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub throttle_write_bps_device: Vec<ThrottleDevice>,
    /// Operations a second.
    #[serde(
        rename = "throttleReadIOPSDevice",
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub throttle_read_iops_device: Vec<ThrottleDevice>,
    /// Operations a second.
    #[serde(
        rename = "throttleWriteIOPSDevice",
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub throttle_write_iops_device: Vec<ThrottleDevice>,
}

/// The weight of one device.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WeightDevice {
    /// Device number.
    pub major: i64,
    /// Device number.
    pub minor: i64,
    /// 10..=1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
}

/// The rate of one device.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ThrottleDevice {
    /// Device number.
    pub major: i64,
    /// Device number.
    pub minor: i64,
    /// A second.
    pub rate: u64,
}

/// Limit of one huge page size.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HugepageLimit {
    /// `2MB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

impl Resources {
    /// Whether anything but device rules is asked for: then missing cgroups are an error.
    pub fn limits_asked(&self) -> bool {
        let memory = self.memory.as_ref().is_some_and(|m| {
            [m.limit, m.reservation, m.swap].iter().flatten().any(|v| *v > 0) || m.swappiness.is_some()
        });
        let cpu = self.cpu.as_ref().is_some_and(|c| {
            c.shares.is_some_and(|v| v > 0)
                || c.quota.is_some_and(|v| v > 0)
                || !c.cpus.is_empty()
                || !c.mems.is_empty()
        });
        let pids = self.pids.as_ref().is_some_and(|p| p.limit > 0);
        memory
            || cpu
            || pids
            || self.block_io_asked()
            || !self.hugepage_limits.is_empty()
            || !self.unified.is_empty()
    }

    /// Whether any block device limit is asked for.
    pub fn block_io_asked(&self) -> bool {
        self.block_io.as_ref().is_some_and(|b| {
            b.weight.is_some_and(|w| w > 0)
                || !b.weight_device.is_empty()
                || !b.throttle_read_bps_device.is_empty()
                || !b.throttle_write_bps_device.is_empty()
                || !b.throttle_read_iops_device.is_empty()
                || !b.throttle_write_iops_device.is_empty()
        })
    }

    /// Whether the rules begin by allowing everything (a privileged container): then no devices cgroup is needed.
    pub fn all_devices_allowed(&self) -> bool {
        let whole = |r: &DeviceRule| {
            (r.kind.is_empty() || r.kind == "a")
                && r.major.is_none_or(|n| n < 0)
                && r.minor.is_none_or(|n| n < 0)
                && (r.access.is_empty() || ["r", "w", "m"].iter().all(|c| r.access.contains(c)))
        };
        let last_whole = self.devices.iter().rposition(whole);
        last_whole.is_some_and(|at| self.devices[at].allow && self.devices[at..].iter().all(|r| r.allow))
    }
}
