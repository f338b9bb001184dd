//! From a container as asked for and an image's defaults to an OCI runtime configuration.
//!
//! Everything here is pure but [`user::Database::read`], which reads two files beneath a given root, and [`system`], which looks at an init
//! there. docker is the reference for every
//! default: capabilities, seccomp profile, masked paths, mounts, environment, the merging of entrypoint and command.
//!
//! ```text
//! ContainerSpec ─┐
//! ImageConfig  ──┼─ merge::Program (argv, env, cwd, user text) ─┐
//!                │                    user::resolve (passwd) ───┼─ build::config ── bundle/config.json
//! Host facts ────┴──────────────── mounts, caps, seccomp, ... ──┘
//! ```

pub mod build;
pub mod caps;
pub mod check;
pub mod health;
pub mod host;
pub mod merge;
pub mod mounts;
pub mod namespaces;
pub mod oci;
pub mod propagation;
pub mod resources;
pub mod seccomp;
mod seccomp_table;
pub mod security;
pub mod system;
pub mod update;
pub mod user;
pub mod userns;
