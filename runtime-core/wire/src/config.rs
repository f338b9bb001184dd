//! What a monitor is told when it is started and when it creates its container.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::health::HealthCheck;

/// Written by runtimed as `monitor.json` in the run directory before it starts the monitor as `davit-monitor RUN_DIR`.
///
/// Files in the run directory (all of them the monitor's, but for `monitor.json` and `bundle/config.json`):
///
/// ```text
/// monitor.json          this
/// monitor.sock          the monitor's socket, mode 0600
/// monitor.pid           "PID START_TIME\n", written (rename) after the socket listens
/// bundle/config.json    the OCI config, written by runtimed before Request::Create
/// bundle/rootfs/        where the monitor mounts the root, in its own mount namespace
/// cowfs.log             what the server of the root wrote, where a program serves it
/// runtime/              --root of the OCI runtime
/// exit.json             the ExitRecord
/// exec/                 pid files and process files of exec sessions
/// userns                the container's user namespace, where it has one, in the monitor's mount namespace
/// layers                what the root is made of, with owners as that namespace shows them, the same
/// shared/N              `shared_sources` in the monitor's mount namespace
/// parts/N               `CreateSpec::parts`, the same
/// shm                   `CreateSpec::shm_of`, the same
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MonitorConfig {
    /// 64 hex digits.
    pub container_id: String,
    /// The user namespace of the container; none: the monitor's. The monitor brings it as `userns` in the run directory, and a network
    /// namespace that it makes belongs to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub userns: Option<UserNamespace>,
    /// Make a network namespace, bring its loopback up and live in it (bridge networks and `none`, which netd never hears of);
    /// false: stay in the host's or join `netns`.
    pub new_netns: bool,
    /// Join this network namespace (`container:` mode): a /proc/PID/ns/net path.
    pub netns: Option<PathBuf>,
    /// Where a second copy of the exit record goes, in durable state: `<dir>/exit.json`.
    pub state_dir: PathBuf,
    /// Removed as soon as it ends (`--rm`): the exit record is written to the run directory only, without fsync.
    pub ephemeral: bool,
    /// A pseudo-terminal is wanted.
    pub tty: bool,
    /// Keep stdin open; otherwise it is /dev/null.
    pub open_stdin: bool,
    /// Close stdin when the first client that attached with `stdin` says [`crate::Frame::StdinEof`] or leaves without
    /// [`crate::Frame::Detach`]. False: only the program itself ends its input.
    pub stdin_once: bool,
    /// A system container: its init ends by reboot(2), which the kernel shows as SIGHUP (reboot) or SIGINT (halt, power off) in a pid
    /// namespace; both are exit code 0.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub system: bool,
    /// Where output goes, unless [`CreateSpec::log`] says otherwise.
    pub log: LogSink,
    /// Output waits for its log in this many bytes, and what does not fit is dropped at once (docker's mode non-blocking). 0: the program
    /// waits, for as long as the log makes progress.
    #[serde(skip_serializing_if = "is_default")]
    pub log_buffer: u64,
    /// The OCI runtime.
    pub runtime: RuntimeCommand,
    /// Sources of binds with shared propagation. The monitor's namespace is a slave of the host's, so that nothing of it shows there;
    /// these are taken before it becomes one and stay peers of the host's mounts, as `shared/0`, `shared/1`, ... of the run directory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shared_sources: Vec<PathBuf>,
}

/// Where a user namespace comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserNamespace {
    /// Join that of this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<Process>,
    /// Otherwise a new one with these lines of uid_map, see user_namespaces(7).
    pub uid_map: String,
    /// And these of gid_map.
    pub gid_map: String,
}

impl UserNamespace {
    /// The uid and gid that its root has outside.
    pub fn root(&self) -> Option<(u32, u32)> {
        let of = |map: &str| {
            map.lines().find_map(|line| {
                let mut words = line.split_whitespace();
                (words.next()? == "0").then(|| words.next()?.parse().ok())?
            })
        };
        Some((of(&self.uid_map)?, of(&self.gid_map)?))
    }
}

/// An OCI runtime's command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeCommand {
    /// Absolute path of the binary.
    pub path: PathBuf,
    /// Arguments before the subcommand.
    pub args: Vec<String>,
    /// After so many seconds a call is killed and has failed; 0: 120.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout_s: u32,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Where the monitor writes the program's output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "driver")]
pub enum LogSink {
    /// Nowhere.
    #[default]
    None,
    /// docker's json-file: one object a line, {"log":"...","stream":"stdout","attrs":{...},"time":"RFC 3339 with nanoseconds"}.
    JsonFile(FileLog),
    /// Entries of docker's local driver: length (u32, big endian), protobuf LogEntry, the length again. It has no `attrs`.
    Local(FileLog),
    /// The journal of systemd, by its native protocol.
    Journald(JournalLog),
}

/// A log in files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileLog {
    /// The current file; older ones get .1, .2, ...
    pub path: PathBuf,
    /// Rotate at this size; 0: never.
    pub max_size: u64,
    /// How many files are kept, the current one included; at least 1.
    pub max_files: u32,
    /// Rotated files are gzipped, and end in .gz.
    #[serde(skip_serializing_if = "is_false")]
    pub compress: bool,
    /// Written with each line.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attrs: BTreeMap<String, String>,
}

/// A log in the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JournalLog {
    /// journald's datagram socket.
    pub socket: PathBuf,
    /// Sent with each line, beside MESSAGE and PRIORITY.
    pub fields: BTreeMap<String, String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What [`crate::Request::Create`] carries: known only after storage and network have answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreateSpec {
    /// Mounted in order in the monitor's mount namespace; targets are relative to `bundle/rootfs`.
    pub mounts: Vec<Mount>,
    /// Parts of volumes, as `parts/0`, `parts/1`, ... of the run directory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// Where output goes, where that depends on the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogSink>,
    /// How its health is found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// /dev/shm of the container with this first process, as `shm` of the run directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_of: Option<Process>,
    /// Kernel parameters of the network namespace that the monitor is in, for runtimes that refuse to set them from there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
}

/// A process, and not another one that got its number later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// In the monitor's pid namespace.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat.
    pub start_time: u64,
}

/// A file or directory beneath a directory that other containers may change: it is opened without following any link, and what was opened is
/// what is mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Part {
    /// Absolute.
    pub directory: PathBuf,
    /// Relative to it; empty: itself.
    pub subpath: String,
    /// Owners are shown through the map of the container's user namespace.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub idmap: bool,
}

/// A mount description in containerd's shape.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mount {
    /// `overlay`, `bind`, `fuse.davit-cowfs`, ...
    pub r#type: String,
    /// Device or directory.
    pub source: String,
    /// Options; for overlay one `lowerdir+=` each, topmost first.
    pub options: Vec<String>,
    /// Relative to the root file system; empty: the root itself.
    pub target: String,
    /// The program that serves a mount of type `fuse.davit-cowfs`, which can only be the root. The monitor runs it as its child for as
    /// long as the root is mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<PathBuf>,
}
