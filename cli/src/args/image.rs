//! Commands on images.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::parse;

/// `davit image ...`
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List images
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show details of images
    Inspect(InspectArgs),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
    /// Give an image one more name
    Tag(TagArgs),
    /// Show how an image was made
    History(HistoryArgs),
    /// Fetch an image from a registry
    Pull(PullArgs),
    /// Send an image to a registry
    Push(PushArgs),
    /// Read images from an archive or an OCI layout
    Load(LoadArgs),
    /// Write images to an archive
    Save(SaveArgs),
    /// Make an image of a root file system archive
    Import(ImportArgs),
    /// Make an image of programs of this host, with the libraries they need
    FromHost(FromHostArgs),
    /// Remove images that have no name (or, with -a, that no container uses)
    Prune(PruneArgs),
}

/// `davit image ls`
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those of this name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub reference: Option<String>,
    /// Accepted for scripts: those without a name are always shown
    #[arg(short, long)]
    pub all: bool,
    /// Only ids
    #[arg(short, long)]
    pub quiet: bool,
    /// Ids in full
    #[arg(long)]
    pub no_trunc: bool,
    /// Show digests too
    #[arg(long)]
    pub digests: bool,
    /// Only those that match (reference=, label=, before=, since=, until=, dangling=)
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse::env::pair)]
    pub filter: Vec<(String, String)>,
    /// table, json, or a template such as '{{.Repository}}:{{.Tag}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// `davit image inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// json, or a template such as '{{.Id}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub names: Vec<String>,
}

/// `davit image rm`
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Remove the name even while containers use the image
    #[arg(short, long)]
    pub force: bool,
    /// Accepted for scripts: images have no parents of their own here
    #[arg(long)]
    pub no_prune: bool,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// `davit image tag`
#[derive(Debug, Args)]
pub struct TagArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub source: String,
    /// Its further name
    #[arg(value_name = "NAME[:TAG]")]
    pub target: String,
}

/// `davit image history`
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Only ids
    #[arg(short, long)]
    pub quiet: bool,
    /// Commands in full
    #[arg(long)]
    pub no_trunc: bool,
    /// Ages and rounded sizes (--human=false: moments and bytes)
    #[arg(short = 'H', long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    pub human: bool,
    /// table, json, or a template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

/// How to speak to a registry.
#[derive(Debug, Args, Default)]
pub struct RegistryArgs {
    /// Check the registry's certificate (--tls-verify=false: accept any, and HTTP)
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    pub tls_verify: bool,
    /// Speak HTTP without encryption
    #[arg(long)]
    pub plain_http: bool,
    /// File with a certificate authority to trust besides the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// User name and password; otherwise those of docker's configuration file
    #[arg(long, value_name = "USER:PASSWORD")]
    pub creds: Option<String>,
}

/// `davit image pull`
#[derive(Debug, Args)]
pub struct PullArgs {
    /// Print only the name
    #[arg(short, long)]
    pub quiet: bool,
    /// Platform of the image (os/architecture, os/architecture/variant)
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Fetch all tags of the repository
    #[arg(short, long)]
    pub all_tags: bool,
    /// How to speak to the registry.
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

/// `davit image push`
#[derive(Debug, Args)]
pub struct PushArgs {
    /// Print only the name
    #[arg(short, long)]
    pub quiet: bool,
    /// Send all tags of the repository
    #[arg(short, long)]
    pub all_tags: bool,
    /// How to speak to the registry.
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

/// `davit image load`
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Archive or OCI layout directory [default: standard input]
    #[arg(short, long, value_name = "PATH")]
    pub input: Option<PathBuf>,
    /// Print only the names
    #[arg(short, long)]
    pub quiet: bool,
    /// Name for an image that the archive does not name
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub tag: Option<String>,
    /// Platform to take of several (os/architecture)
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
}

/// `davit image save`
#[derive(Debug, Args)]
pub struct SaveArgs {
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Kind of archive
    #[arg(long, value_name = "FORMAT", default_value = "docker-archive", value_parser = ["docker-archive", "oci-archive"])]
    pub format: String,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// `davit image import`
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Dockerfile instruction to apply (CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, STOPSIGNAL)
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// Comment for the image's history
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// The archive; -: standard input
    #[arg(value_name = "FILE")]
    pub file: String,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    pub reference: Option<String>,
}

/// `davit image from-host`
#[derive(Debug, Args)]
pub struct FromHostArgs {
    /// Name of the image
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub tag: String,
    /// Further file or directory to take along as it is
    #[arg(long, value_name = "PATH")]
    pub path: Vec<String>,
    /// Dockerfile instruction to apply (CMD, ENTRYPOINT, ENV, ...)
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// Print only the id
    #[arg(short, long)]
    pub quiet: bool,
    /// Programs: absolute paths, or names looked up in PATH
    #[arg(required = true, value_name = "PROGRAM")]
    pub programs: Vec<String>,
}

/// `davit image prune`
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// All that no container uses
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Only those that match (until=, label=, label!=)
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::env::pair)]
    pub filter: Vec<(String, String)>,
}
