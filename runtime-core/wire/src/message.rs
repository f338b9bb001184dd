//! What the frames say.

use serde::{Deserialize, Serialize};

use crate::config::CreateSpec;
use crate::health::{Health, ProbeResult};

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// First frame of a client.
    Hello(Hello),
    /// The monitor's answer to it.
    Welcome(Welcome),
    /// Control: a numbered request.
    Request {
        /// Chosen by the client; the answer carries it again.
        id: u64,
        /// What is asked.
        request: Request,
    },
    /// Control: success.
    Reply {
        /// The request's number.
        id: u64,
        /// What came of it.
        reply: Reply,
    },
    /// Control and attach: a refused request (id 0: a refused Hello).
    Failed {
        /// The request's number.
        id: u64,
        /// Why.
        failure: Failure,
    },
    /// Control: something happened.
    Event(Event),
    /// Attach, to the monitor: input bytes.
    Stdin(Vec<u8>),
    /// Attach, from the monitor: output bytes (with a terminal everything is stdout).
    Stdout(Vec<u8>),
    /// Attach, from the monitor: error output bytes.
    Stderr(Vec<u8>),
    /// Attach, to the monitor: no more input; output goes on.
    StdinEof,
    /// Attach, to the monitor: the client's terminal size.
    Resize {
        /// Lines.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// Attach, to the monitor: send this signal number to the program.
    Signal(i32),
    /// Attach, from the monitor: the program has ended and its record is on disk; last frame.
    Exit(ExitRecord),
    /// Attach, from the monitor: the program runs now.
    Started {
        /// Its pid as the monitor sees it.
        pid: i32,
    },
    /// Attach, to the monitor: leaving on purpose (detach keys); stdin stays open.
    Detach,
}

/// Who the client is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::PROTOCOL_VERSION`] of the client.
    pub version: u32,
    /// What it wants to be.
    pub role: Role,
}

/// The two uses of a monitor's socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Requests and events.
    Control,
    /// Streams of the container or of one exec session.
    Attach(Attach),
}

/// What to attach to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attach {
    /// None: the container's main program.
    pub exec_id: Option<String>,
    /// This client will send input.
    pub stdin: bool,
    /// This client wants standard output.
    pub stdout: bool,
    /// This client wants standard error.
    pub stderr: bool,
    /// Send what the monitor's ring still holds first.
    pub replay: bool,
    /// The client's terminal size, applied before the program is started where it is held for this client.
    pub size: Option<(u16, u16)>,
}

/// The monitor's answer to a Hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`crate::PROTOCOL_VERSION`] of the monitor.
    pub version: u32,
    /// Where it stands.
    pub state: MonitorState,
    /// Whether the attached program has a terminal.
    pub tty: bool,
}

/// Everything that a runtimed needs to know to take over a monitor that it did not start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorState {
    /// The container's id.
    pub container_id: String,
    /// The monitor's own pid.
    pub monitor_pid: i32,
    /// Field 22 of the monitor's /proc/PID/stat.
    pub monitor_start_time: u64,
    /// Where the container stands.
    pub phase: Phase,
    /// The container's first process; 0 before it was created.
    pub pid: i32,
    /// When the program was started, nanoseconds since 1970; 0 before.
    pub started_unix_ns: i64,
    /// Set once it ended.
    pub exit: Option<ExitRecord>,
    /// Running exec sessions, held ones included.
    pub execs: Vec<String>,
    /// The last exec sessions that ended (at most 64), oldest first: for a runtimed that was away when they did.
    #[serde(default)]
    pub exec_exits: Vec<ExecExit>,
    /// What it can beyond the first monitors: requests that those would not understand.
    #[serde(default)]
    pub features: Vec<String>,
    /// Bytes of output that could not be written to the log (full or stuck disk, full buffer).
    #[serde(default)]
    pub log_dropped_bytes: u64,
    /// Why, the last time that it happened.
    #[serde(default)]
    pub log_error: String,
    /// Where a health check is configured.
    #[serde(default)]
    pub health: Option<Health>,
    /// The kernel's OOM killer struck in its cgroup.
    #[serde(default)]
    pub oom_killed: bool,
}

/// The monitor knows [`Request::Update`].
pub const FEATURE_UPDATE: &str = "update";

/// How an exec session ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecExit {
    /// Which.
    pub exec_id: String,
    /// How.
    pub record: ExitRecord,
}

/// Phases of a monitor, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Namespaces are there; waits for [`Request::Create`].
    Ready,
    /// The runtime has created the container; the program waits.
    Created,
    /// The program runs.
    Running,
    /// Frozen.
    Paused,
    /// The program has ended; the record is on disk.
    Exited,
}

