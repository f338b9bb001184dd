//! The real monitor binary, driven over its socket, with Debian's runc and a root file system made from busybox.
//!
//! `DAVIT_TEST_RUNTIME` names another OCI runtime. Every monitor runs in a mount and a network namespace that the test makes; whatever it leaves (mounts, processes, cgroups) fails
//! [`container::Container::shut_down`].

#![allow(clippy::unwrap_used)] // a test that unwraps an error has found one

mod client;
mod container;
mod exec;
mod lifecycle;
mod logs;
mod served;
mod streams;
