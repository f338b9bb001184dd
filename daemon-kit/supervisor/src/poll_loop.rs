//! The one loop: signals, the daemons' messages, clients of the control socket, and time.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::control::Connection;
use crate::fleet::Fleet;
use crate::notify;

/// The log's size is looked at this often when nothing else happens.
const IDLE: Duration = Duration::from_secs(60);
/// More clients than this are not accepted at once.
const MOST_CLIENTS: usize = 64;

/// Turns the signals that matter into a descriptor.
pub fn block_signals() -> Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block().context("cannot block signals")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("cannot make a signalfd")
}

/// Serves until the end was asked for and reached.
pub fn run(mut fleet: Fleet, control: &UnixListener, signals: &SignalFd) -> Result<()> {
    let mut clients: Vec<Connection> = Vec::new();
    loop {
        let due = fleet.tick();
        clients.retain_mut(|c| c.settle(&fleet));
        if fleet.is_over() {
            fleet.close();
            return Ok(());
        }
        let (common, talking) = wait(&fleet, signals, control, &clients, due)?;
        // Messages before deaths: what a daemon said last still counts.
        if common[1] {
            while let Some(message) = notify::receive(fleet.notify_socket()) {
                fleet.notified(message);
            }
        }
        if common[0] {
            take_signals(&mut fleet, signals);
        }
        let mut talking = talking.into_iter();
        clients.retain_mut(|c| if talking.next() == Some(true) { c.readable(&mut fleet) } else { true });
        if common[2] {
            accept(control, &mut clients);
        }
    }
}

/// Sleeps until something happens: which of (signals, messages, new clients), and which clients.
fn wait(
    fleet: &Fleet,
    signals: &SignalFd,
    control: &UnixListener,
    clients: &[Connection],
    due: Option<Instant>,
) -> Result<([bool; 3], Vec<bool>)> {
    let timeout = due.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()).min(IDLE));
    // poll(2) rounds down nothing here, but waking a moment late is better than spinning for the last microseconds.
    let timeout = Timespec::try_from(timeout + Duration::from_millis(1)).context("a timeout out of range")?;
    let signals = signals.as_fd();
    let mut fds = vec![
        PollFd::new(&signals, PollFlags::IN),
        PollFd::new(fleet.notify_socket(), PollFlags::IN),
        PollFd::new(control, if clients.len() < MOST_CLIENTS { PollFlags::IN } else { PollFlags::empty() }),
    ];
    fds.extend(clients.iter().map(|c| PollFd::new(c.stream(), PollFlags::IN)));
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => return Err(e).context("cannot poll"),
    }
    let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
    let mut next = || ready.next().unwrap_or(false);
    let common = [next(), next(), next()];
    Ok((common, ready.collect()))
}

fn take_signals(fleet: &mut Fleet, signals: &SignalFd) {
    while let Ok(Some(info)) = signals.read_signal() {
        // SIGHUP comes from a terminal's end, which is none of our business.
        if let Ok(Signal::SIGTERM | Signal::SIGINT) = Signal::try_from(info.ssi_signo as i32) {
            fleet.end();
        }
    }
    reap(fleet);
}

fn reap(fleet: &mut Fleet) {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => {
                fleet.child_ended(pid.as_raw(), &format!("exit status {code}"));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                fleet.child_ended(pid.as_raw(), &format!("killed by {signal}"));
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn accept(control: &UnixListener, clients: &mut Vec<Connection>) {
    while clients.len() < MOST_CLIENTS {
        match control.accept() {
            Ok((stream, _)) => clients.push(Connection::new(stream)),
            Err(_) => return,
        }
    }
}
