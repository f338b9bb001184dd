//! Commands on containers.

use clap::{Args, Subcommand};

use super::clone::{CloneArgs, ConsoleArgs};
use super::lifecycle::{StatsArgs, UpdateArgs, WaitArgs};
use super::run::{CreateArgs, RunArgs};
use super::tree::{CommitArgs, CpArgs, DiffArgs, ExportArgs};
use crate::parse;

/// The commands that work with and without the word `container`.
#[derive(Debug, Subcommand)]
pub enum ContainerCommand {
    /// Make and start a container
    Run(Box<RunArgs>),
    /// Make a container without starting it
    Create(Box<CreateArgs>),
    /// Start containers that were made or have ended
    Start(StartArgs),
    /// Stop running containers: the stop signal, then SIGKILL
    Stop(StopArgs),
    /// Stop and start containers
    Restart(RestartArgs),
    /// Send a signal to containers
    Kill(KillArgs),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
    /// List containers
    Ps(PsArgs),
    /// Show what a container wrote
    Logs(LogsArgs),
    /// Run one more command in a running container
    Exec(ExecArgs),
    /// Wait until containers end (or until another condition holds) and print their exit codes
    Wait(WaitArgs),
    /// Change limits and restart policies of containers
    Update(UpdateArgs),
    /// Show what containers use
    Stats(StatsArgs),
    /// Connect to a running container's input and output
    Attach(AttachArgs),
    /// Freeze the processes of containers
    #[command(visible_alias = "freeze")]
    Pause(NamesArgs),
    /// Thaw the processes of containers
    #[command(visible_alias = "thaw")]
    Unpause(NamesArgs),
    /// Sit down at the console of a container with a terminal: what it showed last, then all that comes
    Console(ConsoleArgs),
    /// Make a container like another one, with the files that it has now
    Clone(CloneArgs),
    /// Give a container another name
    Rename(RenameArgs),
    /// Show the processes of a container
    Top(TopArgs),
    /// Show the published ports of a container
    Port(PortArgs),
    /// Make an image of what a container changed
    Commit(CommitArgs),
    /// Copy files between a container and this host, either way
    Cp(CpArgs),
    /// Show what a container changed in its image
    Diff(DiffArgs),
    /// Write a container's files to an archive
    Export(ExportArgs),
}

