//! Commands on volumes.

use clap::{Args, Subcommand};

use crate::parse;

/// `davit volume ...`
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make a volume
    Create(CreateArgs),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show details of volumes
    Inspect(InspectArgs),
    /// Remove volumes
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
    /// Remove anonymous volumes (with -a also named ones) that no container uses
    Prune(PruneArgs),
}

/// `davit volume prune`
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Named volumes too
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Only those that match (label=, label!=)
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::env::pair)]
    pub filter: Vec<(String, String)>,
}

/// `davit volume create`
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The volume driver: there is only local
    #[arg(short, long, value_name = "DRIVER", default_value = "local")]
    pub driver: String,
    /// Option of the driver (type=tmpfs|none, device=, o=)
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse::env::pair)]
    pub opt: Vec<(String, String)>,
    /// Set a label
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::env::label)]
    pub label: Vec<(String, String)>,
    /// Its name; one is made up otherwise
    #[arg(value_name = "VOLUME")]
    pub name: Option<String>,
}

/// `davit volume ls`
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only names
    #[arg(short, long)]
    pub quiet: bool,
    /// Only those that match (name=, label=, dangling=, driver=)
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse::env::pair)]
    pub filter: Vec<(String, String)>,
    /// table, json, or a template such as '{{.Name}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// `davit volume inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// json, or a template such as '{{.Mountpoint}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    pub names: Vec<String>,
}

/// `davit volume rm`
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Say nothing about those that do not exist
    #[arg(short, long)]
    pub force: bool,
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    pub volumes: Vec<String>,
}
