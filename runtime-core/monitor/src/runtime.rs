//! The OCI runtime as a child process: its command line, its log, and what its failures mean.
//!
//! A runtime process is never waited for in place: the loop reaps it and comes back with its status.

mod failure;

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use davit_wire::config::RuntimeCommand;
use davit_wire::{Failure, FailureKind};

use crate::startup::OomShield;
use crate::stdio::Status;

/// How to call the OCI runtime for one container.
#[derive(Debug)]
pub struct Runtime {
    command: RuntimeCommand,
    run_dir: PathBuf,
    container_id: String,
    oom: OomShield,
    calls: u32,
}

/// A call that is under way.
#[derive(Debug)]
pub struct Call {
    /// The runtime's process.
    pub pid: i32,
    /// Where it writes its log and, unless the program got it, its standard error.
    log: PathBuf,
    begun: Instant,
    /// It was killed because it took this long.
    overdue: Option<(PathBuf, Duration)>,
}

/// Descriptors that the runtime, and through it the program, gets as 0, 1 and 2. Missing ones are /dev/null and, for 2, the call's log.
#[derive(Debug, Default)]
pub struct ProgramEnds {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

impl Call {
    /// Ends it with whatever it has started and left in its process group.
    pub fn kill(&self) {
        // Not waited for yet, so the group is its own.
        let _ =
            nix::sys::signal::killpg(nix::unistd::Pid::from_raw(self.pid), nix::sys::signal::Signal::SIGKILL);
    }

    /// What a finished call comes to. `program` is the command that it was to start, `stderr` what it wrote into the program's standard error.
    pub fn outcome(
        &self,
        status: Status,
        program: Option<&str>,
        stderr: impl FnOnce() -> Vec<u8>,
    ) -> Result<(), Failure> {
        let result = if status.succeeded() {
            Ok(())
        } else if let Some((path, patience)) = &self.overdue {
            let (path, seconds) = (path.display(), patience.as_secs());
            let message =
                format!("the OCI runtime {path} did not come back within {seconds} s and was killed");
            Err(Failure { kind: FailureKind::Internal, message })
        } else {
            let log = fs::read(&self.log).unwrap_or_default();
            Err(failure::explain(&log, &stderr(), status, program))
        };
        let _ = fs::remove_file(&self.log);
        result
    }
}

impl Runtime {
    /// Nothing is run yet.
    pub fn new(command: RuntimeCommand, run_dir: &Path, container_id: &str, oom: OomShield) -> Self {
        Self { command, run_dir: run_dir.into(), container_id: container_id.into(), oom, calls: 0 }
    }

    /// How long a call may still take.
    pub fn patience(&self, call: &Call, now: Instant) -> Option<Duration> {
        let left = (call.begun + self.allowed()).saturating_duration_since(now);
        call.overdue.is_none().then_some(left)
    }

    fn allowed(&self) -> Duration {
        Duration::from_secs(if self.command.timeout_s == 0 { 120 } else { self.command.timeout_s.into() })
    }

    /// Kills a call that takes too long: whoever waits for it gets to know, and what it left half done is deleted with the container.
    pub fn hurry(&self, call: &mut Call, now: Instant) {
        if self.patience(call, now) == Some(Duration::ZERO) {
            call.overdue = Some((self.command.path.clone(), self.allowed()));
            call.kill();
        }
    }

    /// Starts `RUNTIME ARGS --root R --log F --log-format json VERB OPTIONS ID AFTER`.
    pub fn call(
        &mut self,
        verb: &str,
        options: &[OsString],
        after: &[&str],
        ends: ProgramEnds,
    ) -> Result<Call, Failure> {
        self.calls += 1;
        let log = self.run_dir.join(format!("call{}.log", self.calls));
        let spawned = self.spawn(&log, verb, options, after, ends);
        let begun = Instant::now();
        spawned.map(|pid| Call { pid, log: log.clone(), begun, overdue: None }).map_err(|e| {
            let _ = fs::remove_file(&log);
            let path = self.command.path.display();
            Failure {
                kind: FailureKind::Internal,
                message: format!("cannot run the OCI runtime {path}: {e}; is it installed?"),
            }
        })
    }

    fn spawn(
        &self,
        log: &Path,
        verb: &str,
        options: &[OsString],
        after: &[&str],
        ends: ProgramEnds,
    ) -> io::Result<i32> {
        let open = |fd: Option<OwnedFd>| fd.map_or_else(Stdio::null, Stdio::from);
        let errors = match ends.stderr {
            Some(fd) => Stdio::from(fd),
            None => Stdio::from(OpenOptions::new().append(true).create(true).open(log)?),
        };
        let mut command = Command::new(&self.command.path);
        command
            .args(&self.command.args)
            .arg("--root")
            .arg(self.run_dir.join("runtime"))
            .arg("--log")
            .arg(log)
            .args(["--log-format", "json", verb])
            .args(options)
            .arg(&self.container_id)
            .args(after)
            .stdin(open(ends.stdin))
            .stdout(open(ends.stdout))
            .stderr(errors)
            // So that what it has started itself can be killed with it.
            .process_group(0);
        // The child is reaped by the loop's waitpid, so the handle is only good for its pid.
        let child = self.oom.without(|| command.spawn())?;
        Ok(child.id() as i32)
    }

    /// The program named in an OCI `process` object or in the `process` of an OCI config, for explaining a failure.
    pub fn program_of(json: &[u8]) -> Option<String> {
        let value: serde_json::Value = serde_json::from_slice(json).ok()?;
        let process = value.get("process").unwrap_or(&value);
        Some(process.get("args")?.get(0)?.as_str()?.to_owned())
    }
}

/// `--flag value` for [`Runtime::call`].
pub fn option(flag: &str, value: impl AsRef<OsStr>) -> [OsString; 2] {
    [flag.into(), value.as_ref().into()]
}
