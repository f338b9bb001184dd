//! Going to the background: the process that was called ends when the mount can be used, or with the other's error.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use davit_sys::fork::{self, Cloned};
use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};

use crate::mount::Place;

/// Which process goes on.
pub(super) enum Side {
    /// The one that was called, with its exit code.
    Parent(i32),
    /// The one that serves.
    Child(Ready),
}

/// What is to be told when the mount can be used.
pub(super) struct Ready {
    pipe: Option<OwnedFd>,
}

/// Forks. The parent's side comes back when the child has announced itself or ended.
pub(super) fn fork() -> io::Result<Side> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match fork::clone_process(CloneFlags::empty(), None).map_err(io::Error::other)? {
        Cloned::Child => {
            drop(read);
            rustix::process::setsid()?;
            Ok(Side::Child(Ready { pipe: Some(write) }))
        }
        Cloned::Parent { pid, .. } => {
            drop(write);
            let mut said = [0u8; 1];
            match std::fs::File::from(read).read(&mut said)? {
                0 => Ok(Side::Parent(exit_code(pid)?)),
                _ => Ok(Side::Parent(0)),
            }
        }
    }
}

/// How a child ended that did not get ready.
fn exit_code(pid: i32) -> io::Result<i32> {
    let pid = rustix::process::Pid::from_raw(pid);
    let status = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty())?;
    Ok(status.and_then(|(_, s)| s.exit_status()).filter(|code| *code != 0).unwrap_or(1))
}

impl Ready {
    /// Nobody waits.
    pub(super) fn foreground() -> Self {
        Self { pipe: None }
    }

    /// Lets the waiting process go, and everything that ties this one to its caller.
    pub(super) fn announce(self) -> io::Result<()> {
        let Some(pipe) = self.pipe else { return Ok(()) };
        let_go()?;
        rustix::io::write(&pipe, b"+")?;
        Ok(())
    }
}

/// Starts a process that waits for this one's end and then unmounts what is left. Called before anything is open that must not outlive
/// this process.
pub(super) fn unmount_after_death(place: &Place, ready: Ready) -> io::Result<Ready> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match fork::clone_process(CloneFlags::empty(), None).map_err(io::Error::other)? {
        Cloned::Parent { .. } => {
            // Open until the process ends, however it does.
            std::mem::forget(write);
            Ok(ready)
        }
        Cloned::Child => {
            drop((write, ready));
            rustix::process::setsid()?;
            let_go()?;
            let _ = rustix::io::read(&read, &mut [0u8; 1][..]);
            place.clear();
            std::process::exit(0);
        }
    }
}

/// Lets go of the caller's directory, input and output.
fn let_go() -> io::Result<()> {
    rustix::process::chdir("/")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    (0..=2).try_for_each(|standard| fork::replace_stdio(null.as_fd(), standard))
}
