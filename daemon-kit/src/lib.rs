//! What davit's three daemons have in common around their work: where things are, configuration, the state directory's lock and
//! format, the socket, readiness, the `davit.plugin.v1` answers and an orderly end.
//!
//! A daemon's `main` is: [`daemon::init_tracing`], [`paths::Layout`], [`config::load`], [`state::StateDir::open`], build the
//! domain, [`daemon::Listener::bind`], [`daemon::Daemon::serve`].

pub mod config;
pub mod daemon;
pub mod paths;
pub mod plugin;
pub mod state;
