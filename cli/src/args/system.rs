//! Commands on the installation itself.

use clap::{Args, Subcommand};
use clap_complete::Shell;

use crate::parse;

/// Commands whose only option is how to show things.
#[derive(Debug, Args)]
pub struct FormatArgs {
    /// json, or a template
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// `davit system ...`
#[derive(Debug, Subcommand)]
pub enum SystemCommand {
    /// Show what takes space, and what of it could be freed
    Df(DfArgs),
    /// Remove stopped containers, and networks and images that nothing uses
    Prune(PruneArgs),
    /// Show what this installation has and uses (the same as `info`)
    Info(FormatArgs),
    /// Show what happens, as it happens (the same as `events`)
    Events(EventsArgs),
}

/// `davit system df`
#[derive(Debug, Args)]
pub struct DfArgs {
    /// Each image, container and volume
    #[arg(short, long)]
    pub verbose: bool,
    /// table, json, or a template such as '{{.Type}} {{.Size}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// `davit system prune`
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// All images that no container uses, not only those without a name
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Anonymous volumes too
    #[arg(long)]
    pub volumes: bool,
    /// Only those that match (until=, label=, label!=)
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::env::pair)]
    pub filter: Vec<(String, String)>,
}

/// `davit down`
#[derive(Debug, Args)]
pub struct DownArgs {
    /// Do not say which containers keep running
    #[arg(short, long)]
    pub quiet: bool,
}

/// `davit events`
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// From then on (a time, or how long ago: 10m)
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Up to then
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only those that match (type=, event=, container=, image=, label=, name=, network=)
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse::env::pair)]
    pub filter: Vec<(String, String)>,
    /// json, or a template such as '{{.Action}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// `davit completion`
#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}
