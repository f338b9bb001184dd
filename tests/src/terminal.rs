//! A command on a private host with a real terminal: a pseudo-terminal whose other end the test holds.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::termios::{Winsize, tcsetwinsize};

use crate::host::{Host, Running};
use crate::wait::eventually;

/// What a person at the terminal sees and types.
#[derive(Debug)]
pub struct Terminal {
    controller: File,
    screen: Arc<Mutex<Vec<u8>>>,
    running: Running,
}

impl Host {
    /// Starts `davit` as the session of a new terminal of this size.
    #[track_caller]
    pub fn terminal<S: AsRef<str>>(
        &self,
        rows: u16,
        columns: u16,
        args: impl IntoIterator<Item = S>,
    ) -> Terminal {
        let pty = nix::pty::openpty(None, None).expect("a pseudo-terminal");
        let controller = File::from(pty.master);
        set_size(&controller, rows, columns);
        let stdio: [OwnedFd; 3] =
            [pty.slave.try_clone(), pty.slave.try_clone(), Ok(pty.slave)].map(|fd| fd.expect("dup"));
        let running = self.command("setsid").args(["--ctty", "davit"]).args(args).launch(stdio);
        let screen = Arc::<Mutex<Vec<u8>>>::default();
        let (seen, mut from) = (Arc::clone(&screen), controller.try_clone().expect("dup"));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                seen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..n]);
            }
        });
        Terminal { controller, screen, running }
    }
}

fn set_size(terminal: &File, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).expect("a terminal has a size");
}

impl Terminal {
    /// Types text.
    pub fn types(&mut self, text: &str) {
        self.controller.write_all(text.as_bytes()).expect("the terminal is open");
    }

    /// Resizes the window.
    pub fn resize(&self, rows: u16, columns: u16) {
        set_size(&self.controller, rows, columns);
    }

    /// Waits until the screen has shown `part`.
    #[track_caller]
    pub fn shows(&self, part: &str) {
        eventually(&format!("the terminal shows {part:?}"), || {
            let screen = self.screen();
            if screen.contains(part) { Ok(()) } else { Err(format!("{screen:?}")) }
        });
    }

    /// Everything shown until now.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Whether the terminal is in raw mode (no echo, no line editing).
    pub fn is_raw(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.controller).expect("a terminal has modes").local_modes;
        !modes.contains(rustix::termios::LocalModes::ICANON)
    }

    /// Waits for the command's end; answers its exit code.
    #[track_caller]
    pub fn exit_code(self) -> i32 {
        self.running.wait().code
    }
}
