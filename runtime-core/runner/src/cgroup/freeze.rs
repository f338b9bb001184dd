//! Pause, resume and killing of everything in a container.

use std::path::Path;
use std::time::{Duration, Instant};

use davit_sys::cgroup::{read, write};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::Placement;
use crate::error::{Context, Error, Result};

/// How long the kernel may take to freeze: a process in an uninterruptible sleep holds it up.
const PATIENCE: Duration = Duration::from_secs(10);

impl Placement {
    /// Whether the container is (being) frozen.
    pub fn is_frozen(&self) -> bool {
        if let Some(group) = self.controller("freezer") {
            return read(&group.directory.join("freezer.state")).is_ok_and(|s| s.trim() != "THAWED");
        }
        self.unified()
            .is_some_and(|g| read(&g.directory.join("cgroup.freeze")).is_ok_and(|s| s.trim() == "1"))
    }

    /// Freezes all processes and waits until they are.
    pub fn freeze(&self) -> Result<()> {
        if let Some(group) = self.controller("freezer") {
            let file = group.directory.join("freezer.state");
            // Processes that fork meanwhile may have to be caught again: the state is written until the kernel says FROZEN.
            let done = poll(|| {
                write(&file, "FROZEN")?;
                Ok(read(&file)?.trim() == "FROZEN")
            });
            return match done {
                Ok(true) => Ok(()),
                Ok(false) => self.thaw().and(Err(too_slow(&file))),
                Err(e) => Err(e),
            };
        }
        let Some(group) = self.unified() else { return Err(no_freezer()) };
        write(&group.directory.join("cgroup.freeze"), "1")?;
        let events = group.directory.join("cgroup.events");
        if poll(|| Ok(read(&events)?.lines().any(|l| l == "frozen 1")))? {
            return Ok(());
        }
        self.thaw().and(Err(too_slow(&events)))
    }

    /// Lets them go on.
    pub fn thaw(&self) -> Result<()> {
        if let Some(group) = self.controller("freezer") {
            return Ok(write(&group.directory.join("freezer.state"), "THAWED")?);
        }
        let Some(group) = self.unified() else { return Err(no_freezer()) };
        Ok(write(&group.directory.join("cgroup.freeze"), "0")?)
    }

    /// Sends a signal to every process, none escaping by forking meanwhile: in one step with cgroup.kill, else frozen meanwhile.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        if signal == libc::SIGKILL
            && let Some(group) = self.unified()
            && write(&group.directory.join("cgroup.kill"), "1").is_ok()
        {
            return Ok(());
        }
        let was_frozen = self.is_frozen();
        let frozen = was_frozen || self.freeze().is_ok();
        let sent = self.pids().into_iter().try_for_each(|pid| send(pid, signal));
        if frozen && (!was_frozen || signal == libc::SIGKILL) {
            self.thaw()?;
        }
        sent
    }
}

/// Signals one process; that it is gone is no error.
pub fn send(pid: i32, signal: i32) -> Result<()> {
    // nix's Signal lacks the real-time ones, which kill(2) takes all the same.
    let done = match nix::sys::signal::Signal::try_from(signal) {
        Ok(known) => kill(Pid::from_raw(pid), known),
        Err(_) => {
            davit_sys::fork::kill_raw(pid, signal).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))
        }
    };
    match done {
        Err(Errno::ESRCH) => Ok(()),
        other => other.context(|| format!("send signal {signal} to process {pid}")),
    }
}

fn poll(mut done: impl FnMut() -> Result<bool>) -> Result<bool> {
    let begun = Instant::now();
    let mut pause = Duration::from_micros(100);
    while begun.elapsed() < PATIENCE {
        if done()? {
            return Ok(true);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    Ok(false)
}

fn too_slow(file: &Path) -> Error {
    Error::Limit {
        what: "the running of processes (pause)".into(),
        reason: format!(
            "the kernel did not freeze them within {} s ({})",
            PATIENCE.as_secs(),
            file.display()
        ),
    }
}

fn no_freezer() -> Error {
    Error::Limit {
        what: "the running of processes (pause)".into(),
        reason: "the container has no freezer cgroup".into(),
    }
}
