//! davit-storaged: serves `davit.storage.v1` on its unix socket, and containerd's snapshots service on one beside it.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use davit_contracts::version::STORAGE;
use davit_daemon_kit::config;
use davit_daemon_kit::daemon::{self, Daemon, Listener};
use davit_daemon_kit::paths::Layout;
use davit_daemon_kit::state::StateDir;
use davit_storage::containerd::Snapshotter;
use davit_storage::layer::LayerStore;
use davit_storage::server::{self, Health};
use davit_storage::settings::Settings;
use davit_storage::store::{FORMAT, Store};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // One line with the chain of causes; no backtrace, whatever the environment says.
            eprintln!("davit-storaged: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    if std::env::args().nth(1).is_some_and(|a| a == "--version") {
        println!("davit-storaged {}", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    daemon::init_tracing("storaged");
    allow_many_files();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let layout = Layout::from_env()?;
    let settings: Settings = config::load(&layout.config_file("storaged"))?;
    let mut state = StateDir::open(&layout.storage_state(), FORMAT)?;
    bring_forward(&mut state)?;
    rustls::crypto::ring::default_provider().install_default().ok().context("TLS is set up twice")?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(1 << 20)
        .thread_keep_alive(Duration::from_secs(1))
        .enable_all()
        .build()?;
    // Opening may call a snapshotter that is another program.
    let inside = runtime.enter();
    let containerd = Arc::new(Snapshotter::open(state.path(), &settings, layout.rootless)?);
    let store = Store::open(state.path(), &layout.config, settings, layout.rootless)?;
    drop(inside);
    let driver = Arc::clone(store.snapshots.driver());
    let daemon = Daemon::new("davit-storaged", env!("CARGO_PKG_VERSION"), &[STORAGE])
        .with_capability(format!("driver:{}", driver.name()))
        .with_capability(if layout.rootless { "rootless" } else { "rootful" })
        .with_detail("driver", format!("{} ({})", driver.name(), driver.reason()))
        .with_detail("format", FORMAT.to_string())
        .with_state_dir(state.path());
    runtime.block_on(async {
        // First: who finds our own socket may count on this one.
        let snapshots = Listener::bind_beside(&layout, "snapshots")?;
        let listener = Listener::bind(&layout, "storaged")?;
        let daemon = daemon.with_beside(snapshots, server::containerd_routes(containerd));
        daemon.serve(listener, server::routes(&store), Arc::new(Health(store))).await?;
        Ok(())
    })
}

/// Brings a directory of an older version to today's format, step by step; each step leaves a directory that its version reads.
fn bring_forward(state: &mut StateDir) -> anyhow::Result<()> {
    let found = state.found_format();
    if found == FORMAT {
        return Ok(());
    }
    if found == 1 {
        LayerStore::migrate_from_1(state.path())?;
        return Ok(state.migrated(2)?);
    }
    let path = state.path().display();
    anyhow::bail!(
        "{path} has format {found}, which no version of davit wrote: it is damaged or not davit's; nothing was changed"
    )
}

/// Deep trees and parallel layers take descriptors: up to the hard limit, which needs no right.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
