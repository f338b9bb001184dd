//! A supervisor with stand-ins for the daemons, in directories of its own.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub const DAEMONS: [&str; 3] = ["storaged", "netd", "runtimed"];

/// Directories, binaries and (after `up`) a supervisor; taken down when dropped.
pub struct Host {
    dir: tempfile::TempDir,
    uid: Option<u32>,
}

/// What a stand-in says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    pub pid: i32,
    pub dir: PathBuf,
    pub stored: String,
}

impl Host {
    pub fn new() -> Self {
        Self::owned_by(None)
    }

    /// The instance of another user, when the tests run as root.
    pub fn of_user(uid: u32) -> Self {
        Self::owned_by(nix::unistd::geteuid().is_root().then_some(uid))
    }

    fn owned_by(uid: Option<u32>) -> Self {
        let dir = tempfile::Builder::new().prefix("davit-sv").tempdir_in("/tmp").unwrap();
        let me = Self { dir, uid };
        for sub in ["state", "run", "config", "bin", "other"] {
            fs::create_dir(me.path(sub)).unwrap();
        }
        fs::copy(env!("CARGO_BIN_EXE_davit-supervisor"), me.path("davit-supervisor")).unwrap();
        for daemon in DAEMONS {
            fs::copy(env!("CARGO_BIN_EXE_davit-standin"), me.path("bin").join(format!("davit-{daemon}")))
                .unwrap();
        }
        if let Some(uid) = uid {
            for sub in ["", "state", "run", "config"] {
                std::os::unix::fs::chown(me.path(sub), Some(uid), Some(uid)).unwrap();
            }
        }
        me
    }

    pub fn path(&self, sub: &str) -> PathBuf {
        self.dir.path().join(sub)
    }

    /// Tells a stand-in how to behave.
    pub fn tell(&self, daemon: &str, what: &str) {
        fs::write(self.path("state").join(format!("davit-{daemon}.{what}")), "").unwrap();
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(self.path("davit-supervisor"));
        command.arg("--background").stdin(Stdio::null());
        for (key, sub) in [
            ("DAVIT_STATE_DIR", "state"),
            ("DAVIT_RUN_DIR", "run"),
            ("DAVIT_CONFIG_DIR", "config"),
            ("DAVIT_BIN_DIR", "bin"),
        ] {
            command.env(key, self.path(sub));
        }
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Starts it and gives what it printed. That this returns shows that nobody holds its pipes open.
    pub fn up(&self) -> String {
        let output = self.command().output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A daemon that somebody else started, and serves.
    pub fn alone(&self, daemon: &str) -> Alone {
        let mut command = Command::new(self.path("bin").join(format!("davit-{daemon}")));
        command.env("DAVIT_STATE_DIR", self.path("state")).env("DAVIT_RUN_DIR", self.path("run"));
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let socket = self.path(&format!("run/{daemon}.sock"));
        until("a daemon alone", || UnixStream::connect(&socket).is_ok());
        Alone(child)
    }

    /// One request to the control socket: the lines before the last, and the last.
    pub fn ask(&self, request: &str) -> (Vec<String>, String) {
        let mut stream = UnixStream::connect(self.path("run/supervisor.sock")).expect("a supervisor listens");
        writeln!(stream, "{request}").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let last = lines.pop().expect("an answer");
        (lines, last)
    }

    pub fn ready(&self) {
        assert_eq!(self.ask("ready").1, "ok", "{}", self.log());
    }

    /// A field of a daemon's (or `supervisor`'s) status line.
    pub fn field(&self, daemon: &str, key: &str) -> String {
        let (lines, last) = self.ask("status");
        assert_eq!(last, "ok");
        let name = format!("name={daemon}");
        let line = lines.iter().find(|l| l.starts_with(daemon) || l.split('\t').any(|f| f == name)).unwrap();
        let start = format!("{key}=");
        line.split('\t').find_map(|f| f.strip_prefix(&start)).unwrap().to_owned()
    }

    pub fn pid(&self, daemon: &str) -> i32 {
        self.field(daemon, "pid").parse().unwrap()
    }

    /// Asks a stand-in itself. The connection waits in the socket's queue while nobody serves it.
    pub fn about(&self, daemon: &str) -> About {
        let stream =
            UnixStream::connect(self.path(&format!("run/{daemon}.sock"))).expect("the socket is open");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        let mut words = line.trim_end().split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        About { pid: word().parse().unwrap_or(0), dir: word().into(), stored: word() }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("run/supervisor.log")).unwrap_or_default()
    }
}

/// Ended when dropped.
pub struct Alone(std::process::Child);

impl Alone {
    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Waits until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < give_up, "never came about: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn alive(pid: i32) -> bool {
    davit_sys::process::ProcessRef::of(pid).is_ok_and(|p| p.is_alive())
}

pub fn kill9(pid: i32) {
    assert!(pid > 1);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

pub fn namespace(pid: i32, kind: &str) -> PathBuf {
    fs::read_link(Path::new("/proc").join(pid.to_string()).join("ns").join(kind)).unwrap()
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Ok(mut stream) = UnixStream::connect(self.path("run/supervisor.sock")) {
            let _ = writeln!(stream, "down");
            let mut rest = String::new();
            let _ = stream.read_to_string(&mut rest);
        }
    }
}
