//! davit-supervisor: keeps the three daemons running where no init system does it.
//!
//! It owns `run/supervisor.lock` (one instance a run directory), binds the daemons' sockets, starts each daemon with its socket handed
//! over (sd_listen_fds(3)), restarts one that dies, keeps descriptors that a daemon stores (FDSTORE) and obeys `run/supervisor.sock`. One
//! thread, one poll loop, no runtime. Containers are not its business: their monitors live in sessions of their own and outlive it.
//!
//! ```text
//! davit-supervisor [--background]
//! ```
//! With `--background` it detaches; its standard output says `ready` once the sockets accept connections, and is then closed.

mod backoff;
mod control;
mod fleet;
mod idmap;
mod log;
mod notify;
mod place;
mod poll_loop;
mod rootless;
mod service;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use davit_layout::Layout;

use crate::fleet::Fleet;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("davit-supervisor: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut background = false;
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--background" => background = true,
            "--version" => {
                println!("davit-supervisor {}", env!("CARGO_PKG_VERSION"));
                return Ok(());
            }
            other => bail!("unknown argument '{other}'; usage: davit-supervisor [--background]"),
        }
    }
    let layout = Layout::from_env()?;
    let Some(place) = place::claim_or_find(&layout)? else {
        // Another supervisor has this run directory, and listens: what was asked for is so.
        println!("ready");
        return Ok(());
    };
    if background {
        davit_sys::userns::detach().context("cannot go to the background")?;
    }
    // A person's umask must not decide over the modes of images' files.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let signals = poll_loop::block_signals()?;
    let space = if layout.rootless { rootless::enter(&layout)? } else { rootless::Space::default() };
    let log = log::Log::open(&layout.supervisor_log())?;
    // Before the daemons' sockets: who finds those finds the supervisor behind them.
    let control = place.control_listener()?;
    let fleet = Fleet::new(&layout, place, log, space)?;
    println!("ready");
    std::io::stdout().flush().context("cannot say that we are ready")?;
    if background {
        fleet.log().take_over_stdio()?;
    }
    poll_loop::run(fleet, &control, &signals)
}
