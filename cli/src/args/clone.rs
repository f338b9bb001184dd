//! The flags of `clone` and `console`.

use clap::Args;

use crate::parse;

/// `davit clone`
#[derive(Debug, Args)]
pub struct CloneArgs {
    /// Name of the clone [default: CONTAINER-clone, with a number where that is taken]
    #[arg(long = "name", value_name = "NAME", conflicts_with = "name")]
    pub name_flag: Option<String>,
    /// Start the clone
    #[arg(long)]
    pub run: bool,
    /// Remove the container once it is cloned
    #[arg(long)]
    pub destroy: bool,
    /// With --destroy: also one that runs
    #[arg(short, long, requires = "destroy")]
    pub force: bool,
    /// Freeze the container while its files are copied (--pause=false: do not)
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    pub pause: bool,
    /// Host name of the clone [default: the beginning of its id]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Publish this port in place of the container's own ports
    #[arg(short, long, value_name = "PORTS")]
    pub publish: Vec<String>,
    /// Another memory limit
    #[arg(short, long, value_name = "SIZE", value_parser = parse::size::bytes)]
    pub memory: Option<u64>,
    /// Another limit of memory and swap; -1: none
    #[arg(long, value_name = "SIZE", value_parser = parse::size::bytes_or_unlimited, allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// Another number of CPUs
    #[arg(long, value_name = "NUMBER", value_parser = parse::size::nano_cpus)]
    pub cpus: Option<i64>,
    /// Another relative share of CPU time
    #[arg(short, long, value_name = "WEIGHT")]
    pub cpu_shares: Option<u64>,
    /// Other CPUs that it may use (0-2,4)
    #[arg(long, value_name = "CPUS")]
    pub cpuset_cpus: Option<String>,
    /// Another number of processes
    #[arg(long, value_name = "NUMBER")]
    pub pids_limit: Option<i64>,
    /// Name or id of the container to clone
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// Name of the clone
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
}

/// `davit console`
#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// Only watch
    #[arg(long)]
    pub no_stdin: bool,
    /// Begin with what comes now, not with what was shown last
    #[arg(long)]
    pub no_replay: bool,
    /// Keys that leave the console [default: ctrl-], and ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}
