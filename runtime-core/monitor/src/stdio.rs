//! The descriptors between the monitor and a program: pipes or a terminal, and how a program's end is counted.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;
use rustix::process::WaitStatus;

use crate::runtime::ProgramEnds;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// exit(2) with this code.
    Exited(i32),
    /// Ended by this signal.
    Signaled(i32),
}

impl Status {
    /// From wait(2).
    pub fn from_wait(status: WaitStatus) -> Self {
        match status.terminating_signal() {
            Some(signal) => Self::Signaled(signal),
            None => Self::Exited(status.exit_status().unwrap_or(0)),
        }
    }

    /// Whether it is exit code 0.
    pub fn succeeded(self) -> bool {
        self == Self::Exited(0)
    }

    /// As a shell and docker count: 128+n after signal n.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }

    /// The signal, if one ended it.
    pub fn signal(self) -> Option<i32> {
        match self {
            Self::Exited(_) => None,
            Self::Signaled(signal) => Some(signal),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Signaled(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// The monitor's ends.
#[derive(Debug)]
pub struct MonitorEnds {
    /// Write end of its input.
    pub stdin: Option<OwnedFd>,
    /// Read end of its output, or the terminal's master.
    pub stdout: Option<OwnedFd>,
    /// Read end of its error output.
    pub stderr: Option<OwnedFd>,
}

/// What is made before a program is, and completed when its runtime call has ended.
#[derive(Debug)]
pub enum Pending {
    /// Pipes.
    Pipes(MonitorEnds),
    /// The runtime sends the master here.
    Console(UnixListener),
}

/// Makes pipes for a program without a terminal.
pub fn pipes(stdin: bool) -> io::Result<(MonitorEnds, ProgramEnds)> {
    let pair = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
    let (out, out_theirs) = pair()?;
    let (err, err_theirs) = pair()?;
    let (input_theirs, input) = if stdin {
        let (theirs, ours) = pair()?;
        (Some(theirs), Some(ours))
    } else {
        (None, None)
    };
    for ours in [Some(&out), Some(&err), input.as_ref()].into_iter().flatten() {
        set_nonblocking(ours)?;
    }
    let ours = MonitorEnds { stdin: input, stdout: Some(out), stderr: Some(err) };
    let theirs = ProgramEnds { stdin: input_theirs, stdout: Some(out_theirs), stderr: Some(err_theirs) };
    Ok((ours, theirs))
}

/// Listens for the master of a program with a terminal.
pub fn console(path: &Path) -> io::Result<UnixListener> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Pending {
    /// To be called when the runtime call has succeeded: for a terminal, takes the master that was sent.
    pub fn complete(self, stdin: bool) -> io::Result<MonitorEnds> {
        match self {
            Self::Pipes(ends) => Ok(ends),
            Self::Console(listener) => {
                let master = davit_sys::pty::receive_master(&listener)?;
                set_nonblocking(&master)?;
                let input = if stdin { Some(master.try_clone()?) } else { None };
                Ok(MonitorEnds { stdin: input, stdout: Some(master), stderr: None })
            }
        }
    }

    /// What a runtime call that failed has written into the program's standard error. What a call that succeeded left there is the
    /// program's own.
    pub fn error_output(&self) -> Vec<u8> {
        let mut text = vec![0; 4096];
        let read = match self {
            Self::Pipes(MonitorEnds { stderr: Some(fd), .. }) => rustix::io::read(fd, &mut text),
            _ => Ok(0),
        };
        text.truncate(read.unwrap_or(0));
        text
    }
}

fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?)
}
