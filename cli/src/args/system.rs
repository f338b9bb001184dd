//! Commands on the installation itself.

use clap::Args;
use clap_complete::Shell;

use crate::parse;

/// Commands whose only option is how to show things.
#[derive(Debug, Args)]
pub struct FormatArgs {
    /// json, or a template
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
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
    /// Only those that match (container=, event=, type=)
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
