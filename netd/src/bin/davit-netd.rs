//! davit-netd: see the library.

use std::process::ExitCode;
use std::sync::Arc;

use davit_contracts::version::NETWORK;
use davit_daemon_kit::config;
use davit_daemon_kit::daemon::{Daemon, Listener, init_tracing};
use davit_daemon_kit::paths::Layout;
use davit_daemon_kit::state::StateDir;
use davit_netd::driver::cni::running::Running;
use davit_netd::engine::{Client, Engine, Instance};
use davit_netd::foreign::Sandboxes;
use davit_netd::server;
use davit_netd::settings::Settings;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Of what is in state/network.
const FORMAT: u32 = 2;
/// As many as netd needs at most.
const DESCRIPTORS: u64 = 65_536;

fn main() -> ExitCode {
    init_tracing("netd");
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // One line with the chain of causes; no backtrace, whatever the environment says.
            eprintln!("davit-netd: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(2)
        .thread_stack_size(512 << 10)
        .enable_all()
        .build()?;
    runtime.block_on(run())
}

/// Each published port takes a descriptor, or two, and many systems start programs with 1024.
fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard.min(DESCRIPTORS).max(soft), hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of descriptors");
    }
}

async fn run() -> anyhow::Result<()> {
    let layout = Layout::from_env()?;
    let settings: Settings = config::load(&layout.config_file("netd"))?;
    let pools = settings.pools()?;
    let mut state = StateDir::open(&layout.network_state(), FORMAT)?;
    bring_forward(&mut state)?;
    let instance = Instance {
        pools,
        forwarding: settings.forwarding,
        apart: layout.rootless,
        ..Instance::new(layout.network_state(), layout.network_run())
    };
    let engine = Engine::open(instance, settings.firewall)?;
    let (firewall, described) = engine.firewall();
    let client = Client::start(engine)?;
    let running = Running::open(layout.network_run().join("plugins"))?;
    let sandboxes = Sandboxes::new(client.clone(), running);
    sandboxes.clean_up().await?;
    let listener = Listener::bind(&layout, "netd")?;
    let daemon = Daemon::new("davit-netd", env!("CARGO_PKG_VERSION"), &[NETWORK])
        .with_capability("driver:bridge")
        .with_capability("driver:macvlan")
        .with_capability("driver:ipvlan")
        .with_capability("driver:host")
        .with_capability("driver:none")
        .with_capability("driver:cni")
        .with_capability(format!("firewall:{firewall}"))
        .with_capability("dns")
        .with_detail("firewall", described)
        .with_detail("format", FORMAT.to_string())
        .with_state_dir(state.path());
    daemon.serve(listener, server::routes(client.clone(), sandboxes), Arc::new(())).await?;
    // What nobody uses goes; what containers use stays.
    let settle = |engine: &mut Engine| {
        engine.clear_idle();
        Ok(())
    };
    client.call(settle).await?;
    Ok(())
}

/// Brings a directory of an older version to today's format. Format 2 has networks of other drivers than bridge, and subnets
/// without a gateway; what format 1 has means the same in it.
fn bring_forward(state: &mut StateDir) -> anyhow::Result<()> {
    match state.found_format() {
        FORMAT => Ok(()),
        1 => Ok(state.migrated(FORMAT)?),
        found => anyhow::bail!(
            "{} has format {found}, which no version of davit wrote: it is damaged or not davit's; nothing was changed",
            state.path().display()
        ),
    }
}
