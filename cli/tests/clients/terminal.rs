//! `davit run -it` on a pseudo-terminal: raw mode and back, size, detaching.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use crate::bench::{Bench, told, until};
use crate::monitor::monitor;
use davit_wire::Frame;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// A terminal of our own: `davit`'s side stays open here, so that its modes can be looked at after it.
struct Terminal {
    master: OwnedFd,
    slave: File,
}

impl Terminal {
    fn new() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        // /dev/ptmx may be of another devpts than /dev/pts in a namespace; both are the same here.
        let slave =
            OpenOptions::new().read(true).write(true).open(OsStr::from_bytes(name.as_bytes())).unwrap();
        let me = Self { master, slave };
        me.resize(24, 80);
        me
    }

    fn resize(&self, rows: u16, cols: u16) {
        tcsetwinsize(&self.master, Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 })
            .unwrap();
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    fn types(&self, keys: &[u8]) {
        rustix::io::write(&self.master, keys).unwrap();
    }

    /// `davit ARGS` in a session of its own whose terminal this is.
    fn run(&self, bench: &Bench, args: &[&str]) -> Child {
        let stdio = || Stdio::from(self.slave.try_clone().unwrap());
        let mut command = Command::new("setsid");
        bench.prepare(&mut command);
        command.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_davit")]).args(args);
        command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap()
    }
}

#[test]
fn the_terminal_is_raw_meanwhile_and_itself_again_after() {
    let (bench, terminal) = (Bench::new(), Terminal::new());
    let (go, may_go) = mpsc::channel::<()>();
    let played = monitor(&bench.run_dir(), move |client| {
        let size = client.attach.size;
        let mut client = client.welcome();
        let typed = client.next();
        may_go.recv().unwrap();
        client.exit(5);
        (size, typed)
    });
    let before = tcgetattr(&terminal.slave).unwrap();
    let mut child = terminal.run(&bench, &["run", "-it", "tools", "sh"]);
    until("raw mode", || terminal.is_raw());
    // In raw mode ctrl-c is a byte for the program, no signal for us.
    terminal.types(b"\x03");
    go.send(()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_eq!(played.join().unwrap(), (Some((24, 80)), Some(Frame::Stdin(vec![3]))));
    let after = tcgetattr(&terminal.slave).unwrap();
    assert_eq!(after.local_modes, before.local_modes);
    assert_eq!((after.input_modes, after.output_modes), (before.input_modes, before.output_modes));
    let spec = bench.book().run.clone().unwrap().spec.unwrap();
    assert_eq!(spec.console_size, [24, 80]);
}

#[test]
fn a_new_size_reaches_the_program() {
    let (bench, terminal) = (Bench::new(), Terminal::new());
    let (ready, is_ready) = mpsc::channel();
    let played = monitor(&bench.run_dir(), move |client| {
        let mut client = client.welcome();
        ready.send(()).unwrap();
        let frame = client.next();
        client.exit(0);
        frame
    });
    let mut child = terminal.run(&bench, &["run", "-it", "tools", "sh"]);
    is_ready.recv().unwrap();
    terminal.resize(50, 132);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(played.join().unwrap(), Some(Frame::Resize { rows: 50, cols: 132 }));
}

#[test]
fn the_detach_keys_leave_the_program_alone() {
    let (bench, terminal) = (Bench::new(), Terminal::new());
    let played = monitor(&bench.run_dir(), |client| {
        let mut client = client.welcome();
        let mut frames = Vec::new();
        while let Some(frame) = client.next() {
            frames.push(frame);
        }
        frames
    });
    let mut child = terminal.run(&bench, &["run", "-it", "tools", "sh"]);
    until("raw mode", || terminal.is_raw());
    terminal.types(b"ls\x10\x11");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!terminal.is_raw());
    let frames = played.join().unwrap();
    assert_eq!(frames.last(), Some(&Frame::Detach));
    let typed: Vec<u8> = frames
        .iter()
        .filter_map(|f| match f {
            Frame::Stdin(data) => Some(data.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(typed, b"ls");
}

#[test]
fn a_signal_restores_the_terminal_too() {
    let (bench, terminal) = (Bench::new(), Terminal::new());
    let played = monitor(&bench.run_dir(), |client| client.welcome().next());
    let mut child = terminal.run(&bench, &["run", "-it", "--sig-proxy=false", "tools", "sh"]);
    until("raw mode", || terminal.is_raw());
    // The child is setsid(1), whose own child is davit.
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let pid = std::fs::read_to_string(children).unwrap().trim().parse::<i32>().unwrap_or(child.id() as i32);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
    child.wait().unwrap();
    assert!(!terminal.is_raw());
    assert_eq!(played.join().unwrap(), None);
}

#[test]
fn output_comes_through_unchanged() {
    let (bench, terminal) = (Bench::new(), Terminal::new());
    let played = monitor(&bench.run_dir(), |client| {
        let mut client = client.welcome();
        client.send(&Frame::Stdout(b"a\r\nb\n\x1b[0m.".to_vec()));
        client.exit(0);
    });
    let mut child = terminal.run(&bench, &["run", "-it", "tools", "sh"]);
    let mut seen = Vec::new();
    let mut reader = File::from(terminal.master.try_clone().unwrap());
    let mut byte = [0u8; 1];
    while seen.last() != Some(&b'.') {
        reader.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    assert_eq!(seen, b"a\r\nb\n\x1b[0m.");
    child.wait().unwrap();
    played.join().unwrap();
}

#[test]
fn a_terminal_is_refused_where_there_is_none() {
    let bench = Bench::new();
    let mut child = bench.davit(&["run", "-it", "tools", "sh"]).stdin(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(b"x");
    let output = child.wait_with_output().unwrap();
    assert_eq!(told(&output), (1, String::new(), "davit: the input device is not a TTY\n".into()));
    assert!(bench.book().calls.is_empty());
}
