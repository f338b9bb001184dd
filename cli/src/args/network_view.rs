//! Commands that look at networks as a whole.

use std::path::PathBuf;

use clap::Args;

/// `davit network check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Mend what is not as it should be, on all networks
    #[arg(long)]
    pub repair: bool,
    /// table, json, or a template such as '{{.Object}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Show only what differs on these networks and in their containers
    #[arg(value_name = "NETWORK")]
    pub networks: Vec<String>,
}

/// `davit network explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// json: one object
    #[arg(long, value_name = "FORMAT", value_parser = ["json"])]
    pub format: Option<String>,
    /// A running container, or 'host'
    #[arg(value_name = "FROM")]
    pub from: String,
    /// A name, an address, or 'host'; with a port, such as db:5432, [fd00::2]:80 or db:53/udp
    #[arg(value_name = "TO[:PORT[/PROTOCOL]]")]
    pub to: String,
}

/// `davit network graph`
#[derive(Debug, Args)]
pub struct GraphArgs {
    /// svg, dot or json
    #[arg(long, value_name = "FORMAT", default_value = "svg", value_parser = ["svg", "dot", "json"])]
    pub format: String,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Only these networks [default: all that exist]
    #[arg(value_name = "NETWORK")]
    pub networks: Vec<String>,
}
