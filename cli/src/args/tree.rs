//! Commands on containers' files.

use std::path::PathBuf;

use clap::Args;

/// `davit diff`
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// `davit export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// `davit commit`
#[derive(Debug, Args)]
pub struct CommitArgs {
    /// Who made it ("Jane Doe <jane@example.org>")
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub author: String,
    /// Comment for the image's history
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub message: String,
    /// Dockerfile instruction to apply (CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, STOPSIGNAL)
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// Pause the container meanwhile
    #[arg(short, long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    pub pause: bool,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// Name of the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub reference: Option<String>,
}

/// `davit cp`
#[derive(Debug, Args)]
pub struct CpArgs {
    /// Keep owners
    #[arg(short, long)]
    pub archive: bool,
    /// Copy what a symbolic link SRC_PATH names, not the link
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// Do not say what was copied
    #[arg(short, long)]
    pub quiet: bool,
    /// CONTAINER:PATH, a path here, or - for a tar on standard input
    #[arg(value_name = "SRC_PATH")]
    pub source: String,
    /// CONTAINER:PATH, a path here, or - for a tar on standard output
    #[arg(value_name = "DEST_PATH")]
    pub destination: String,
}
