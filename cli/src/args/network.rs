//! Commands on networks.

use clap::{Args, Subcommand};

use super::network_view::{CheckArgs, ExplainArgs, GraphArgs};
use crate::parse;

/// `davit network ...`
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Make a network
    Create(Box<CreateArgs>),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show details of networks
    Inspect(InspectArgs),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
    /// Connect a container to one more network
    Connect(ConnectArgs),
    /// Disconnect a container from a network
    Disconnect(DisconnectArgs),
    /// Set or show which containers of a network may reach which
    Policy(PolicyArgs),
    /// Remove all networks that no container uses
    Prune(PruneArgs),
    /// Compare networks with what the kernel has, and mend what differs; exit code 3 when something remains
    #[command(
        after_help = "Exit codes: 0 nothing differs, or all is repaired; 3 something differs; 1 the check failed; 125 wrong usage"
    )]
    Check(CheckArgs),
    /// Say hop by hop what lets traffic through or stops it; fails when something stops it
    Explain(ExplainArgs),
    /// Draw the host, networks, containers, addresses and published ports
    Graph(GraphArgs),
}

/// `davit network create`
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Driver: bridge, macvlan, ipvlan, cni
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    pub driver: String,
    /// Subnet (CIDR); one is chosen otherwise
    #[arg(long, value_name = "SUBNET", value_parser = parse::network::subnet)]
    pub subnet: Vec<ipnet::IpNet>,
    /// The subnets' gateways
    #[arg(long, value_name = "ADDRESS", value_parser = parse::network::ip)]
    pub gateway: Vec<std::net::IpAddr>,
    /// Part of a subnet that addresses are chosen from (CIDR)
    #[arg(long, value_name = "RANGE", value_parser = parse::network::subnet)]
    pub ip_range: Vec<ipnet::IpNet>,
    /// Addresses that are not given to containers (NAME=ADDRESS)
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = parse::env::pair)]
    pub aux_address: Vec<(String, String)>,
    /// Who gives addresses; only 'default' is here
    #[arg(long, value_name = "DRIVER", default_value = "default", hide_default_value = true)]
    pub ipam_driver: String,
    /// Option of the IPAM driver; the default one has none
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::env::pair)]
    pub ipam_opt: Vec<(String, String)>,
    /// With IPv4, unless =false
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set, hide_default_value = true)]
    pub ipv4: bool,
    /// With IPv6
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub ipv6: Option<bool>,
    /// Without a way out
    #[arg(long)]
    pub internal: bool,
    /// Accepted for scripts: containers can always be connected by hand
    #[arg(long)]
    pub attachable: bool,
    /// How far it reaches; only 'local' is here
    #[arg(long, value_name = "SCOPE", default_value = "local", hide_default_value = true)]
    pub scope: String,
    /// Refused: configurations without a network are for swarms
    #[arg(long)]
    pub config_only: bool,
    /// Refused, as --config-only
    #[arg(long, value_name = "NETWORK")]
    pub config_from: Option<String>,
    /// Refused: swarms have such a network
    #[arg(long)]
    pub ingress: bool,
    /// Without name resolution
    #[arg(long)]
    pub disable_dns: bool,
    /// Option of the driver, such as parent=eth0 or com.docker.network.driver.mtu=1400
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse::env::pair)]
    pub opt: Vec<(String, String)>,
    /// Set a label
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::env::label)]
    pub label: Vec<(String, String)>,
    /// Rule of its policy: 'allow|deny [from LABELS] [to LABELS] [PROTOCOL[/PORT[-PORT]]]'
    #[arg(long = "policy", value_name = "RULE", value_parser = parse::policy::rule)]
    pub policy: Vec<davit_contracts::network::PolicyRule>,
    /// What happens to connections between its containers that no rule matches
    #[arg(long, value_name = "allow|deny", value_parser = ["allow", "deny"], default_value = "allow")]
    pub policy_default: String,
    /// Its name
    #[arg(value_name = "NETWORK")]
    pub name: String,
}

