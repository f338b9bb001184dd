//! What networks are made of, one driver a kind: what is made on the host for a network, how a sandbox is plugged into
//! it and taken away again.
//!
//! ```text
//!             network made             attach                        detach, disconnect      network removed
//! bridge      bridge                   veth pair                     our end removed         bridge removed
//! sublink     parent, when missing     macvlan, ipvlan inside        removed inside          parent, when made by us
//! host, none  (nothing)                (nothing)                     (nothing)               (nothing)
//! cni         (nothing)                plugins: ADD                  plugins: DEL            (nothing)
//! ```
//! A driver is a value without state that implements [`Plumbing`]; [`of`] knows which kind has which. What it makes on
//! the host bears the instance's interface group, and is named by a record before it is made, so that a start after a
//! kill finds it. What it makes inside a sandbox goes with the sandbox's namespace at the latest.

pub mod bridge;
pub mod claims;
pub mod cni;
pub mod inside;
pub mod inward;
pub mod owned;
pub mod sublink;

use std::os::fd::BorrowedFd;

use davit_contracts::Kind;
use davit_sys::netns::NetnsError;

use crate::endpoint::{Endpoint, Sandbox};
use crate::netlink::{NetlinkError, Socket};
use crate::network::{self, Network};
use crate::sysctl::SysctlError;

/// Where drivers work: the namespace that netd runs in.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// An rtnetlink socket of it.
    pub socket: &'a Socket,
    /// The interface group of our interfaces.
    pub group: u32,
}

/// What the endpoints of a network hang on: its bridge, or its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Its index; 0 where there is none.
    pub index: u32,
    /// Of it and the endpoints.
    pub mtu: u32,
}

/// A sandbox's place on a network.
#[derive(Debug, Clone, Copy)]
pub struct Plug<'a> {
    /// On what.
    pub base: Base,
    /// Which network.
    pub network: &'a Network,
    /// Whose endpoint.
    pub sandbox: &'a Sandbox,
    /// Names and addresses.
    pub endpoint: &'a Endpoint,
    /// The sandbox's namespace.
    pub netns: BorrowedFd<'a>,
}

/// An endpoint to be taken away, or to be looked for.
#[derive(Debug, Clone, Copy)]
pub struct Unplug<'a> {
    /// Which network.
    pub network: &'a Network,
    /// Whose endpoint.
    pub sandbox: &'a Sandbox,
    /// Which.
    pub endpoint: &'a Endpoint,
    /// The sandbox's namespace; absent when it is gone with its holder.
    pub netns: Option<BorrowedFd<'a>>,
    /// The other endpoints of that namespace: what is one of theirs is not this one's.
    pub peers: &'a [Peer<'a>],
}

/// An endpoint beside another in one namespace: of the same sandbox, or of another that a caller of CNI plugins made there.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// Which network.
    pub network: &'a Network,
    /// Which.
    pub endpoint: &'a Endpoint,
}

