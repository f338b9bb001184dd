//! create, start, run, delete.

use std::path::Path;

use davit_sys::fork::channel::Channel;
use davit_sys::process::ProcessRef;

use super::foreground;
use crate::cgroup::freeze;
use crate::cli;
use crate::error::{Error, Result};
use crate::hooks;
use crate::launch;
use crate::state::{State, StateDir, Status};

/// Creates a container that waits for start.
pub fn create(root: &Path, create: &cli::Create) -> Result<()> {
    launch::launch(root, create, true).map(drop)
}

/// Lets a created container's program start; returns when it runs.
pub fn start(root: &Path, id: &str) -> Result<()> {
    let dir = StateDir::at(root, id);
    let state = dir.load()?;
    let status = dir.status(&state);
    if status != Status::Created {
        return Err(Error::Status { operation: "start", id: id.to_owned(), status: status.as_str() });
    }
    let socket = launch::connect(&dir.exec_socket()).map_err(|_| Error::Status {
        operation: "start",
        id: id.to_owned(),
        status: "stopped",
    })?;
    // From now on the container counts as running: a second start must not reach it.
    let _ = std::fs::remove_file(dir.exec_socket());
    launch::start_over(&Channel::from_fd(socket))?;
    hooks::run(&state.hooks.poststart, &state.oci_json("running", state.pid))
}

/// Creates and starts; unless detached also waits and deletes. Gives the program's exit code.
pub fn run(root: &Path, create: &cli::Create, detach: bool, keep: bool) -> Result<i32> {
    if detach {
        let launched = launch::launch(root, create, false)?;
        return launched.start().map(|()| 0).inspect_err(|_| drop(destroy(&launched.dir, &launched.state)));
    }
    let foreground = foreground::Foreground::block_signals()?;
    let terminal = foreground::Terminal::wanted(create)?;
    let mut create = create.clone();
    if let Some(t) = &terminal {
        create.console_socket = Some(t.socket.clone());
    }
    let launched = launch::launch(root, &create, false)?;
    let started = launched.start().and_then(|()| {
        hooks::run(&launched.state.hooks.poststart, &launched.state.oci_json("running", launched.state.pid))
    });
    let code = started.and_then(|()| foreground.wait(launched.state.pid, &launched.pidfd, terminal));
    if keep {
        return code;
    }
    let removed = destroy(&launched.dir, &launched.state);
    code.and_then(|c| removed.map(|()| c))
}

/// Removes what is left of a stopped (with `force`: any) container.
pub fn delete(root: &Path, id: &str, force: bool) -> Result<()> {
    cli::options::valid_id(id)?;
    let dir = StateDir::at(root, id);
    let state = match dir.load() {
        Err(Error::NoContainer(_)) if force => return dir.remove(),
        other => other?,
    };
    let status = dir.status(&state);
    if status != Status::Stopped && !force {
        // As runc: a container that was never started may go.
        if status != Status::Created {
            return Err(Error::Status { operation: "delete", id: id.to_owned(), status: status.as_str() });
        }
    }
    destroy(&dir, &state)
}

fn destroy(dir: &StateDir, state: &State) -> Result<()> {
    let first = ProcessRef { pid: state.pid, start_time: state.start_time };
    if first.is_alive() {
        if state.cgroups.is_frozen() {
            freeze::send(state.pid, libc::SIGKILL)?;
            state.cgroups.thaw()?;
        }
        freeze::send(state.pid, libc::SIGKILL)?;
        wait_until_dead(first);
    }
    // Without a pid namespace others outlive the first process.
    if !state.own_pid_namespace && !state.cgroups.pids().is_empty() {
        state.cgroups.signal_all(libc::SIGKILL)?;
    }
    state.cgroups.remove()?;
    dir.remove()?;
    hooks::run(&state.hooks.poststop, &state.oci_json("stopped", 0))
}

fn wait_until_dead(process: ProcessRef) {
    let Ok(pidfd) = process.pidfd() else { return };
    let mut fds = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&pidfd), nix::poll::PollFlags::POLLIN)];
    let _ = nix::poll::poll(&mut fds, nix::poll::PollTimeout::from(10_000u16));
}
