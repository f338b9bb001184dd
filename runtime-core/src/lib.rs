//! runtimed: containers, execs, logs and events of davit, one task a container.
//!
//! ```text
//! server (davit.runtime.v1) ── engine ── registry: names and ids
//!                                 │
//!                                 ├── container::task, one each ── monitor::link ── davit-monitor ── program
//!                                 └── peers: storaged (snapshots, volumes), netd (endpoints)
//! ```
//!
//! Nothing here cannot be rebuilt: records are in the state directory, living containers are found again by their monitors' sockets.

mod clock;
pub mod config;
mod container;
mod engine;
mod error;
mod events;
mod exec;
pub mod failpoint;
mod filters;
mod logs;
mod monitor;
mod nearest;
mod peers;
mod pod;
mod readable;
mod server;
mod signal;
mod spec;
mod top;
mod usage;

use std::sync::Arc;

use davit_daemon_kit::daemon::HealthSource;
use davit_daemon_kit::paths::Layout;

pub use config::Config;
pub use container::leftovers::remove_empty_parents;
pub use error::RuntimeError;

/// The format of the state directory that this build writes.
pub const STATE_FORMAT: u32 = 1;

/// A runtimed that has taken its containers over and is ready to serve.
pub struct Runtimed {
    /// The contract's services.
    pub routes: server::Routes,
    /// What it depends on.
    pub health: Arc<dyn HealthSource>,
}

/// Builds the domain and adopts what runs. Must be called inside a tokio runtime, with the state directory locked.
pub async fn build(layout: &Layout, config: Config) -> Result<Runtimed, RuntimeError> {
    let engine = engine::Engine::open(layout, config)?;
    engine.boot().await;
    Ok(Runtimed { routes: server::routes(&engine), health: Arc::new(server::Health(engine)) })
}