/// What a driver does. Calls come from the engine's thread, [`Plumbing::unplug`] also from the sweeper's.
pub trait Plumbing: Sync {
    /// Finds the network's base if it is there and ours, and completes what a killed netd may have left half done.
    fn find(&self, ground: Ground<'_>, network: &Network) -> Result<Option<Base>, DriverError>;

    /// Makes the network's base, which [`Plumbing::find`] did not find.
    fn make(&self, ground: Ground<'_>, network: &Network) -> Result<Base, DriverError>;

    /// Removes the network's base; fine when it is gone. `shared` when another network has the same.
    fn remove(&self, ground: Ground<'_>, network: &Network, shared: bool) -> Result<(), DriverError>;

    /// Whether a base that was found once is there until we remove it, and need not be looked up for every attach.
    fn is_lasting(&self) -> bool;

    /// Plugs a sandbox in: one exchange with the kernel, all or nothing. Its interface exists inside then, is down and
    /// has no addresses. Answers the endpoint as it became when the driver chose something of it.
    fn plug(&self, ground: Ground<'_>, plug: &Plug<'_>) -> Result<Option<Endpoint>, DriverError>;

    /// Waits until packets pass, after the interface inside was set up.
    fn await_ready(
        &self,
        _ground: Ground<'_>,
        _network: &Network,
        _endpoint: &Endpoint,
    ) -> Result<(), DriverError> {
        Ok(())
    }

    /// Whether an endpoint of a record is still plugged in.
    fn is_plugged(&self, ground: Ground<'_>, of: &Unplug<'_>) -> Result<bool, DriverError>;

    /// The index that an endpoint's interface has inside, whatever it is called there by now; none when it is gone.
    fn index_inside(&self, ground: Ground<'_>, of: &Unplug<'_>) -> Result<Option<u32>, DriverError>;

    /// Takes an endpoint away; fine when it is gone.
    fn unplug(&self, ground: Ground<'_>, of: &Unplug<'_>) -> Result<(), DriverError>;
}

/// The driver of a kind of network; none where nothing is plugged.
pub fn of(kind: network::Driver) -> Option<&'static dyn Plumbing> {
    match kind {
        network::Driver::Bridge => Some(&bridge::BridgeDriver),
        network::Driver::Macvlan | network::Driver::Ipvlan => Some(&sublink::SublinkDriver),
        // What plugins make, they plug.
        network::Driver::Cni | network::Driver::Host | network::Driver::None => None,
    }
}

/// Why a network or an endpoint could not be made, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A setting could not be made.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// A sandbox could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// An interface of that name is somebody else's.
    #[error("the host has an interface {0} that is not ours")]
    Foreign(String),
    /// It vanished right after it was made.
    #[error("interface {0} vanished")]
    Vanished(String),
    /// The kernel was built without this kind of interface, or its module cannot be loaded.
    #[error("this kernel has no {kind}")]
    Unsupported {
        /// Which.
        kind: &'static str,
        /// What to try.
        module: &'static str,
    },
    /// The parent is not there.
    #[error("the host has no interface {name}, which is to be the parent")]
    NoParent {
        /// Its name.
        name: String,
        /// The host's interface that is called most like it.
        nearest: Option<String>,
    },
    /// The parent is there but not up.
    #[error("the parent interface {0} is down")]
    ParentDown(String),
    /// An interface that cannot be a parent.
    #[error("{name} cannot be a parent: it is {what}")]
    Unfit {
        /// Its name.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// Something else has the parent to itself.
    #[error("the parent interface {0} is in use by a bridge, a bond, or the other of macvlan and ipvlan")]
    ParentBusy(String),
    /// The parent's MTU bounds the endpoints'.
    #[error("an MTU of {wanted} is more than the {most} of the parent interface {parent}")]
    Mtu {
        /// Asked for.
        wanted: u32,
        /// The parent's.
        most: u32,
        /// Which.
        parent: String,
    },
    /// The sandbox has an interface of that name already.
    #[error("the container has an interface {0} already")]
    NameTaken(String),
}

impl DriverError {
    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Netlink(e) => of_netlink(e),
            Self::Foreign(_) | Self::ParentBusy(_) | Self::NameTaken(_) => Kind::InUse,
            Self::Unsupported { .. } => Kind::Unsupported,
            Self::NoParent { .. } | Self::Unfit { .. } | Self::Mtu { .. } => Kind::InvalidArgument,
            Self::ParentDown(_) => Kind::WrongState,
            Self::Sysctl(_) | Self::Netns(_) | Self::Vanished(_) => Kind::Internal,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Unsupported { module, .. } => {
                format!("'modprobe {module}' loads it where the kernel comes with it")
            }
            Self::NoParent { nearest: Some(nearest), .. } => format!("did you mean '{nearest}'?"),
            Self::NoParent { nearest: None, .. } => "'ip link' lists the host's interfaces".into(),
            Self::ParentDown(name) => format!("'ip link set {name} up'"),
            Self::Unfit { .. } | Self::ParentBusy(_) => "choose another interface with -o parent=".into(),
            Self::Mtu { .. } => "choose a smaller one, or none to take the parent's".into(),
            _ => String::new(),
        }
    }

    /// The kernel's error number, when it refused.
    pub fn errno(&self) -> Option<nix::errno::Errno> {
        match self {
            Self::Netlink(e) => e.errno(),
            _ => None,
        }
    }

    /// Whether something that should have been there is not.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Netlink(e) if e.is_missing())
    }
}

/// A refusal for lack of privilege or of a kernel feature is worth telling apart.
pub fn of_netlink(error: &NetlinkError) -> Kind {
    match error.errno() {
        Some(nix::errno::Errno::EPERM) => Kind::PermissionDenied,
        Some(nix::errno::Errno::EOPNOTSUPP) => Kind::Unsupported,
        Some(nix::errno::Errno::EADDRINUSE) => Kind::InUse,
        _ => Kind::Internal,
    }
}
