//! What can go wrong in the engine, and what kind of failure it is to a caller.

use std::net::IpAddr;
use std::path::PathBuf;

use davit_contracts::Kind;
use ipnet::IpNet;
use nix::errno::Errno;

use crate::driver::cni::chain::ChainError;
use crate::driver::cni::list::ListError;
use crate::driver::cni::run::RunError;
use crate::driver::inside::InsideError;
use crate::driver::{DriverError, of_netlink};
use crate::endpoint::holder::HolderError;
use crate::endpoint::journal::JournalError;
use crate::endpoint::options::OptionError;
use crate::firewall::FirewallError;
use crate::ipam::IpamError;
use crate::netlink::NetlinkError;
use crate::network::SpecError;
use crate::network::store::StoreError;
use crate::publish::PublishError;
use crate::sysctl::SysctlError;

/// A request that failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's message says what it is")]
pub enum EngineError {
    #[error("no network '{name}'")]
    UnknownNetwork { name: String, nearest: Option<String> },
    #[error("'{0}' is the beginning of several networks' ids")]
    AmbiguousNetwork(String),
    #[error("a network named '{0}' exists already")]
    NetworkExists(String),
    #[error("network '{name}' has endpoints: {}", by.join(", "))]
    NetworkInUse { name: String, by: Vec<String> },
    #[error("network '{0}' is predefined and cannot be removed")]
    Predefined(String),
    #[error("subnet {subnet} overlaps {by}")]
    Overlap { subnet: IpNet, by: String },
    #[error("no free subnet is left in the address pools")]
    PoolsExhausted,
    #[error("the bridge name '{interface}' is in use by {by}")]
    BridgeName { interface: String, by: String },
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("cannot give '{container}' an address on network '{network}'")]
    Address { container: String, network: String, holder: Option<String>, source: IpamError },
    #[error("mac {mac} is in use by {holder} on network '{network}'")]
    MacTaken { mac: String, holder: String, network: String },
    #[error("{what} '{value}' of '{container}' is not valid: {expected}")]
    Endpoint { container: String, what: &'static str, value: String, expected: String },
    #[error("'{container}' cannot have address {ip} on network '{network}', which has no IPv{version}")]
    NoFamily { container: String, network: String, version: u8, ip: IpAddr },
    #[error("no port of '{0}' can be published at {1}: it has no IPv4 address")]
    NoPortFamily(String, IpAddr),
    #[error("'{container}' on network '{network}' cannot be limited: {why}")]
    NoLimit { container: String, network: String, why: &'static str },
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error("'{0}' cannot publish ports: none of its networks leads out")]
    NoWayIn(String),
    #[error("'{0}' is given to network '{1}' twice")]
    Twice(String, String),
    #[error("network 'host' cannot be combined with others")]
    HostWithOthers,
    #[error("network 'none' is for containers without any other: nothing can be connected to it")]
    NoneWithOthers,
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("the network namespace of '{container}' is gone")]
    HolderGone { container: String, source: HolderError },
    #[error("{} of '{container}' has no network namespace of its own", at.display())]
    HostNamespace { container: String, at: PathBuf },
    #[error("'{0}' is attached already")]
    Attached(String),
    #[error("no container '{name}' is connected to a network")]
    NoSuchPlace { name: String, nearest: Option<String> },
    #[error("unknown protocol '{0}'")]
    UnknownProtocol(String),
    #[error("plugins have a part in '{0}'")]
    PluginsFirst(String),
    #[error("cannot {verb} '{container}': network '{network}'")]
    Plugins { verb: &'static str, container: String, network: String, source: Box<ChainError> },
    #[error("the plugins of network '{network}' are not ready")]
    NotReady { network: String, source: Box<ChainError> },
    #[error("'{container}' cannot have {what} on network '{network}': none of its plugins takes them")]
    Capability { container: String, network: String, what: &'static str, capability: &'static str },
    #[error("no sandbox '{0}' is attached")]
    UnknownSandbox(String),
    #[error("'{sandbox}' is connected to network '{network}' already")]
    Connected { sandbox: String, network: String },
    #[error("'{sandbox}' is not connected to network '{network}'")]
    NotConnected { sandbox: String, network: String },
    #[error("'{container}' took its interface {interface} of network '{network}' away, or moved it")]
    OutOfReach { container: String, interface: String, network: String },
    #[error("network '{network}' is not usable")]
    Base { network: String, source: DriverError },
    #[error("the parent interface {parent} is in use by network '{network}': {why}")]
    ParentTaken { parent: String, network: String, why: &'static str },
    #[error("cannot wire '{container}' to network '{network}'")]
    Wire { container: String, network: String, source: DriverError },
    #[error("cannot set up the network inside '{container}'")]
    Inside { container: String, source: InsideError },
    #[error("network '{0}' cannot have a policy: its driver is {1}, and policies are for bridges")]
    NoPolicy(String, &'static str),
    #[error("network '{0}' cannot have a policy: this kernel does not filter packets on bridges")]
    NoBridgeFilter(String),
    #[error("cannot change the firewall")]
    Firewall(#[source] FirewallError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    #[error("cannot write {}", path.display())]
    Note { path: PathBuf, source: std::io::Error },
    #[error("not everything of '{what}' could be removed: {}", errors.join("; "))]
    Teardown { what: String, errors: Vec<String> },
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    #[error("netd is stopping")]
    Stopped,
}

impl EngineError {
    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::UnknownNetwork { .. }
            | Self::NoSuchPlace { .. }
            | Self::UnknownSandbox(_)
            | Self::NotConnected { .. } => Kind::NotFound,
            Self::NetworkExists(_) | Self::Connected { .. } | Self::Attached(_) => Kind::AlreadyExists,
            Self::NetworkInUse { .. }
            | Self::Overlap { .. }
            | Self::BridgeName { .. }
            | Self::MacTaken { .. }
            | Self::Address { source: IpamError::Taken(_) | IpamError::Host(_), .. }
            | Self::ParentTaken { .. }
            | Self::Publish(
                PublishError::Ours { .. } | PublishError::Host { .. } | PublishError::Range { .. },
            ) => Kind::InUse,
            Self::PoolsExhausted
            | Self::Address { source: IpamError::Full(_), .. }
            | Self::Publish(PublishError::Descriptors { .. }) => Kind::NoSpace,
            Self::Publish(PublishError::Bind { source, .. }) => match source.raw_os_error() {
                Some(libc::EACCES | libc::EPERM) => Kind::PermissionDenied,
                _ => Kind::InvalidArgument,
            },
            Self::AmbiguousNetwork(_)
            | Self::Predefined(_)
            | Self::UnknownProtocol(_)
            | Self::Spec(_)
            | Self::Publish(PublishError::Broadcast(_))
            | Self::Address { .. }
            | Self::Endpoint { .. }
            | Self::NoFamily { .. }
            | Self::NoPortFamily(..)
            | Self::Option(_)
            | Self::Inside { source: InsideError::Sysctl(_), .. }
            | Self::NoWayIn(_)
            | Self::Twice(..)
            | Self::Capability { .. }
            | Self::HostWithOthers
            | Self::NoneWithOthers
            | Self::NoPolicy(..) => Kind::InvalidArgument,
            Self::Plugins { source, .. } | Self::NotReady { source, .. } => of_plugins(source),
            Self::HolderGone { .. } | Self::HostNamespace { .. } | Self::OutOfReach { .. } => {
                Kind::WrongState
            }
            Self::Stopped | Self::Firewall(FirewallError::Locked { .. }) => Kind::Unavailable,
            Self::Firewall(FirewallError::Late { .. }) => Kind::Timeout,
            Self::NoLimit { .. }
            | Self::NoBridgeFilter(_)
            | Self::Firewall(FirewallError::NoCommand { .. }) => Kind::Unsupported,
            Self::Firewall(FirewallError::Netlink(e))
            | Self::Netlink(e)
            | Self::Inside { source: InsideError::Netlink(e), .. }
            | Self::Inside { source: InsideError::Redirect(FirewallError::Netlink(e)), .. } => of_netlink(e),
            Self::Base { source, .. }
            | Self::Wire { source, .. }
            | Self::Inside { source: InsideError::Inward(source), .. } => source.kind(),
            Self::Firewall(FirewallError::Command { .. })
            | Self::Inside { .. }
            | Self::PluginsFirst(_)
            | Self::Store(_)
            | Self::Journal(_)
            | Self::Sysctl(_)
            | Self::Note { .. }
            | Self::Thread(_)
            | Self::Teardown { .. } => Kind::Internal,
        }
    }

    /// What it is about.
    pub fn subject(&self) -> String {
        match self {
            Self::UnknownNetwork { name, .. }
            | Self::NetworkInUse { name, .. }
            | Self::NetworkExists(name)
            | Self::Predefined(name)
            | Self::AmbiguousNetwork(name)
            | Self::UnknownSandbox(name)
            | Self::Address { container: name, .. }
            | Self::HolderGone { container: name, .. }
            | Self::Spec(SpecError::Option { name, .. } | SpecError::Value { name, .. }) => name.clone(),
            Self::Overlap { subnet, .. } => subnet.to_string(),
            Self::Publish(
                PublishError::Ours { host, .. }
                | PublishError::Host { host, .. }
                | PublishError::Descriptors { host, .. }
                | PublishError::Bind { host, .. },
            ) => host.to_string(),
            Self::Publish(PublishError::Broadcast(ip)) => ip.to_string(),
            _ => String::new(),
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::UnknownNetwork { nearest: Some(nearest), .. }
            | Self::NoSuchPlace { nearest: Some(nearest), .. } => format!("did you mean '{nearest}'?"),
            Self::NoSuchPlace { .. } => "'davit ps' lists the containers that run; 'host' is the host".into(),
            Self::UnknownProtocol(_) => "the protocols here are tcp, udp and sctp".into(),
            Self::UnknownNetwork { .. } => "'davit net ls' lists the networks".into(),
            Self::AmbiguousNetwork(_) => "give more of the id, or the name".into(),
            Self::NetworkExists(_) => "choose another name, or remove that network first".into(),
            Self::Spec(SpecError::Special { .. } | SpecError::TooLarge(_)) => {
                "choose one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or fd00::/8".into()
            }
            Self::Spec(SpecError::ReservedName(_)) => "choose another name".into(),
            Self::NetworkInUse { .. } => "disconnect or remove these containers first".into(),
            Self::Overlap { .. } => "choose another subnet, or none to have a free one chosen".into(),
            Self::PoolsExhausted => "give a subnet, or remove networks that are not needed".into(),
            Self::Spec(SpecError::Option { nearest, .. }) => format!("did you mean {nearest}?"),
            Self::Spec(SpecError::Driver(_)) => {
                "the drivers are bridge, macvlan, ipvlan and cni, all of this host only; host and none are there already".into()
            }
            Self::Spec(SpecError::Contradiction { instead, .. }) => (*instead).into(),
            Self::Base { source, .. }
            | Self::Wire { source, .. }
            | Self::Inside { source: InsideError::Inward(source), .. } => source.hint(),
            Self::Inside { source: InsideError::Netlink(e), .. } if e.errno() == Some(Errno::EADDRINUSE) => {
                "another interface of the same parent has its mac".into()
            }
            Self::Inside { source: InsideError::Sysctl(_), .. } => {
                "this kernel, or a container's namespace, has no such setting or not with this value".into()
            }
            Self::ParentTaken { .. } => "choose another parent, or remove that network first".into(),
            Self::Publish(PublishError::Ours { .. } | PublishError::Host { .. }) => {
                "choose another host port, or let one be chosen".into()
            }
            Self::Firewall(FirewallError::Locked { .. }) => {
                "'fuser -v /run/xtables.lock' names the program; try again when it has ended".into()
            }
            Self::Publish(PublishError::Broadcast(_)) => {
                "give an address that the host has, or none for all of them".into()
            }
            Self::Publish(PublishError::Descriptors { .. }) => {
                "each published port takes one: publish fewer, or raise the limit ('prlimit --nofile') of davit-netd".into()
            }
            Self::Publish(PublishError::Bind { source, .. })
                if source.raw_os_error() == Some(libc::EADDRNOTAVAIL) =>
            {
                "the host has no such address".into()
            }
            Self::Address { holder: Some(holder), .. } => format!("'{holder}' has it"),
            Self::OutOfReach { .. } => "it leaves the network when it is stopped".into(),
            Self::NoLimit { .. } => "use a bridge network".into(),
            Self::Option(e) => e.hint(),
            Self::Address { source: IpamError::Full(_), .. } => {
                "use a network with a larger subnet, or remove containers".into()
            }
            Self::Address { source: IpamError::Outside { .. }, .. } => {
                "give an address of this subnet, or the network that has it with --network".into()
            }
            Self::NoPortFamily(..) => "publish it at an IPv6 address of the host, or at none by name".into(),
            Self::NoFamily { version: 6, .. } => "create the network with --ipv6".into(),
            Self::Capability { capability, .. } => {
                format!(
                    "a plugin that does has \"capabilities\": {{\"{capability}\": true}} in the configuration"
                )
            }
            Self::Spec(SpecError::Cni(ListError::Plugin { .. })) => no_plugin(),
            Self::Plugins { source, .. }
                if matches!(**source, ChainError::List(ListError::Plugin { .. })) =>
            {
                no_plugin()
            }
            Self::Spec(SpecError::Cni(ListError::Empty)) => {
                "give a configuration list with -o conflist=FILE".into()
            }
            Self::Spec(SpecError::Cni(ListError::Version(_))) => {
                "versions 0.3.1, 0.4.0, 1.0.0 and 1.1.0 are spoken here".into()
            }
            _ => String::new(),
        }
    }
}

fn no_plugin() -> String {
    "install it there, or say where it is with -o plugin-path=DIRECTORY".into()
}

/// Plugins say what kind of failure it is by a number (specification, section 5, "Error").
fn of_plugins(error: &ChainError) -> Kind {
    match error {
        ChainError::Run(RunError::Timeout { .. }) => Kind::Timeout,
        ChainError::Run(e) => match e.code() {
            Some(1 | 2 | 4 | 6 | 7) => Kind::InvalidArgument,
            Some(3) => Kind::WrongState,
            Some(11 | 50 | 51) => Kind::Unavailable,
            _ => Kind::Internal,
        },
        ChainError::List(_) | ChainError::Silent(_) => Kind::Internal,
    }
}
