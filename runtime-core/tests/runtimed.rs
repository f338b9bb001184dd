//! runtimed as a process, with real monitors and a real OCI runtime, over stand-ins for storaged and netd that can be told to fail.
//!
//! Every test has its own directories, mount and network namespace. Needs root, busybox-static, and cgroups to write to.

#![allow(clippy::unwrap_used)] // A test says what failed by where it stopped.

#[path = "runtimed/attach.rs"]
mod attach;
#[path = "runtimed/faults.rs"]
mod faults;
#[path = "runtimed/kills.rs"]
mod kills;
#[path = "runtimed/lifecycle.rs"]
mod lifecycle;
#[path = "runtimed/peers.rs"]
mod peers;
#[path = "runtimed/reattach.rs"]
mod reattach;
#[path = "runtimed/restart.rs"]
mod restart;
#[path = "runtimed/world.rs"]
mod world;
