//! davit-runner on real containers, made of the machine's busybox-static. Needs root; every bundle lives in a directory of its own, cgroups
//! below /davit-runner-test, and each test checks that nothing is left.

#![allow(clippy::unwrap_used)] // helpers of tests lie outside of #[test] functions

#[path = "container/bundle.rs"]
mod bundle;
#[path = "container/config.rs"]
mod config;
#[path = "container/errors.rs"]
mod errors;
#[path = "container/exec.rs"]
mod exec;
#[path = "container/hostile.rs"]
mod hostile;
#[path = "container/inside.rs"]
mod inside;
#[path = "container/lifecycle.rs"]
mod lifecycle;
#[path = "container/limits.rs"]
mod limits;
#[path = "container/seccomp.rs"]
mod seccomp;
#[path = "container/terminal.rs"]
mod terminal;
#[path = "container/unified.rs"]
mod unified;
#[path = "container/userns.rs"]
mod userns;
