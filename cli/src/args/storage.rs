//! Commands on what storaged keeps.

use clap::{Args, Subcommand};

/// `davit storage ...`
#[derive(Debug, Subcommand)]
pub enum StorageCommand {
    /// Compare stored images with what was recorded when they came; fails when something is wrong
    Check(CheckArgs),
    /// Remove layers, blobs and files that nothing refers to
    Gc(GcArgs),
}

/// `davit storage check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Restore what is damaged, from the stored archives or from a registry
    #[arg(long)]
    pub repair: bool,
    /// Do not read the content of files: only sizes, modes, owners, times and attributes
    #[arg(long)]
    pub quick: bool,
    /// json: one object a finding, and the totals last
    #[arg(long, value_name = "FORMAT", value_parser = ["json"])]
    pub format: Option<String>,
    /// Only these images [default: everything that is stored]
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// `davit storage gc`
#[derive(Debug, Args)]
pub struct GcArgs {
    /// Only say how much space was freed
    #[arg(short, long)]
    pub quiet: bool,
}
