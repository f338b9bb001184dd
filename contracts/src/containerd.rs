//! containerd's contract for snapshotters, generated: storaged serves it, and is a client of it.
//!
//! The definitions are those of `proto/containerd`. `google.protobuf` messages are `prost_types`'s.

pub mod client;

/// The generated code, nested as the packages are, because messages of one refer to another by path.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used)]
mod tree {
    pub mod types {
        tonic::include_proto!("containerd.types");
    }
    pub mod services {
        pub mod snapshots {
            pub mod v1 {
                tonic::include_proto!("containerd.services.snapshots.v1");
            }
        }
    }
}

pub use prost_types::{FieldMask, Timestamp};
pub use tree::services::snapshots::v1 as snapshots;
pub use tree::types;

/// The metadata entry that names containerd's namespace.
pub const NAMESPACE_KEY: &str = "containerd-namespace";
