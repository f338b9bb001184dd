//! Attached to a program: our input, output, signals and terminal size to and from its monitor. The daemons have no part in it.

mod session;
pub mod terminal;

use std::os::unix::net::UnixStream;
use std::path::Path;

use davit_contracts::Kind;
use davit_wire::{ExitRecord, Failure as Refusal, FailureKind};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Failure, Outcome};

/// How to attach.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// An exec session; none: the container's own program.
    pub exec_id: Option<String>,
    /// Send our input.
    pub stdin: bool,
    /// The program has a terminal.
    pub tty: bool,
    /// Forward signals.
    pub sig_proxy: bool,
    /// Keys that detach; empty: none.
    pub detach_keys: Vec<u8>,
    /// One more key that does.
    pub escape: Option<u8>,
    /// Begin with the last output.
    pub replay: bool,
}

/// How it ended.
#[derive(Debug)]
pub enum Ended {
    /// The program ended.
    Exited(ExitRecord),
    /// The person left; the program goes on.
    Detached,
    /// Nobody reads our output any more (`davit run ... | head`): the program was sent SIGPIPE, and we leave as a shell's
    /// pipeline would, whatever it does about it.
    Unread,
    /// The monitor went away without a word.
    Lost,
}

/// Signals that go to the program. Those that stop a job stay with us, and so does SIGWINCH, which becomes a resize.
const FORWARDED: [Signal; 8] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTERM,
    Signal::SIGPWR,
];

/// Signals as a descriptor, blocked from the moment that this is made, so that none is lost before we are attached.
pub struct Signals(SignalFd);

impl Signals {
    /// Takes over the signals that concern an attached client.
    pub fn take(sig_proxy: bool) -> Outcome<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGWINCH);
        // Without forwarding they end us, but the terminal must be itself again before.
        for signal in FORWARDED.into_iter().filter(|s| sig_proxy || terminal::ends_us(*s)) {
            set.add(signal);
        }
        let refused = |e: nix::Error| Failure::io("cannot take over signals", &e.into());
        set.thread_block().map_err(refused)?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self).map_err(refused)
    }
}

/// Attaches until the program ends, the person detaches or the monitor is gone.
pub fn attach(socket: &Path, options: &Options, signals: &Signals) -> Outcome<Ended> {
    let stream = UnixStream::connect(socket).map_err(|e| {
        Failure::io(format!("cannot reach the container's monitor at {}", socket.display()), &e)
    })?;
    let raw = options.tty && options.stdin && terminal::is_terminal(&std::io::stdin());
    let guard = if raw { Some(terminal::Raw::enter()?) } else { None };
    let ended = session::Session::new(stream, options, &signals.0)?.run();
    drop(guard);
    ended
}

/// A refusal of the monitor as a failure of ours.
fn refused(refusal: Refusal) -> Failure {
    let kind = match refusal.kind {
        FailureKind::CommandNotFound => Kind::CommandNotFound,
        FailureKind::CommandNotRunnable => Kind::CommandNotRunnable,
        FailureKind::WrongState => Kind::WrongState,
        FailureKind::InvalidArgument => Kind::InvalidArgument,
        FailureKind::NotFound => Kind::NotFound,
        FailureKind::Version => Kind::Unsupported,
        FailureKind::Internal => Kind::Internal,
    };
    Failure::new(kind, refusal.message)
}

/// docker's refusal of `-it` where there is no terminal.
pub fn check_tty(stdin: bool, tty: bool) -> Outcome {
    if stdin && tty && !terminal::is_terminal(&std::io::stdin()) {
        crate::output::complain!("davit: the input device is not a TTY");
        return Err(Failure::Code(1));
    }
    Ok(())
}

/// The detach keys in force: those asked for, else ctrl-p ctrl-q where the program has a terminal.
pub fn detach_keys(asked: Option<&str>, tty: bool) -> Outcome<Vec<u8>> {
    match asked {
        Some(text) => Ok(crate::parse::keys::detach_keys(text)?),
        None if tty => Ok(vec![16, 17]),
        None => Ok(Vec::new()),
    }
}
