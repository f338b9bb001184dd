//! What all containers share: configuration, directories, peers, events, and the index of containers by id and name.

pub mod boot;
pub mod clone;
pub mod create;
pub mod lifecycle;
pub mod list;
pub mod names;
pub mod registry;

use std::path::PathBuf;
use std::sync::Arc;

use davit_daemon_kit::paths::Layout;

use crate::config::Config;
use crate::container::dirs::Dirs;
use crate::error::{RuntimeError, io_error};
use crate::events::Events;
use crate::exec::Execs;
use crate::peers::{Peer, Peers};
use crate::spec::host::Host;
use registry::Registry;

/// The shared half of runtimed.
#[derive(Debug)]
pub struct Engine {
    /// `runtimed.toml`.
    pub config: Config,
    /// Where files are.
    pub dirs: Dirs,
    /// What this host allows.
    pub host: Host,
    /// storaged and netd.
    pub peers: Peers,
    /// What happened.
    pub events: Events,
    /// Containers.
    pub registry: Registry,
    /// Exec sessions.
    pub execs: Execs,
}

impl Engine {
    /// Makes the directories; must be called inside a tokio runtime. Nothing is adopted yet.
    pub fn open(layout: &Layout, config: Config) -> Result<Arc<Self>, RuntimeError> {
        let dirs = Dirs { state: layout.runtime_state(), run: layout.runtime_run() };
        for dir in [dirs.containers(), dirs.trash(), dirs.run.clone()] {
            make_private_dir(&dir)?;
        }
        place_init(&dirs.init())?;
        let peers = Peers { storage: Peer::new("storaged", layout), network: Peer::new("netd", layout) };
        let events = Events::open(&dirs.state.join("events"));
        let host = Host::read(layout.rootless);
        Ok(Arc::new(Self {
            config,
            dirs,
            host,
            peers,
            events,
            registry: Registry::default(),
            execs: Execs::default(),
        }))
    }

    /// The monitor's program.
    pub fn monitor_program() -> Result<PathBuf, RuntimeError> {
        Layout::binary("davit-monitor").ok_or_else(|| RuntimeError::NoRuntime {
            name: "davit-monitor".to_owned(),
            why: "no such program beside davit-runtimed nor in PATH".to_owned(),
            nearest: None,
        })
    }
}

/// Writes the program of containers with `--init`, where it is not there as it should be. Containers that run keep the file they have.
fn place_init(path: &std::path::Path) -> Result<(), RuntimeError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |meta: std::fs::Metadata| meta.permissions().mode() & 0o777;
    if std::fs::metadata(path).is_ok_and(|m| mode(m) == 0o755)
        && std::fs::read(path).is_ok_and(|have| have == davit_init::PROGRAM)
    {
        return Ok(());
    }
    let new = path.with_extension("new");
    std::fs::write(&new, davit_init::PROGRAM)
        .and_then(|()| std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)))
        .and_then(|()| std::fs::rename(&new, path))
        .map_err(io_error("write", path))
}

/// A directory for us only.
pub fn make_private_dir(path: &std::path::Path) -> Result<(), RuntimeError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("create", path))
}
