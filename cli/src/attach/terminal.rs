//! Our terminal: raw mode that is always undone, and its size.

use std::io::Stdin;
use std::os::fd::AsFd;
use std::sync::Mutex;

use nix::sys::signal::Signal;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use crate::error::{Failure, Outcome};

/// What the terminal was like; set while it is raw. Global, because a panic must undo it too.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The hook that undoes it is set once.
static HOOK: std::sync::Once = std::sync::Once::new();

/// Whether it is a terminal.
pub fn is_terminal(fd: &impl AsFd) -> bool {
    isatty(fd)
}

/// Rows and columns of the terminal behind stdout, stdin or stderr.
pub fn size() -> Option<(u16, u16)> {
    let (out, input, err) = (std::io::stdout(), std::io::stdin(), std::io::stderr());
    [out.as_fd(), input.as_fd(), err.as_fd()]
        .into_iter()
        .find_map(|fd| tcgetwinsize(fd).ok())
        .filter(|s| s.ws_row > 0 && s.ws_col > 0)
        .map(|s| (s.ws_row, s.ws_col))
}

/// Whether an unforwarded signal ends us.
pub fn ends_us(signal: Signal) -> bool {
    matches!(signal, Signal::SIGHUP | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM)
}

/// Raw mode of standard input's terminal, until dropped.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Enters it.
    pub fn enter() -> Outcome<Self> {
        let stdin = std::io::stdin();
        let refused = |e: rustix::io::Errno| Failure::io("cannot set the terminal's mode", &e.into());
        let before = tcgetattr(&stdin).map_err(refused)?;
        let mut raw = before.clone();
        raw.make_raw();
        remember(&stdin, before);
        tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(refused)?;
        Ok(Self(()))
    }
}

fn remember(_: &Stdin, before: Termios) {
    if let Ok(mut slot) = BEFORE.lock() {
        *slot = Some(before);
    }
    HOOK.call_once(|| {
        let inner = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            inner(info);
        }));
    });
}

/// Puts the terminal back, if it is raw.
pub fn restore() {
    if let Ok(mut slot) = BEFORE.try_lock()
        && let Some(before) = slot.take()
    {
        // Drain: what the program wrote last was meant for the raw mode.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &before);
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}
