//! One container: its record on disk, its legal transitions, the task that owns it.
//!
//! ```text
//!            start            exit                      remove
//! created ----------> running ----> exited ---+--------------------> (journaled in trash/, then gone)
//!    |                 |   ^          |  ^    |
//!    |           pause v   | unpause  |  |    | monitor died, nothing known: exited 137 with an error
//!    |                paused          +--+ start
//!    +------------------------------------------ remove
//! ```
//!
//! Owner: [`task::Task`], one tokio task a container, fed by a queue. Everybody else sees a [`task::Handle`]: the queue's sender and a
//! watch of the last published [`record::Record`]. Invariants:
//! - what the watch shows is on disk already, or will be before the next request of this container is looked at;
//! - a start that fails leaves no snapshot mount, attachment, run directory, monitor or cgroup;
//! - a removal that was answered has its directory in `trash/` and goes on after any crash.

pub mod bundle;
pub mod change;
pub mod copy;
pub mod dirs;
pub mod exit;
pub mod files;
pub mod fresh;
pub mod handle;
pub mod health;
pub mod leftovers;
pub mod network;
pub mod reattach;
pub mod record;
pub mod remove;
pub mod restart;
pub mod staging;
pub mod start;
pub mod state;
pub mod task;
pub mod update;
pub mod volumes;
