//! kill, pause, resume.

use std::path::Path;

use super::signals;
use crate::cgroup::freeze;
use crate::error::{Error, Result};
use crate::state::{State, StateDir, Status};

/// Signals the first process, or with `all` every one.
pub fn kill(root: &Path, id: &str, signal: &str, all: bool) -> Result<()> {
    let number = signals::parse(signal)?;
    let dir = StateDir::at(root, id);
    let state = dir.load()?;
    if all {
        return kill_all(&state, number);
    }
    match dir.status(&state) {
        Status::Stopped => Err(Error::Status { operation: "kill", id: id.to_owned(), status: "stopped" }),
        status => {
            freeze::send(state.pid, number)?;
            // A frozen process dies when it is thawed.
            if status == Status::Paused && number == libc::SIGKILL {
                state.cgroups.thaw()?;
            }
            Ok(())
        }
    }
}

fn kill_all(state: &State, signal: i32) -> Result<()> {
    if !state.cgroups.joined.is_empty() {
        return state.cgroups.signal_all(signal);
    }
    // Without a cgroup the pid namespace's first process takes the others with it, but only by SIGKILL.
    let first = davit_sys::process::ProcessRef { pid: state.pid, start_time: state.start_time };
    if first.is_alive() { freeze::send(state.pid, signal) } else { Ok(()) }
}

/// Freezes.
pub fn pause(root: &Path, id: &str) -> Result<()> {
    let (dir, state) = loaded(root, id)?;
    match dir.status(&state) {
        Status::Running | Status::Created => state.cgroups.freeze(),
        status => Err(Error::Status { operation: "pause", id: id.to_owned(), status: status.as_str() }),
    }
}

/// Thaws.
pub fn resume(root: &Path, id: &str) -> Result<()> {
    let (dir, state) = loaded(root, id)?;
    match dir.status(&state) {
        Status::Paused => state.cgroups.thaw(),
        status => Err(Error::Status { operation: "resume", id: id.to_owned(), status: status.as_str() }),
    }
}

fn loaded(root: &Path, id: &str) -> Result<(StateDir, State)> {
    let dir = StateDir::at(root, id);
    let state = dir.load()?;
    Ok((dir, state))
}