/// Containers by name or id.
#[derive(Debug, Args)]
pub struct NamesArgs {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// `davit start`
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Connect to its output and forward signals; the exit code is the program's
    #[arg(short, long)]
    pub attach: bool,
    /// Connect to its input too
    #[arg(short, long)]
    pub interactive: bool,
    /// Keys that detach from the container
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// Forward signals to the program (--sig-proxy=false: do not)
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    pub sig_proxy: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// `davit stop`
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Seconds to wait before killing [default: the container's own, or 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", value_parser = parse::duration::patience, allow_hyphen_values = true)]
    pub time: Option<u32>,
    /// Signal to send first [default: the container's own, or TERM]
    #[arg(short, long, value_name = "SIGNAL", value_parser = parse::signal::checked)]
    pub signal: Option<String>,
    /// All that run
    #[arg(short, long)]
    pub all: bool,
    /// The one that was made last
    #[arg(short, long)]
    pub latest: bool,
    /// One that does not exist is no failure
    #[arg(short, long)]
    pub ignore: bool,
    /// Names or ids
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// `davit restart`
#[derive(Debug, Args)]
pub struct RestartArgs {
    /// Seconds to wait before killing [default: the container's own, or 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", value_parser = parse::duration::patience, allow_hyphen_values = true)]
    pub time: Option<u32>,
    /// Signal to send first [default: the container's own, or TERM]
    #[arg(short, long, value_name = "SIGNAL", value_parser = parse::signal::checked)]
    pub signal: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// `davit kill`
#[derive(Debug, Args)]
pub struct KillArgs {
    /// Signal by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = parse::signal::checked)]
    pub signal: String,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// `davit rm`
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Kill those that run
    #[arg(short, long)]
    pub force: bool,
    /// Remove their anonymous volumes too
    #[arg(short, long)]
    pub volumes: bool,
    /// All of them
    #[arg(short, long)]
    pub all: bool,
    /// The one that was made last
    #[arg(short, long)]
    pub latest: bool,
    /// One that does not exist is no failure
    #[arg(short, long)]
    pub ignore: bool,
    /// Names or ids
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// `davit ps`
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Also those that do not run
    #[arg(short, long)]
    pub all: bool,
    /// Only ids
    #[arg(short, long)]
    pub quiet: bool,
    /// Ids and commands in full
    #[arg(long)]
    pub no_trunc: bool,
    /// Only those that match (name=, id=, status=, label=, ancestor=, network=, exited=, health=)
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse::env::pair)]
    pub filter: Vec<(String, String)>,
    /// The last N that were made, in any state
    #[arg(short = 'n', long, value_name = "N")]
    pub last: Option<u32>,
    /// The last one that was made
    #[arg(short, long)]
    pub latest: bool,
    /// What each wrote, and with its image
    #[arg(short, long)]
    pub size: bool,
    /// table, json, or a template such as '{{.ID}} {{.Names}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// `davit inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// json, or a template such as '{{.State.Status}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Of containers also what they wrote (SizeRw), and with their image (SizeRootFs)
    #[arg(short, long)]
    pub size: bool,
    /// What the names are; otherwise each kind is tried in turn
    #[arg(long = "type", value_name = "KIND", value_parser = ["container", "image", "network", "volume"])]
    pub kind: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// `davit container inspect`
#[derive(Debug, Args)]
pub struct InspectContainerArgs {
    /// json, or a template such as '{{.State.Status}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Also what they wrote (SizeRw), and with their image (SizeRootFs)
    #[arg(short, long)]
    pub size: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub names: Vec<String>,
}

/// `davit container prune`
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Only those that match (until=, label=, label!=)
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::env::pair)]
    pub filter: Vec<(String, String)>,
}

/// `davit logs`
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Go on until the container ends
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last N lines
    #[arg(short = 'n', long, value_name = "N", allow_hyphen_values = true)]
    pub tail: Option<String>,
    /// Only from then on (a time, or how long ago: 10m)
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only up to then
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Show when each line was written
    #[arg(short, long)]
    pub timestamps: bool,
    /// Show the labels, variables and tag that its log options add
    #[arg(long)]
    pub details: bool,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// `davit healthcheck ...`
#[derive(Debug, Subcommand)]
pub enum HealthcheckCommand {
    /// Try now whether a running container is healthy: exit code 0 if it is, 1 if not
    Run {
        /// Name or id
        #[arg(value_name = "CONTAINER")]
        container: String,
    },
}

/// `davit exec`
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Keep standard input open
    #[arg(short, long)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Leave it in the background
    #[arg(short, long)]
    pub detach: bool,
    /// User, and group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Set an environment variable
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<String>,
    /// Give it nearly all that root of the host can do
    #[arg(long)]
    pub privileged: bool,
    /// Keys that detach from the command
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// The container, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_names = ["CONTAINER", "COMMAND"], num_args = 2..)]
    pub container_and_command: Vec<String>,
}

/// `davit attach`
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Do not connect to its input
    #[arg(long)]
    pub no_stdin: bool,
    /// Forward signals to the program (--sig-proxy=false: do not)
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    pub sig_proxy: bool,
    /// Keys that detach from the container
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// `davit rename`
#[derive(Debug, Args)]
pub struct RenameArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// Its new name
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// `davit top`
#[derive(Debug, Args)]
pub struct TopArgs {
    /// The container, then options of ps(1)
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_names = ["CONTAINER", "PS_OPTIONS"], num_args = 1..)]
    pub container_and_options: Vec<String>,
}

/// `davit port`
#[derive(Debug, Args)]
pub struct PortArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// Only this port of the container (80, 53/udp)
    #[arg(value_name = "PORT")]
    pub port: Option<String>,
}
