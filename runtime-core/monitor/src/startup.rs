//! From a fresh process to a monitor that can be connected to: its own session, namespaces, signals, socket and pid file.
//!
//! The socket listens, and `monitor.pid` says so, before the namespaces are made, so that runtimed connects meanwhile; the answer to its Hello comes from the loop and
//! so proves that they are there.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use davit_sys::mount::MountError;
use davit_sys::process::{ProcessError, ProcessRef};
use davit_sys::userns;
use davit_wire::MonitorConfig;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fs::Mode;

use crate::staging;

/// Why a monitor could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// `monitor.json` is missing or unreadable.
    #[error("cannot read {path}")]
    ReadConfig {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `monitor.json` is no configuration.
    #[error("{path} is no monitor configuration")]
    ParseConfig {
        /// Which file.
        path: PathBuf,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Another monitor answers on the socket of this run directory.
    #[error("a monitor is already running for {0}")]
    AlreadyRunning(PathBuf),
    /// A file of the run directory could not be made.
    #[error("cannot make {path}")]
    Make {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The network namespace to join cannot be joined.
    #[error("cannot join the network namespace {path}")]
    JoinNetns {
        /// From the configuration.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The container's user namespace, or its network namespace in it.
    #[error("cannot {operation} the container's user namespace")]
    Userns {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// unshare(2) failed.
    #[error("cannot make a mount{} namespace", if *.net { " and a network" } else { "" })]
    Unshare {
        /// A network namespace was wanted too.
        net: bool,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A bind with shared propagation could not be taken along.
    #[error("cannot share {path} with the container")]
    Share {
        /// Its source, or its place in the run directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The mount namespace could not be cut off from the host's.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Signals, subreaper or epoll could not be set up.
    #[error("cannot set up {what}")]
    Process {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The monitor could not name itself.
    #[error(transparent)]
    Itself(#[from] ProcessError),
}

/// What the loop begins with.
#[derive(Debug)]
pub struct Prepared {
    /// The configuration.
    pub config: MonitorConfig,
    /// The run directory.
    pub run_dir: PathBuf,
    /// `monitor.sock`, not blocking.
    pub listener: UnixListener,
    /// SIGCHLD, and the signals that a monitor does not react to.
    pub signals: SignalFd,
    /// This process.
    pub this: ProcessRef,
    /// The guard against the OOM killer.
    pub oom: OomShield,
}

/// Does all of it.
pub fn prepare(run_dir: &Path) -> Result<Prepared, StartupError> {
    let config = read_config(&run_dir.join("monitor.json"))?;
    // EPERM: a session leader already.
    let _ = nix::unistd::setsid();
    let signals = take_signals()?;
    let itself = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(itself))
        .map_err(|e| StartupError::Process { what: "the subreaper attribute", source: e.into() })?;
    let listener = listen(&run_dir.join("monitor.sock"))?;
    let this = ProcessRef::this()?;
    write_pid_file(run_dir, this)?;
    isolate(&config, run_dir)?;
    let oom = OomShield::raise();
    Ok(Prepared { config, run_dir: run_dir.to_owned(), listener, signals, this, oom })
}

fn read_config(path: &Path) -> Result<MonitorConfig, StartupError> {
    let text = fs::read(path).map_err(|source| StartupError::ReadConfig { path: path.into(), source })?;
    serde_json::from_slice(&text).map_err(|source| StartupError::ParseConfig { path: path.into(), source })
}

/// SIGTERM, SIGINT and SIGHUP mean nothing to a monitor (a logout or a shutdown script must not take the record of its container). They are
/// blocked and not ignored, because an ignored signal would stay ignored in the container, while spawning resets the mask.
fn take_signals() -> Result<SignalFd, StartupError> {
    let failed = |e: nix::Error| StartupError::Process { what: "signals", source: e.into() };
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block().map_err(failed)?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)
}

/// A socket file that nobody answers on is a dead monitor's.
fn listen(path: &Path) -> Result<UnixListener, StartupError> {
    let failed = |source| StartupError::Make { path: path.into(), source };
    if path.exists() {
        if UnixStream::connect(path).is_ok() {
            return Err(StartupError::AlreadyRunning(path.parent().unwrap_or(path).into()));
        }
        fs::remove_file(path).map_err(failed)?;
    }
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener.map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn isolate(config: &MonitorConfig, run_dir: &Path) -> Result<(), StartupError> {
    if let Some(path) = &config.netns {
        let failed = |source| StartupError::JoinNetns { path: path.clone(), source };
        let netns = fs::File::open(path).map_err(failed)?;
        nix::sched::setns(netns, CloneFlags::CLONE_NEWNET).map_err(|e| failed(e.into()))?;
    }
    let net = config.new_netns && config.netns.is_none();
    let (userns, in_userns) = user_namespace(config, net)?;
    let mut flags = CloneFlags::CLONE_NEWNS;
    flags.set(CloneFlags::CLONE_NEWNET, net && !in_userns);
    nix::sched::unshare(flags).map_err(|e| StartupError::Unshare { net, source: e.into() })?;
    if net {
        davit_sys::loopback::bring_up()
            .map_err(|source| StartupError::Process { what: "the loopback interface", source })?;
    }
    let failed = |(path, source)| StartupError::Share { path, source };
    let shared = staging::take(&config.shared_sources).map_err(failed)?;
    davit_sys::mount::make_all_slaves()?;
    staging::place(&run_dir.join("shared"), &shared).map_err(failed)?;
    if let Some(userns) = userns {
        let failed = |source| StartupError::Userns { operation: "mount", source };
        let tree = davit_sys::rootfs::clone_tree(userns.as_fd(), Path::new(""), false).map_err(failed)?;
        staging::place_one(&run_dir.join(staging::USERNS), tree.as_fd()).map_err(failed)?;
    }
    Ok(())
}

/// The container's user namespace; true: this process is in a new network namespace that belongs to it.
fn user_namespace(config: &MonitorConfig, net: bool) -> Result<(Option<OwnedFd>, bool), StartupError> {
    let failed = |operation| move |source| StartupError::Userns { operation, source };
    let Some(wanted) = &config.userns else { return Ok((None, false)) };
    let (user, network) = if let Some(p) = wanted.join {
        let process = ProcessRef { pid: p.pid, start_time: p.start_time };
        let user = process.namespace("user")?;
        let network = net.then(|| userns::network_in(user.as_fd())).transpose();
        (user, network.map_err(failed("make a network namespace in"))?)
    } else {
        let made = userns::mapped(&wanted.uid_map, &wanted.gid_map, net).map_err(failed("make"))?;
        (made.user, made.net)
    };
    let in_userns = network.is_some();
    if let Some(network) = network {
        nix::sched::setns(network, CloneFlags::CLONE_NEWNET)
            .map_err(|e| failed("join the network namespace in")(e.into()))?;
    }
    Ok((Some(user), in_userns))
}

fn write_pid_file(run_dir: &Path, this: ProcessRef) -> Result<(), StartupError> {
    let path = run_dir.join("monitor.pid");
    let text = format!("{} {}\n", this.pid, this.start_time);
    replace_file(&path, text.as_bytes(), false)
        .map_err(|source| StartupError::Make { path: path.clone(), source })
}

/// Writes a file beside `path` and renames it there, so that a reader sees all or nothing. `durable`: with fsync before the rename.
pub fn replace_file(path: &Path, content: &[u8], durable: bool) -> io::Result<()> {
    let mut name = path.to_owned().into_os_string();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = fs::File::create(&new)?;
    io::Write::write_all(&mut file, content)?;
    if durable {
        file.sync_all()?;
    }
    fs::rename(new, path)
}

/// Keeps the OOM killer away from the monitor and not from what it starts. Does nothing without the privilege (CAP_SYS_RESOURCE).
#[derive(Debug)]
pub struct OomShield {
    before: Option<String>,
}

const OOM_FILE: &str = "/proc/self/oom_score_adj";

impl OomShield {
    fn raise() -> Self {
        let before = fs::read_to_string(OOM_FILE).ok();
        let raised = fs::write(OOM_FILE, "-999").is_ok();
        Self { before: before.filter(|_| raised) }
    }

    /// Runs `spawn` with the value that the monitor itself was started with: children inherit it.
    pub fn without<T>(&self, spawn: impl FnOnce() -> T) -> T {
        let Some(before) = &self.before else { return spawn() };
        let _ = fs::write(OOM_FILE, before);
        let result = spawn();
        let _ = fs::write(OOM_FILE, "-999");
        result
    }
}