/// What runtimed asks of a monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Mount the root (and what else `mounts` holds) below `bundle/rootfs` and nothing more, so that runtimed can read the image's
    /// user database through /proc/MONITOR/root while the network is still being wired. Legal once, in [`Phase::Ready`]; the
    /// `Create` that follows carries no mounts. Reply: [`Reply::Mounted`].
    Mount(Box<CreateSpec>),
    /// Mount the root, unless [`Request::Mount`] did, and run the OCI runtime's `create`. Reply: [`Reply::Created`].
    Create(Box<CreateSpec>),
    /// Run the program now, or (hold) as soon as a client has attached. Reply: [`Reply::Started`], for hold at once with pid 0... the event follows.
    Start {
        /// Wait for the first attached client.
        hold_for_attach: bool,
    },
    /// Send a signal to the program (or with `all` to every process of the container). Reply: [`Reply::Done`].
    Kill {
        /// Signal number.
        signal: i32,
        /// Every process in the container.
        all: bool,
    },
    /// Freeze. Reply: [`Reply::Done`].
    Pause,
    /// Thaw. Reply: [`Reply::Done`].
    Resume,
    /// Other limits: an OCI `resources` object, with only what changes. Reply: [`Reply::Done`]. Only monitors
    /// with the feature [`FEATURE_UPDATE`] know it.
    Update {
        /// The object as a string.
        resources: String,
    },
    /// Run one more program inside. Reply: [`Reply::Started`].
    Exec(Box<ExecSpec>),
    /// Try now whether it is healthy; the result counts as any other. Reply: [`Reply::Probed`].
    Probe,
    /// Where it stands. Reply: [`Reply::State`].
    State,
    /// Remove what the OCI runtime keeps, unmount and exit. Only after the program ended (otherwise it is killed first).
    /// Reply: [`Reply::Done`], then the connection closes.
    Shutdown,
}

/// Success of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Nothing more to say.
    Done,
    /// The mounts are there.
    Mounted {
        /// Microseconds that it took.
        us: u32,
    },
    /// The container exists; its first process waits.
    Created {
        /// That process.
        pid: i32,
        /// Microseconds: mounting, the runtime's create, in the order done.
        stage_us: Vec<(String, u32)>,
    },
    /// The program runs (pid 0: it is held until a client attaches).
    Started {
        /// Its pid.
        pid: i32,
    },
    /// What a probe came to.
    Probed(ProbeResult),
    /// See [`Request::State`].
    State(Box<MonitorState>),
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// One line for a person.
    pub message: String,
}

/// Kinds that a client treats differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Exit code 127.
    CommandNotFound,
    /// Exit code 126.
    CommandNotRunnable,
    /// Not legal in this phase.
    WrongState,
    /// A value that cannot be.
    InvalidArgument,
    /// No such exec session.
    NotFound,
    /// The two sides speak different protocol versions.
    Version,
    /// The OCI runtime, or the system, failed.
    Internal,
}

/// State changes, sent to every control connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The program runs.
    Started {
        /// Its pid.
        pid: i32,
        /// When.
        unix_ns: i64,
    },
    /// A start that was held for a client failed.
    StartFailed(Failure),
    /// The program has ended; the record is on disk.
    Exited(ExitRecord),
    /// An exec session runs.
    ExecStarted {
        /// Which.
        exec_id: String,
        /// Its pid.
        pid: i32,
    },
    /// An exec session ended.
    ExecExited {
        /// Which.
        exec_id: String,
        /// How.
        record: ExitRecord,
    },
    /// A probe has ended.
    Health(Health),
    /// The OOM killer struck; the program may go on without the process that was killed.
    Oom {
        /// "killed: memory limit 64M, peak 64M, by pid 7 python3".
        report: String,
    },
    /// Output could not be logged. At most one a second.
    LogDropped {
        /// All that were dropped since the start.
        bytes: u64,
        /// Why, the last time.
        why: String,
    },
}

/// How a program ended. Written to `exit.json` (write, fsync, rename) before anyone is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExitRecord {
    /// The exit code as docker shows it: 128+n after signal n; 126 or 127 when it never ran.
    pub code: i32,
    /// The signal, if one ended it.
    pub signal: Option<i32>,
    /// The kernel's OOM killer struck in its cgroup.
    pub oom_killed: bool,
    /// Nanoseconds since 1970; 0 when it never ran.
    pub started_unix_ns: i64,
    /// Nanoseconds since 1970.
    pub finished_unix_ns: i64,
    /// Why it never ran, why the engine ended it, or what the OOM killer did; empty normally.
    pub error: String,
    /// Of a system container: it asked to be booted again (reboot(2)).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reboot: bool,
    /// Bytes of output that are not in the log.
    #[serde(skip_serializing_if = "is_zero")]
    pub log_dropped_bytes: u64,
    /// Why, the last time that it happened.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log_error: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// One more program inside a running container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// 64 hex digits.
    pub exec_id: String,
    /// The OCI `process` object as JSON text (`args`, `env`, `cwd`, `user`, `capabilities`, `terminal`, ...).
    pub process: String,
    /// A pseudo-terminal is wanted (as in `process.terminal`).
    pub tty: bool,
    /// Keep stdin open for an attached client; otherwise it is /dev/null.
    pub stdin: bool,
    /// Begin only when a client has attached to it.
    pub hold_for_attach: bool,
}