/// `davit network policy`
#[derive(Debug, Args)]
#[command(after_help = "The first rule that matches decides; answers to what was allowed pass by themselves.
LABELS: KEY=VALUE or KEY, with commas between, or 'any'. PROTOCOL: tcp, udp, sctp or icmp.
Without options the policy is shown.

  davit network policy --default deny --rule 'allow from role=web to role=db tcp/5432' my-bridge")]
pub struct PolicyArgs {
    /// Rule: 'allow|deny [from LABELS] [to LABELS] [PROTOCOL[/PORT[-PORT]]]'; replaces all there are
    #[arg(long = "rule", value_name = "RULE", value_parser = parse::policy::rule)]
    pub rules: Vec<davit_contracts::network::PolicyRule>,
    /// What happens to connections that no rule matches: allow or deny
    #[arg(long, value_name = "allow|deny", value_parser = ["allow", "deny"])]
    pub default: Option<String>,
    /// Remove the policy: every connection is allowed
    #[arg(long, conflicts_with_all = ["rules", "default"])]
    pub clear: bool,
    /// The network
    #[arg(value_name = "NETWORK")]
    pub network: String,
}

/// `davit network ls`
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only ids
    #[arg(short, long)]
    pub quiet: bool,
    /// Ids in full
    #[arg(long)]
    pub no_trunc: bool,
    /// Only those that match (name=, id=, driver=, label=, scope=, type=custom|builtin, dangling=)
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse::env::pair)]
    pub filter: Vec<(String, String)>,
    /// table, json, or a template such as '{{.Name}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// `davit network inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// json, or a template such as '{{.Driver}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Accepted for scripts: everything is shown always
    #[arg(short, long)]
    pub verbose: bool,
    /// Names or ids
    #[arg(required = true, value_name = "NETWORK")]
    pub names: Vec<String>,
}

/// `davit network rm`
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// No failure when there is no such network
    #[arg(short, long)]
    pub force: bool,
    /// Names or ids
    #[arg(required = true, value_name = "NETWORK")]
    pub networks: Vec<String>,
}

/// `davit network connect`
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// One more name on this network
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<String>,
    /// IPv4 address on it
    #[arg(long, value_name = "ADDRESS", value_parser = parse::network::ipv4)]
    pub ip: Option<std::net::Ipv4Addr>,
    /// IPv6 address on it
    #[arg(long, value_name = "ADDRESS", value_parser = parse::network::ipv6)]
    pub ip6: Option<std::net::Ipv6Addr>,
    /// Hardware address on it
    #[arg(long, value_name = "MAC", value_parser = parse::network::mac)]
    pub mac_address: Option<String>,
    /// Call another container by a name of one's own (CONTAINER[:NAME])
    #[arg(long, value_name = "CONTAINER", value_parser = parse::network::link)]
    pub link: Vec<String>,
    /// The network with the highest has the default route
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, default_value_t = 0)]
    pub gw_priority: i32,
    /// Name of the interface inside
    #[arg(long, value_name = "NAME")]
    pub interface_name: Option<String>,
    /// Option of the endpoint
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::env::pair)]
    pub driver_opt: Vec<(String, String)>,
    /// Limit of what enters it, such as 10mbit
    #[arg(long, value_name = "RATE", value_parser = parse::rate::bits)]
    pub ingress_rate: Option<u64>,
    /// How much of it may come at once, such as 64k
    #[arg(long, value_name = "SIZE", value_parser = parse::size::bytes)]
    pub ingress_burst: Option<u64>,
    /// Limit of what leaves it
    #[arg(long, value_name = "RATE", value_parser = parse::rate::bits)]
    pub egress_rate: Option<u64>,
    /// How much of it may leave at once
    #[arg(long, value_name = "SIZE", value_parser = parse::size::bytes)]
    pub egress_burst: Option<u64>,
    /// The network
    #[arg(value_name = "NETWORK")]
    pub network: String,
    /// The container
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// `davit network disconnect`
#[derive(Debug, Args)]
pub struct DisconnectArgs {
    /// Even when the container does not answer
    #[arg(short, long)]
    pub force: bool,
    /// The network
    #[arg(value_name = "NETWORK")]
    pub network: String,
    /// The container
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// `davit network prune`
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Only those that match (until=24h or a time, label=, label!=, name=, id=, driver=)
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::env::pair)]
    pub filter: Vec<(String, String)>,
}
