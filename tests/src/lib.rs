//! End-to-end tests of davit: real binaries on private hosts made of namespaces.
//!
//! A [`Host`] is a machine of its own as far as davit can tell: its own network, mounts, processes and cgroups, made by
//! the test and destroyed with it. Images come from [`fixture`], made by third-party tools. What a host has at a moment
//! is an [`Inventory`], and the difference of two is what something left behind.
//!
//! ```text
//!   test process ──spawn──> unshare ──> davit-test-init (process 1 of the private host)
//!        │                                     ├─ davit run ...
//!        └──────── socket: run this ──────────>├─ davit-supervisor ─ storaged, netd, runtimed, monitors
//!                                              └─ docker-registry, ...
//! ```
//!
//! Everything here panics on failure with the command's whole output: it is called by tests.

pub mod command;
pub mod container;
pub mod fixture;
pub mod host;
pub mod internet;
pub mod inventory;
pub mod registry;
pub mod sailor;
pub mod scale;
pub mod terminal;
pub mod wait;

pub use command::Ran;
pub use container::Container;
pub use host::Host;
pub use internet::Internet;
pub use inventory::Inventory;
pub use registry::Registry;
pub use sailor::Sailor;
pub use wait::eventually;
