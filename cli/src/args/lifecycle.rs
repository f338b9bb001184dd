//! update, wait, stats.

use clap::Args;

use crate::parse;

/// `davit update`
#[derive(Debug, Args, Default)]
pub struct UpdateArgs {
    /// Memory limit; -1: none
    #[arg(short, long, value_name = "SIZE", value_parser = parse::size::bytes_or_unlimited, allow_hyphen_values = true)]
    pub memory: Option<i64>,
    /// Limit of memory and swap; -1: none
    #[arg(long, value_name = "SIZE", value_parser = parse::size::bytes_or_unlimited, allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// What it may keep when memory is short; -1: none
    #[arg(long, value_name = "SIZE", value_parser = parse::size::bytes_or_unlimited, allow_hyphen_values = true)]
    pub memory_reservation: Option<i64>,
    /// Number of CPUs
    #[arg(long, value_name = "NUMBER", value_parser = parse::size::nano_cpus)]
    pub cpus: Option<i64>,
    /// Relative share of CPU time
    #[arg(short, long, value_name = "WEIGHT")]
    pub cpu_shares: Option<u64>,
    /// CPU time in a period, in microseconds; -1: no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Length of a period, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<u64>,
    /// CPUs that it may use (0-2,4)
    #[arg(long, value_name = "CPUS")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that it may use (0-1)
    #[arg(long, value_name = "NODES")]
    pub cpuset_mems: Option<String>,
    /// Number of processes; -1: no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Relative share of disk bandwidth (10 to 1000)
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u32>,
    /// When to start it again by itself: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// `davit wait`
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// For what: not-running (default), next-exit, removed, or one or several of created, running, paused, restarting, stopped, exited,
    /// removing, healthy, unhealthy
    #[arg(long, value_name = "CONDITION", value_delimiter = ',')]
    pub condition: Vec<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// `davit stats`
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Also those that do not run
    #[arg(short, long)]
    pub all: bool,
    /// Once, and not again every second; CPU % is then the mean since the start
    #[arg(long)]
    pub no_stream: bool,
    /// Ids in full
    #[arg(long)]
    pub no_trunc: bool,
    /// table, json, or a template such as '{{.Name}} {{.MemUsage}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Names or ids [default: all that run]
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,
}
