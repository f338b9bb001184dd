//! davit-storaged: images, layers, snapshots and volumes.
//!
//! Inside: `server` (gRPC, the only part that knows tonic) -> `image`, `snapshot`, `volume` (the domain) -> `store`,
//! `layer`, `content`, `metadata` (what is on disk) -> `unpack`, `tarball`, `registry`, `archive`, `fromhost` (where
//! bytes come from). This daemon never mounts anything for a container: it answers descriptions of mounts.

pub mod archive;
pub mod change;
pub mod check;
pub mod compression;
pub mod containerd;
pub mod content;
pub mod copytree;
pub mod digest;
pub mod error;
pub mod failpoint;
pub mod failure;
pub mod filter;
pub mod fromhost;
pub mod image;
pub mod layer;
pub mod ledger;
pub mod metadata;
pub mod oci;
pub mod progress;
pub mod recipe;
pub mod reference;
pub mod registry;
pub mod server;
pub mod settings;
pub mod snapshot;
pub mod store;
pub mod tarball;
pub mod trash;
pub mod tree;
pub mod unpack;
pub mod usage;
pub mod volume;
