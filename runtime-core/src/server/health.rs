//! What runtimed depends on.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use davit_contracts::plugin::health_response::Check;
use davit_daemon_kit::daemon::HealthSource;
use davit_daemon_kit::plugin::{failed, ok};

use crate::engine::Engine;

/// The checks of `davit status`.
#[derive(Debug)]
pub struct Health(pub Arc<Engine>);

impl HealthSource for Health {
    fn checks(&self) -> Vec<Check> {
        let engine = &self.0;
        let runtime = match engine.config.runtime("") {
            Ok(_) => ok("runtime"),
            Err(e) => failed("runtime", e.line()),
        };
        let monitor = match Engine::monitor_program() {
            Ok(_) => ok("monitor"),
            Err(e) => failed("monitor", e.line()),
        };
        vec![
            reachable("storaged", engine.peers.storage.socket()),
            reachable("netd", engine.peers.network.socket()),
            runtime,
            monitor,
        ]
    }
}

/// connect(2) on a unix socket answers at once: somebody listens or nobody does.
fn reachable(name: &str, socket: &Path) -> Check {
    match UnixStream::connect(socket) {
        Ok(_) => ok(name),
        Err(e) => failed(name, format!("cannot reach {}: {e}; start it with `davit up`", socket.display())),
    }
}
