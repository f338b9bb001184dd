//! Why a port cannot be published.

use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::sys::resource::{Resource, getrlimit};

use super::occupant;
use crate::firewall::Transport;

/// Why a port cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// One of our containers has it.
    #[error("port {host}/{} is in use by container {by}", transport.name())]
    Ours {
        /// Where.
        host: SocketAddr,
        /// TCP or UDP.
        transport: Transport,
        /// The container's name.
        by: String,
    },
    /// A program of the host has it.
    #[error("port {host}/{} is in use by {by}", transport.name())]
    Host {
        /// Where.
        host: SocketAddr,
        /// TCP or UDP.
        transport: Transport,
        /// What is known of the program.
        by: String,
    },
    /// Every port of a range is in use.
    #[error("no port of {first}-{last}/{} is free on {ip}", transport.name())]
    Range {
        /// The host's address.
        ip: IpAddr,
        /// Lowest.
        first: u16,
        /// Highest.
        last: u16,
        /// TCP or UDP.
        transport: Transport,
    },
    /// The kernel would bind it, and nobody could ask there.
    #[error("cannot publish a port on {0}: it is a broadcast address")]
    Broadcast(IpAddr),
    /// netd may not open another descriptor.
    #[error(
        "cannot publish on {host}/{}: netd has as many descriptors open as it may (RLIMIT_NOFILE, {limit})",
        transport.name()
    )]
    Descriptors {
        /// Where.
        host: SocketAddr,
        /// TCP or UDP.
        transport: Transport,
        /// How many it may.
        limit: u64,
    },
    /// bind(2) failed otherwise, for example since the host has no such address.
    #[error("cannot publish on {host}/{}", transport.name())]
    Bind {
        /// Where.
        host: SocketAddr,
        /// TCP or UDP.
        transport: Transport,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl PublishError {
    /// Of what a port's socket was refused with.
    pub(super) fn of(transport: Transport, host: SocketAddr, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EADDRINUSE) => Self::Host { host, transport, by: occupant::describe(transport, host) },
            Some(libc::EMFILE) => {
                let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
                Self::Descriptors { host, transport, limit }
            }
            _ => Self::Bind { host, transport, source },
        }
    }
}
