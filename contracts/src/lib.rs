//! The contracts between davit's daemons and their clients: generated messages and services, typed ids, clients over
//! unix sockets, and the one mapping between errors and gRPC statuses.
//!
//! Nothing here knows how a daemon works. A third party that wants to stand in for a daemon implements the services of
//! one of [`storage`], [`network`] or [`runtime`] plus [`plugin::plugin_server::Plugin`].

pub mod client;
pub mod containerd;
pub mod error;
pub mod id;
pub mod nameserver;
pub mod version;

pub use davit_layout as layout;
pub use error::{Error, Kind};

macro_rules! generated {
    ($($(#[$doc:meta])* $name:ident = $package:literal;)*) => {$(
        $(#[$doc])*
        #[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used)]
        pub mod $name { tonic::include_proto!($package); }
    )*};
}

/// The generated code, nested as the packages are, because messages of one refer to another by path.
mod generated_tree {
    #[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used)]
    pub mod davit {
        pub mod network {
            pub mod v1 {
                tonic::include_proto!("davit.network.v1");
            }
        }
        pub mod runtime {
            pub mod v1 {
                tonic::include_proto!("davit.runtime.v1");
            }
        }
    }
}

generated! {
    /// `davit.plugin.v1`: identity, health, error details.
    plugin = "davit.plugin.v1";
    /// `davit.storage.v1`: images, snapshots, volumes.
    storage = "davit.storage.v1";
}

pub use generated_tree::davit::network::v1 as network;
pub use generated_tree::davit::runtime::v1 as runtime;
