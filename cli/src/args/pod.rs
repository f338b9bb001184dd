//! Commands on pods: podman's words.

use clap::{Args, Subcommand};

use crate::parse;

/// `davit pod ...`
#[derive(Debug, Subcommand)]
pub enum PodCommand {
    /// Make a pod
    Create(Box<CreateArgs>),
    /// Put containers that do not run into a pod
    Add(AddArgs),
    /// List pods
    #[command(visible_alias = "ls", alias = "list")]
    Ps(PsArgs),
    /// Show details of pods
    Inspect(InspectArgs),
    /// Start pods and all their containers
    Start(NamesArgs),
    /// Stop all containers of pods
    Stop(StopArgs),
    /// Stop and start all containers of pods
    Restart(NamesArgs),
    /// Send a signal to all containers of pods
    Kill(KillArgs),
    /// Freeze all containers of pods
    Pause(NamesArgs),
    /// Thaw all containers of pods
    Unpause(NamesArgs),
    /// Remove pods with their containers
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
}

/// `davit pod create`
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct CreateArgs {
    /// Name of the pod; one is made up otherwise
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// What its containers share: net, ipc, uts, pid; or none
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',')]
    pub share: Vec<String>,
    /// Publish a port on the host, for whichever of its containers listens there
    #[arg(short, long, value_name = "PORTS")]
    pub publish: Vec<String>,
    /// Network: a name, bridge, host or none
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    pub network: Vec<String>,
    /// One more name on the network
    #[arg(long, value_name = "NAME")]
    pub network_alias: Vec<String>,
    /// IPv4 address on the network
    #[arg(long, value_name = "ADDRESS", value_parser = parse::network::ipv4)]
    pub ip: Option<std::net::Ipv4Addr>,
    /// IPv6 address on the network
    #[arg(long, value_name = "ADDRESS", value_parser = parse::network::ipv6)]
    pub ip6: Option<std::net::Ipv6Addr>,
    /// Hardware address on the network
    #[arg(long, value_name = "MAC", value_parser = parse::network::mac)]
    pub mac_address: Option<String>,
    /// Name server in place of the host's
    #[arg(long, value_name = "ADDRESS", value_parser = parse::network::name_server)]
    pub dns: Vec<davit_contracts::nameserver::NameServer>,
    /// Domain in which short names are looked for
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// Option of the resolver
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub dns_option: Vec<String>,
    /// Line of /etc/hosts (NAME:ADDRESS)
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub add_host: Vec<String>,
    /// Host name of its containers; the pod's name otherwise
    #[arg(short = 'h', long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Kernel parameter of the shared namespaces
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse::env::pair)]
    pub sysctl: Vec<(String, String)>,
    /// Set a label
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse::env::label)]
    pub label: Vec<(String, String)>,
    /// Write the pod's id to a file
    #[arg(long, value_name = "FILE")]
    pub pod_id_file: Option<std::path::PathBuf>,
    /// Explain this command
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Its name, as with --name
    #[arg(value_name = "NAME", conflicts_with = "name")]
    pub pod: Option<String>,
}

/// `davit pod add`
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Name or id
    #[arg(value_name = "POD")]
    pub pod: String,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// `davit pod ps`
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Only ids
    #[arg(short, long)]
    pub quiet: bool,
    /// Ids in full
    #[arg(long)]
    pub no_trunc: bool,
    /// Only those that match (name=, id=, status=, label=)
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse::env::pair)]
    pub filter: Vec<(String, String)>,
    /// table, json, or a template such as '{{.Id}} {{.Name}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// `davit pod inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// json, or a template such as '{{.State}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "POD")]
    pub pods: Vec<String>,
}

/// Pods by name or id.
#[derive(Debug, Args)]
pub struct NamesArgs {
    /// Names or ids
    #[arg(required = true, value_name = "POD")]
    pub pods: Vec<String>,
}

/// `davit pod stop`
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Seconds to wait before killing [default: each container's own, or 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", value_parser = parse::duration::patience, allow_hyphen_values = true)]
    pub time: Option<u32>,
    /// Names or ids
    #[arg(required = true, value_name = "POD")]
    pub pods: Vec<String>,
}

/// `davit pod kill`
#[derive(Debug, Args)]
pub struct KillArgs {
    /// Signal by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = parse::signal::checked)]
    pub signal: String,
    /// Names or ids
    #[arg(required = true, value_name = "POD")]
    pub pods: Vec<String>,
}

/// `davit pod rm`
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Kill what runs
    #[arg(short, long)]
    pub force: bool,
    /// Names or ids
    #[arg(required = true, value_name = "POD")]
    pub pods: Vec<String>,
}
