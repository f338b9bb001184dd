//! A container or exec in the foreground: signals are passed on, its terminal is joined with ours, its exit code becomes ours.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::termios::{OptionalActions, Termios};

use crate::cgroup::freeze;
use crate::cli;
use crate::error::{Context, Result};

/// Signals of ours, taken as data.
#[derive(Debug)]
pub struct Foreground {
    signals: SignalFd,
}

impl Foreground {
    /// Must come before the clone, so that no signal is lost in between. (The program gets a clean mask.)
    pub fn block_signals() -> Result<Self> {
        let mut mask = SigSet::all();
        for kept in [
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGABRT,
            Signal::SIGTRAP,
        ] {
            mask.remove(kept);
        }
        mask.thread_block().context(|| "block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self { signals: SignalFd::with_flags(&mask, flags).context(|| "make a signalfd")? })
    }

    /// Waits for the process and gives its exit code: 128 + n for signal n.
    pub fn wait(&self, pid: i32, pidfd: &OwnedFd, terminal: Option<Terminal>) -> Result<i32> {
        let mut terminal = terminal.map(Terminal::connect).transpose()?;
        loop {
            let mut fds = vec![
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
            ];
            if let Some(t) = &terminal {
                fds.extend(t.poll_fds());
            }
            match poll(&mut fds, PollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => drop(other.context(|| "wait for the program")?),
            }
            let ready: Vec<bool> = fds.iter().map(|f| f.any().unwrap_or(true)).collect();
            drop(fds);
            if ready[0] {
                self.forward(pid, terminal.as_ref())?;
            }
            if let Some(t) = &mut terminal {
                t.copy(ready.get(2) == Some(&true), ready.get(3) == Some(&true));
            }
            if ready[1] {
                if let Some(t) = &mut terminal {
                    t.drain();
                }
                return reap(pid);
            }
        }
    }

    fn forward(&self, pid: i32, terminal: Option<&Connected>) -> Result<()> {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match info.ssi_signo as i32 {
                libc::SIGCHLD | libc::SIGURG | libc::SIGPIPE | libc::SIGTTIN | libc::SIGTTOU => {}
                libc::SIGWINCH => {
                    if let Some(t) = terminal {
                        t.resize();
                    }
                }
                other => freeze::send(pid, other)?,
            }
        }
        Ok(())
    }
}

fn reap(pid: i32) -> Result<i32> {
    loop {
        match waitpid(Pid::from_raw(pid), None) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(WaitStatus::Exited(_, code)) => return Ok(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
            other => drop(other.context(|| format!("wait for process {pid}"))?),
        }
    }
}

/// A console socket of our own, where the user named none.
#[derive(Debug)]
pub struct Terminal {
    listener: UnixListener,
    /// Where it listens.
    pub socket: PathBuf,
}

impl Terminal {
    /// One if the config wants a terminal and nobody else takes it.
    pub fn wanted(create: &cli::Create) -> Result<Option<Self>> {
        if create.console_socket.is_some() {
            return Ok(None);
        }
        let spec = crate::launch::load_spec(&create.bundle)?;
        if spec.process.is_some_and(|p| p.terminal) { Self::new().map(Some) } else { Ok(None) }
    }

    /// Listens at a fresh name.
    pub fn new() -> Result<Self> {
        let socket = std::env::temp_dir().join(format!("davit-runner-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).context(|| format!("listen at {}", socket.display()))?;
        Ok(Self { listener, socket })
    }

    fn connect(self) -> Result<Connected> {
        let (stream, _) = self.listener.accept().context(|| "take the terminal")?;
        let _ = std::fs::remove_file(&self.socket);
        let received = davit_sys::fork::channel::Channel::from_fd(stream.into())
            .receive()
            .context(|| "take the terminal")?;
        let master = received.fds.into_iter().next().ok_or(io::ErrorKind::UnexpectedEof.into());
        let master: OwnedFd = master.map_err(|e: io::Error| e).context(|| "take the terminal")?;
        let saved = rustix::termios::tcgetattr(io::stdin()).ok();
        if let Some(old) = &saved {
            let mut raw = old.clone();
            raw.make_raw();
            let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw);
        }
        let connected = Connected { master: master.into(), saved, stdin_open: true, master_open: true };
        connected.resize();
        Ok(connected)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

struct Connected {
    master: std::fs::File,
    saved: Option<Termios>,
    stdin_open: bool,
    master_open: bool,
}

impl Connected {
    fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let mut fds = Vec::new();
        if self.master_open {
            fds.push(PollFd::new(self.master.as_fd(), PollFlags::POLLIN));
            if self.stdin_open {
                fds.push(PollFd::new(rustix::stdio::stdin(), PollFlags::POLLIN));
            }
        }
        fds
    }

    fn copy(&mut self, output: bool, input: bool) {
        let mut buffer = [0u8; 4096];
        if output && self.master_open {
            match self.master.read(&mut buffer) {
                Ok(n) if n > 0 => {
                    drop(io::stdout().write_all(&buffer[..n]).and_then(|()| io::stdout().flush()));
                }
                _ => self.master_open = false,
            }
        }
        if input && self.stdin_open && self.master_open {
            match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
                Ok(n) if n > 0 => drop(self.master.write_all(&buffer[..n])),
                _ => {
                    self.stdin_open = false;
                    let _ = self.master.write_all(&[4]); // end of transmission: what a terminal's user types to end input
                }
            }
        }
    }

    fn drain(&mut self) {
        loop {
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            if !self.master_open || !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(n) if n > 0) {
                return;
            }
            self.copy(true, false);
        }
    }

    fn resize(&self) {
        if let Ok(size) = rustix::termios::tcgetwinsize(io::stdin()) {
            let _ = rustix::termios::tcsetwinsize(&self.master, size);
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        if let Some(old) = &self.saved {
            let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, old);
        }
    }
}
