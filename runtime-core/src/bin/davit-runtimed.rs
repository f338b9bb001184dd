//! The container daemon.

use std::process::ExitCode;

use anyhow::Context as _;
use davit_contracts::version::RUNTIME;
use davit_daemon_kit::config;
use davit_daemon_kit::daemon::{Daemon, Listener, init_tracing};
use davit_daemon_kit::paths::Layout;
use davit_daemon_kit::state::StateDir;
use davit_runtime_core::{Config, STATE_FORMAT, build, remove_empty_parents};

fn main() -> ExitCode {
    init_tracing("runtimed");
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // One line, whatever RUST_BACKTRACE says: the supervisor shows it to a person.
            eprintln!("davit-runtimed: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> anyhow::Result<()> {
    let layout = Layout::from_env()?;
    let config: Config = config::load(&layout.config_file("runtimed"))?;
    config.check()?;
    let state = StateDir::open(&layout.runtime_state(), STATE_FORMAT)?;
    let listener = Listener::bind(&layout, "runtimed")?;
    // One thread: everything here waits for others, and what blocks goes to tokio's blocking pool.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_stack_size(256 << 10)
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(async {
        let runtimed = build(&layout, config).await?;
        let daemon = Daemon::new("davit-runtimed", env!("CARGO_PKG_VERSION"), &[RUNTIME])
            .with_state_dir(state.path())
            .with_capability("log:json-file")
            .with_capability("log:local")
            .with_capability("log:journald")
            .with_detail("state-format", STATE_FORMAT.to_string());
        daemon.serve(listener, runtimed.routes, runtimed.health).await?;
        anyhow::Ok(())
    })?;
    // Monitors and containers go on without us; nothing has to wait for the blocking pool.
    runtime.shutdown_background();
    remove_empty_parents();
    Ok(())
}
