//! Taking back half a creation; and names of sockets longer than a socket address.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::cgroup::Placement;
use crate::error::{Context, Error, Result};
use crate::state::StateDir;

/// Takes back what was made so far when it is dropped armed.
#[derive(Debug)]
pub struct Undo {
    dir: StateDir,
    process: Option<(i32, OwnedFd)>,
    cgroups: Placement,
    armed: bool,
}

impl Undo {
    /// Nothing but the state directory exists yet.
    pub fn of(dir: &StateDir) -> Self {
        Self { dir: dir.clone(), process: None, cgroups: Placement::default(), armed: true }
    }

    /// These may exist from now on.
    pub fn cgroups(&mut self, placement: &Placement) {
        self.cgroups = placement.clone();
    }

    /// The child exists.
    pub fn process(&mut self, pid: i32, pidfd: &OwnedFd) {
        self.process = pidfd.try_clone().ok().map(|fd| (pid, fd));
    }

    /// All went well.
    pub fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        if let Some((pid, pidfd)) = &self.process {
            let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(*pid), None);
        }
        // The failure that brought us here is what the user must hear; leftovers are found by `delete --force`.
        if self.cgroups.remove().is_ok() {
            let _ = self.dir.remove();
        }
    }
}

/// A path of under 108 bytes for a socket, and the descriptor that keeps it valid.
pub fn short_path(path: &Path) -> Result<(Option<File>, PathBuf)> {
    if path.as_os_str().len() < 100 {
        return Ok((None, path.to_owned()));
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::Usage(format!("{} is no socket's path", path.display())));
    };
    let directory = File::open(parent).context(|| format!("open {}", parent.display()))?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok((Some(directory), short))
}
