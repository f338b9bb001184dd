//! A command on a private host while it runs.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::protocol::{self, Answer, Request};
use super::{Host, SAILOR};
use crate::command::{Ran, typed};
use crate::wait::eventually;

/// A guard against hanging for ever, far beyond what any command of a test takes.
const LIMIT: Duration = Duration::from_secs(180);

/// A command that is being described.
#[derive(Debug)]
#[must_use = "a described command does nothing until it is started"]
pub struct Start<'h> {
    host: &'h Host,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Option<Vec<u8>>,
    open_stdin: bool,
    sailor: bool,
    cwd: String,
}

impl<'h> Start<'h> {
    pub(super) fn new(host: &'h Host, program: &str) -> Self {
        let cwd = host.path().join("work").to_string_lossy().into_owned();
        Self {
            host,
            argv: vec![program.into()],
            env: vec![],
            stdin: None,
            open_stdin: false,
            sailor: false,
            cwd,
        }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.argv.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: &str, value: impl Into<String>) -> Self {
        self.env.push((key.to_owned(), value.into()));
        self
    }

    /// Gives it these bytes as standard input.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Keeps its standard input open, for [`Running::write`].
    pub fn open_stdin(mut self) -> Self {
        self.open_stdin = true;
        self
    }

    /// Runs it as the plain user.
    pub fn as_sailor(mut self) -> Self {
        self.sailor = true;
        self
    }

    /// Starts it.
    #[track_caller]
    pub fn start(self) -> Running {
        let (stdout_read, stdout) = std::io::pipe().expect("a pipe");
        let (stderr_read, stderr) = std::io::pipe().expect("a pipe");
        let (stdin, writer): (OwnedFd, Option<OwnedFd>) = if self.stdin.is_some() || self.open_stdin {
            let (read, write) = std::io::pipe().expect("a pipe");
            (read.into(), Some(write.into()))
        } else {
            (File::open("/dev/null").expect("/dev/null exists").into(), None)
        };
        let mut running = self.launch([stdin, stdout.into(), stderr.into()]);
        running.stdout = Collector::start(stdout_read.into());
        running.stderr = Collector::start(stderr_read.into());
        running.stdin = writer.map(File::from);
        if let Some(bytes) = self.stdin {
            let mut stdin = running.stdin.take().expect("made above");
            std::thread::spawn(move || stdin.write_all(&bytes));
        }
        running
    }

    /// Starts it with these descriptors as its stdio; nothing is collected.
    #[track_caller]
    #[allow(
        clippy::needless_pass_by_value,
        reason = "the caller's copies have to close, or output never ends"
    )]
    pub(crate) fn launch(&self, stdio: [OwnedFd; 3]) -> Running {
        let line = typed(&self.argv);
        let request = Request { argv: self.whole_argv(), env: self.whole_env(), cwd: self.cwd.clone() };
        let stream =
            UnixStream::connect(self.host.path().join("init.sock")).expect("the private host's init lives");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout above zero");
        protocol::send(&stream, &request, stdio.each_ref().map(|fd| fd.as_fd()))
            .expect("init reads requests");
        let mut answers = BufReader::new(stream.try_clone().expect("dup"));
        let pid = match answer(&mut answers) {
            Some(Answer::Started(pid)) => pid,
            other => panic!("cannot start `{line}`: {other:?}"),
        };
        Running {
            line,
            pid,
            stream,
            answers,
            stdin: None,
            stdout: Collector::none(),
            stderr: Collector::none(),
        }
    }

    fn whole_argv(&self) -> Vec<String> {
        let mut argv = Vec::new();
        if self.sailor {
            let id = SAILOR.to_string();
            argv.extend(
                ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--"].map(str::to_owned),
            );
        }
        argv.extend(self.argv.iter().cloned());
        argv
    }

    fn whole_env(&self) -> Vec<(String, String)> {
        let root = self.host.path().to_string_lossy();
        let mut env = vec![
            (
                "PATH".to_owned(),
                format!("{root}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("TERM".to_owned(), "xterm".to_owned()),
        ];
        if self.sailor {
            env.push(("HOME".to_owned(), format!("{root}/home")));
            env.push(("USER".to_owned(), "sailor".to_owned()));
            env.push(("XDG_RUNTIME_DIR".to_owned(), format!("/run/user/{SAILOR}")));
        } else {
            // Not the machine's: `davit login` writes there.
            env.push(("HOME".to_owned(), format!("{root}/root")));
            env.push(("DAVIT_STATE_DIR".to_owned(), format!("{root}/state")));
            env.push(("DAVIT_RUN_DIR".to_owned(), "/run/davit".to_owned()));
            env.push(("DAVIT_CONFIG_DIR".to_owned(), format!("{root}/config")));
        }
        for key in ["DAVIT_LOG", "RUST_BACKTRACE", "LLVM_PROFILE_FILE"] {
            env.extend(std::env::var(key).ok().map(|value| (key.to_owned(), value)));
        }
        env.extend(self.env.iter().cloned());
        env
    }
}

fn answer(answers: &mut BufReader<UnixStream>) -> Option<Answer> {
    let mut line = String::new();
    answers.read_line(&mut line).ok().filter(|n| *n > 0)?;
    serde_json::from_str(&line).ok()
}

/// A command that runs; dropping it kills it.
#[derive(Debug)]
pub struct Running {
    line: String,
    /// Its pid on the private host.
    pub pid: i32,
    stream: UnixStream,
    answers: BufReader<UnixStream>,
    stdin: Option<File>,
    stdout: Collector,
    stderr: Collector,
}

impl Running {
    /// Waits for its end, and for its output to close: a daemon that keeps a command's output open is an error.
    #[track_caller]
    pub fn wait(mut self) -> Ran {
        drop(self.stdin.take());
        let code = match answer(&mut self.answers) {
            Some(Answer::Ended(code)) => code,
            other => panic!("did not end ({other:?}): {}", self.so_far()),
        };
        for (name, output) in [("stdout", &mut self.stdout), ("stderr", &mut self.stderr)] {
            assert!(output.finish(), "{name} of `{}` is still open after its end", self.line);
        }
        Ran { code, ..self.so_far() }
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        (&self.stream)
            .write_all(&[signal as u8])
            .unwrap_or_else(|e| panic!("`{}` has ended: {e}", self.line));
    }

    /// Writes to its standard input, which [`Start::open_stdin`] kept open.
    #[track_caller]
    pub fn write(&mut self, text: &str) {
        self.stdin.as_mut().expect("started with open_stdin").write_all(text.as_bytes()).expect("it reads");
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until its standard output contains `part`.
    #[track_caller]
    pub fn until(&self, part: &str) {
        eventually(&format!("`{}` prints {part:?}", self.line), || {
            let now = self.so_far();
            if now.stdout.contains(part) { Ok(()) } else { Err(now.to_string()) }
        });
    }

    /// What it has printed until now; the code is meaningless.
    pub fn so_far(&self) -> Ran {
        Ran { line: self.line.clone(), code: -1, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }
}

/// A thread that collects what a descriptor gives.
#[derive(Debug)]
struct Collector {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Collector {
    fn none() -> Self {
        Self { bytes: Arc::default(), reader: None }
    }

    fn start(from: OwnedFd) -> Self {
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let collected = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut from = File::from(from);
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                collected.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..n]);
            }
        });
        Self { bytes, reader: Some(reader) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Whether the descriptor has closed, or does so soon.
    fn finish(&mut self) -> bool {
        let Some(reader) = self.reader.take() else { return true };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !reader.is_finished() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }
}
