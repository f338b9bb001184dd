//! Trials of davit's copy-on-write file system: real mounts of it beside the kernel's overlayfs and a plain directory.
//!
//! - [`Host`]: a mount namespace of a test's own, with a tmpfs for layers;
//! - [`fs`]: one file system over a lower layer, for tests that read like prose;
//! - [`mount`]: layers mounted by `davit-cowfs` or by the kernel;
//! - [`op`] and [`actor`]: system calls as values, and processes that make them on several trees;
//! - [`tree`]: what is visible of a tree, and how two of them compare;
//! - [`layer`]: trees made, copied and watched for changes;
//! - [`strategy`] and [`trial`]: random sequences, and one of them tried on all trees at once.

#![allow(clippy::unwrap_used, reason = "all of this is a test")]

pub mod act;
pub mod actor;
pub mod fs;
pub mod host;
pub mod layer;
pub mod mount;
pub mod op;
pub mod strategy;
pub mod tree;
pub mod trial;
pub mod userns;

pub use host::Host;
