//! The limits of `run` and `create`.

use clap::Args;
use davit_contracts::runtime::DeviceRate;

use crate::parse;

/// What a container may use.
#[derive(Debug, Args, Default)]
pub struct LimitArgs {
    /// Memory limit; -1: none
    #[arg(short, long, value_name = "SIZE", value_parser = parse::size::bytes_or_unlimited, allow_hyphen_values = true, help_heading = "Resources")]
    pub memory: Option<i64>,
    /// Limit of memory and swap; -1: none
    #[arg(long, value_name = "SIZE", value_parser = parse::size::bytes_or_unlimited, allow_hyphen_values = true, help_heading = "Resources")]
    pub memory_swap: Option<i64>,
    /// What of its memory is kept when memory is short
    #[arg(long, value_name = "SIZE", value_parser = parse::size::bytes, help_heading = "Resources")]
    pub memory_reservation: Option<u64>,
    /// How readily its memory is swapped out (0-100; -1: as the host's)
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = "Resources")]
    pub memory_swappiness: Option<i64>,
    /// Kernel memory limit: ignored, as kernels no longer have it
    #[arg(long, value_name = "SIZE", value_parser = parse::size::bytes, hide = true)]
    pub kernel_memory: Option<u64>,
    /// Number of CPUs
    #[arg(long, value_name = "NUMBER", value_parser = parse::size::nano_cpus, help_heading = "Resources")]
    pub cpus: Option<i64>,
    /// Relative share of CPU time
    #[arg(short, long, value_name = "WEIGHT", help_heading = "Resources")]
    pub cpu_shares: Option<u64>,
    /// CPU time in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true, help_heading = "Resources")]
    pub cpu_quota: Option<i64>,
    /// Length of a period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", help_heading = "Resources")]
    pub cpu_period: Option<u64>,
    /// CPUs that it may use (0-2,4)
    #[arg(long, value_name = "CPUS", help_heading = "Resources")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that it may use (0-1)
    #[arg(long, value_name = "NODES", help_heading = "Resources")]
    pub cpuset_mems: Option<String>,
    /// Number of processes; -1: no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = "Resources")]
    pub pids_limit: Option<i64>,
    /// Relative share of block devices' time (10-1000; 0: none)
    #[arg(long, value_name = "WEIGHT", help_heading = "Resources")]
    pub blkio_weight: Option<u16>,
    /// The same for one device (/dev/sda:200)
    #[arg(long, value_name = "DEVICE:WEIGHT", value_parser = parse::device::weight, help_heading = "Resources")]
    pub blkio_weight_device: Vec<DeviceRate>,
    /// Bytes a second read from a device (/dev/sda:1mb)
    #[arg(long, value_name = "DEVICE:RATE", value_parser = parse::device::read_bps, help_heading = "Resources")]
    pub device_read_bps: Vec<DeviceRate>,
    /// Bytes a second written to a device
    #[arg(long, value_name = "DEVICE:RATE", value_parser = parse::device::write_bps, help_heading = "Resources")]
    pub device_write_bps: Vec<DeviceRate>,
    /// Reads a second from a device (/dev/sda:100)
    #[arg(long, value_name = "DEVICE:RATE", value_parser = parse::device::read_iops, help_heading = "Resources")]
    pub device_read_iops: Vec<DeviceRate>,
    /// Writes a second to a device
    #[arg(long, value_name = "DEVICE:RATE", value_parser = parse::device::write_iops, help_heading = "Resources")]
    pub device_write_iops: Vec<DeviceRate>,
    /// Let it use devices by number ("c 42:* rmw")
    #[arg(long, value_name = "RULE", value_parser = parse::device::cgroup_rule, help_heading = "Resources")]
    pub device_cgroup_rule: Vec<String>,
    /// How early it is killed when the host has no memory left (-1000 to 1000)
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = "Resources")]
    pub oom_score_adj: Option<i32>,
    /// Stop it at its memory limit instead of killing it (cgroup v1)
    #[arg(long, help_heading = "Resources")]
    pub oom_kill_disable: bool,
    /// Resource limit of its processes (NAME=SOFT[:HARD])
    #[arg(long, value_name = "LIMIT", help_heading = "Resources")]
    pub ulimit: Vec<String>,
    /// The cgroup below which its own is made
    #[arg(long, value_name = "CGROUP", help_heading = "Resources")]
    pub cgroup_parent: Option<String>,
}
