//! The flags of `run` and `create`.

use clap::Args;

use crate::parse;

/// `davit create`, and most of `davit run`.
#[derive(Debug, Args, Default)]
#[command(disable_help_flag = true)]
pub struct CreateArgs {
    /// Name of the container; one is made up otherwise
    #[arg(long, help_heading = "Container")]
    pub name: Option<String>,
    /// Keep standard input open
    #[arg(short, long, help_heading = "Container")]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(short, long, help_heading = "Container")]
    pub tty: bool,
    /// Remove it when it ends
    #[arg(long, help_heading = "Container")]
    pub rm: bool,
    /// Set an environment variable (KEY=value, or KEY for its value here)
    #[arg(short, long, value_name = "KEY=VALUE", help_heading = "Process")]
    pub env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE", help_heading = "Process")]
    pub env_file: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR", help_heading = "Process")]
    pub workdir: Option<String>,
    /// User, and group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]", help_heading = "Process")]
    pub user: Option<String>,
    /// Further groups of the process
    #[arg(long, value_name = "GROUP", help_heading = "Process")]
    pub group_add: Vec<String>,
    /// Program to run in place of the image's entrypoint; empty: none
    #[arg(long, value_name = "PROGRAM", help_heading = "Process")]
    pub entrypoint: Option<String>,
    /// Run a small init as process 1 that reaps orphans and forwards signals
    #[arg(long, help_heading = "Process")]
    pub init: bool,
    /// Boot an image's init: auto, sysvinit, runit, systemd or busybox; it gets a console ('davit console')
    #[arg(long, value_name = "INIT", default_missing_value = "auto", num_args = 0..=1, require_equals = true, value_parser = ["auto", "sysvinit", "runit", "systemd", "busybox", "off"], help_heading = "Process")]
    pub system: Option<String>,
    /// Signal that `stop` sends
    #[arg(long, value_name = "SIGNAL", value_parser = parse::signal::checked, help_heading = "Process")]
    pub stop_signal: Option<String>,
    /// Seconds that `stop` waits before it kills
    #[arg(long, value_name = "SECONDS", value_parser = parse::duration::patience, allow_hyphen_values = true, help_heading = "Process")]
    pub stop_timeout: Option<u32>,
    /// When to start it again: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY", help_heading = "Process")]
    pub restart: Option<String>,
    /// Mount a volume or a directory ([SOURCE:]TARGET[:ro])
    #[arg(short, long, value_name = "SOURCE:TARGET", help_heading = "Files")]
    pub volume: Vec<String>,
    /// Mount by fields (type=bind,source=...,target=...)
    #[arg(long, value_name = "FIELDS", help_heading = "Files")]
    pub mount: Vec<String>,
    /// Mount what another container mounts (CONTAINER[:ro])
    #[arg(long, value_name = "CONTAINER", help_heading = "Files")]
    pub volumes_from: Vec<String>,
    /// The volume driver: there is only local
    #[arg(long, value_name = "DRIVER", value_parser = ["local"], help_heading = "Files")]
    pub volume_driver: Option<String>,
    /// Mount a tmpfs (PATH[:OPTIONS])
    #[arg(long, value_name = "PATH", help_heading = "Files")]
    pub tmpfs: Vec<String>,
    /// Make the root file system read-only
    #[arg(long, help_heading = "Files")]
    pub read_only: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE", value_parser = parse::size::bytes, help_heading = "Files")]
    pub shm_size: Option<u64>,
    /// Give it a device of the host (/dev/a[:/dev/b[:rwm]])
    #[arg(long, value_name = "DEVICE", help_heading = "Files")]
    pub device: Vec<String>,
    /// Network: a name, bridge, host, none or container:NAME; or
    /// name=NET[,alias=,ip=,ip6=,mac-address=,gw-priority=,interface-name=,link=,driver-opt=K=V,ingress-rate=,ingress-burst=,egress-rate=,egress-burst=]
    #[arg(long, visible_alias = "net", value_name = "NETWORK", help_heading = "Network")]
    pub network: Vec<String>,
    /// One more name on the network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME", help_heading = "Network")]
    pub network_alias: Vec<String>,
    /// IPv4 address on the network
    #[arg(long, value_name = "ADDRESS", help_heading = "Network", value_parser = parse::network::ipv4)]
    pub ip: Option<std::net::Ipv4Addr>,
    /// IPv6 address on the network
    #[arg(long, value_name = "ADDRESS", help_heading = "Network", value_parser = parse::network::ipv6)]
    pub ip6: Option<std::net::Ipv6Addr>,
    /// Hardware address on the network
    #[arg(long, value_name = "MAC", value_parser = parse::network::mac, help_heading = "Network")]
    pub mac_address: Option<String>,
    /// Call another container by a name of one's own (CONTAINER[:NAME])
    #[arg(long, value_name = "CONTAINER", help_heading = "Network", value_parser = parse::network::link)]
    pub link: Vec<String>,
    /// Publish a port on the host ([[IP:]HOST_PORT:]PORT[/udp], or published=HOST_PORT,target=PORT[,protocol=udp])
    #[arg(short, long, value_name = "PORTS", help_heading = "Network")]
    pub publish: Vec<String>,
    /// Publish all ports that the image exposes
    #[arg(short = 'P', long, help_heading = "Network")]
    pub publish_all: bool,
    /// Note a port, or a range, as exposed: `-P` publishes it
    #[arg(long, value_name = "PORT", help_heading = "Network")]
    pub expose: Vec<String>,
    /// Name server in place of the host's, asked from inside the container (ADDRESS, or fe80::1%eth0)
    #[arg(long, value_name = "ADDRESS", help_heading = "Network", value_parser = parse::network::name_server)]
    pub dns: Vec<davit_contracts::nameserver::NameServer>,
    /// Domain in which short names are looked for
    #[arg(long, value_name = "DOMAIN", help_heading = "Network")]
    pub dns_search: Vec<String>,
    /// Option of the resolver
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION", help_heading = "Network")]
    pub dns_option: Vec<String>,
    /// Line of /etc/hosts (NAME:ADDRESS)
    #[arg(long, value_name = "NAME:ADDRESS", help_heading = "Network")]
    pub add_host: Vec<String>,
    /// Host name of the container
    #[arg(short = 'h', long, value_name = "NAME", help_heading = "Network")]
    pub hostname: Option<String>,
    /// NIS domain name of the container
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    pub domainname: Option<String>,
    /// Give a capability
    #[arg(long, value_name = "CAPABILITY", help_heading = "Security")]
    pub cap_add: Vec<String>,
    /// Take a capability
    #[arg(long, value_name = "CAPABILITY", help_heading = "Security")]
    pub cap_drop: Vec<String>,
    /// Give it nearly all that root of the host can do
    #[arg(long, help_heading = "Security")]
    pub privileged: bool,
    /// Security option: no-new-privileges, seccomp=FILE|unconfined, apparmor=PROFILE, label=..., systempaths=unconfined,
    /// mask=PATH, unmask=PATH, writable-cgroups, landlock=ro:PATH,rw:PATH
    #[arg(long, value_name = "OPTION", help_heading = "Security")]
    pub security_opt: Vec<String>,
    /// Process namespace: private, host or container:NAME
    #[arg(long, value_name = "NAMESPACE", help_heading = "Namespaces")]
    pub pid: Option<String>,
    /// IPC namespace: private, shareable, host, none (without /dev/shm) or container:NAME
    #[arg(long, value_name = "NAMESPACE", help_heading = "Namespaces")]
    pub ipc: Option<String>,
    /// UTS namespace (host and domain name): private, host or container:NAME
    #[arg(long, value_name = "NAMESPACE", help_heading = "Namespaces")]
    pub uts: Option<String>,
    /// User namespace: host, auto[:size=NUMBER] (ids that no other container has), private (the same) or container:NAME
    #[arg(long, value_name = "NAMESPACE", help_heading = "Namespaces")]
    pub userns: Option<String>,
    /// Ids of users in a user namespace of its own, and on the host
    #[arg(long, value_name = "INSIDE:HOST:COUNT", value_parser = parse::idmap::line, help_heading = "Namespaces")]
    pub uidmap: Vec<davit_contracts::runtime::IdMap>,
    /// The same of groups; as --uidmap when not given
    #[arg(long, value_name = "INSIDE:HOST:COUNT", value_parser = parse::idmap::line, help_heading = "Namespaces")]
    pub gidmap: Vec<davit_contracts::runtime::IdMap>,
    /// cgroup namespace: private, host or container:NAME
    #[arg(long, value_name = "NAMESPACE", help_heading = "Namespaces")]
    pub cgroupns: Option<String>,
    /// Time namespace: host, private or container:NAME
    #[arg(long, value_name = "NAMESPACE", help_heading = "Namespaces")]
    pub time: Option<String>,
    /// Move a clock of a time namespace of its own (monotonic or boottime)
    #[arg(long, value_name = "CLOCK=SECONDS", value_parser = parse::duration::clock_offset, allow_hyphen_values = true, help_heading = "Namespaces")]
    pub time_offset: Vec<(String, i64)>,
    /// Kernel parameter of the container's namespaces
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse::env::pair, help_heading = "Namespaces")]
    pub sysctl: Vec<(String, String)>,
    /// Limits.
    #[command(flatten)]
    pub limits: super::limits::LimitArgs,
    /// Set a label
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse::env::label, help_heading = "Container")]
    pub label: Vec<(String, String)>,
    /// Read labels from a file, one a line
    #[arg(long, value_name = "FILE", help_heading = "Container")]
    pub label_file: Vec<String>,
    /// Set an annotation for the OCI runtime
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::env::label, help_heading = "Container")]
    pub annotation: Vec<(String, String)>,
    /// Write the container's id to a file
    #[arg(long, value_name = "FILE", help_heading = "Container")]
    pub cidfile: Option<std::path::PathBuf>,
    /// OCI runtime: a name from the configuration, or a path
    #[arg(long, value_name = "RUNTIME", help_heading = "Container")]
    pub runtime: Option<String>,
    /// Log driver: json-file, local, journald or none
    #[arg(long, value_name = "DRIVER", help_heading = "Container")]
    pub log_driver: Option<String>,
    /// Option of the log driver (max-size, max-file, compress, mode, max-buffer-size, labels, env, tag)
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::env::pair, help_heading = "Container")]
    pub log_opt: Vec<(String, String)>,
    /// Command that finds out whether it is healthy
    #[arg(long, value_name = "COMMAND", help_heading = "Health", conflicts_with_all = ["health_tcp", "health_http"])]
    pub health_cmd: Option<String>,
    /// Healthy when this port takes connections ([HOST:]PORT)
    #[arg(long, value_name = "PORT", help_heading = "Health", conflicts_with = "health_http")]
    pub health_tcp: Option<String>,
    /// Healthy when this is answered with a status from 200 to 399 ([http://HOST:]PORT[/PATH])
    #[arg(long, value_name = "URL", help_heading = "Health")]
    pub health_http: Option<String>,
    /// Time between checks [default: the image's, or 30s]
    #[arg(long, value_name = "TIME", value_parser = parse::duration::length, help_heading = "Health")]
    pub health_interval: Option<i64>,
    /// A check that takes longer has failed [default: the image's, or 30s]
    #[arg(long, value_name = "TIME", value_parser = parse::duration::length, help_heading = "Health")]
    pub health_timeout: Option<i64>,
    /// So many failures in a row mean unhealthy [default: the image's, or 3]
    #[arg(long, value_name = "NUMBER", help_heading = "Health")]
    pub health_retries: Option<u32>,
    /// Failures within this time after the start do not count [default: the image's, or 0s]
    #[arg(long, value_name = "TIME", value_parser = parse::duration::length, help_heading = "Health")]
    pub health_start_period: Option<i64>,
    /// Time between checks in the start period [default: the image's, or 5s]
    #[arg(long, value_name = "TIME", value_parser = parse::duration::length, help_heading = "Health")]
    pub health_start_interval: Option<i64>,
    /// What to do when it becomes unhealthy
    #[arg(long, value_name = "ACTION", value_parser = ["none", "kill", "restart", "stop"], help_heading = "Health")]
    pub health_on_failure: Option<String>,
    /// Never run the image's health check
    #[arg(long, help_heading = "Health")]
    pub no_healthcheck: bool,
    /// Run it in a pod
    #[arg(long, value_name = "POD", help_heading = "Container")]
    pub pod: Option<String>,
    /// When to fetch the image: missing, always, never
    #[arg(long, value_name = "WHEN", default_value = "missing", value_parser = ["missing", "always", "never"], help_heading = "Image")]
    pub pull: String,
    /// Platform of the image (os/architecture)
    #[arg(long, value_name = "PLATFORM", help_heading = "Image")]
    pub platform: Option<String>,
    /// Show no progress of the image's fetch
    #[arg(short, long, help_heading = "Image")]
    pub quiet: bool,
    /// Explain this command
    #[arg(long, action = clap::ArgAction::Help)]
    pub(crate) help: Option<bool>,
    /// The image, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_names = ["IMAGE", "COMMAND"], num_args = 1..)]
    pub image_and_command: Vec<String>,
}

/// `davit run`
#[derive(Debug, Args, Default)]
#[command(disable_help_flag = true)]
pub struct RunArgs {
    /// Leave it in the background and print its id
    #[arg(short, long, help_heading = "Container")]
    pub detach: bool,
    /// Forward signals to the program (--sig-proxy=false: do not)
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set, help_heading = "Container")]
    pub sig_proxy: bool,
    /// Keys that detach from the container
    #[arg(long, value_name = "KEYS", help_heading = "Container")]
    pub detach_keys: Option<String>,
    /// Print what each stage of the start took
    #[arg(long, help_heading = "Container")]
    pub timings: bool,
    /// What `create` takes too.
    #[command(flatten)]
    pub create: CreateArgs,
}
