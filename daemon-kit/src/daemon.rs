//! From a built domain to a serving daemon, and to its orderly end.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use davit_contracts::plugin::plugin_server::PluginServer;
use davit_contracts::version::{PLUGIN, Version};
use davit_sys::socket;
use rustix::fs::{Mode, OFlags};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tracing_subscriber::EnvFilter;

use crate::paths::Layout;
pub use crate::plugin::{HealthSource, degraded, failed, ok};
use crate::plugin::{PluginService, unix_ms};

/// How long calls under way may take once the daemon was told to end. Streams that never end by themselves (followed logs, waits) are
/// cut then; their clients reconnect.
const DRAIN: Duration = Duration::from_secs(2);

/// Sends log lines to stderr; DAVIT_LOG filters (tracing-subscriber's EnvFilter words), default `info`.
pub fn init_tracing(short: &str) {
    let filter = EnvFilter::try_from_env("DAVIT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // What cannot be written is lost: complaining about it on the same full disk would end the daemon.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .log_internal_errors(false);
    // A second call (tests in one process) keeps the first.
    let _ = builder.try_init();
    tracing::debug!(daemon = short, "tracing is on");
}

/// Why a socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process serves it.
    #[error("{path} is already served by another process")]
    InUse {
        /// Which socket.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The daemon's listening socket: handed over by a supervisor, or bound by us.
#[derive(Debug)]
pub struct Listener {
    inner: StdUnixListener,
    rootless: bool,
    own: Option<OwnSocket>,
}

/// A socket's file that nobody else removes: it goes with the daemon, unless another daemon has bound the path meanwhile.
#[derive(Debug)]
struct OwnSocket {
    path: PathBuf,
    /// The file itself: held, so that no other one gets its inode number.
    file: OwnedFd,
}

impl OwnSocket {
    /// That which was just bound at a path.
    fn bound(path: PathBuf) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::empty()).ok()?;
        Some(Self { path, file })
    }

    fn is_there(&self) -> bool {
        let there = rustix::fs::lstat(&self.path).map(|s| (s.st_dev, s.st_ino));
        there.is_ok() && there == rustix::fs::fstat(&self.file).map(|s| (s.st_dev, s.st_ino))
    }
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Takes the socket that the supervisor handed over, which keeps it, or binds `run/<short>.sock`: 0660 for root, 0600 for a user.
    pub fn bind(layout: &Layout, short: &str) -> Result<Self, ListenError> {
        match take_listener() {
            Some(inner) => Ok(Self { inner, rootless: layout.rootless, own: None }),
            None => Self::bind_beside(layout, short),
        }
    }

    /// Binds `run/<short>.sock` for what the daemon serves besides its own contract; never handed over.
    pub fn bind_beside(layout: &Layout, short: &str) -> Result<Self, ListenError> {
        let path = layout.socket(short);
        let inner = Self::bind_path(&path, if layout.rootless { 0o600 } else { 0o660 })?;
        Ok(Self { inner, rootless: layout.rootless, own: OwnSocket::bound(path) })
    }

    /// The connections of those who may call.
    fn incoming(
        self,
    ) -> io::Result<impl tokio_stream::Stream<Item = io::Result<UnixStream>> + Send + 'static> {
        self.inner.set_nonblocking(true)?;
        let socket = UnixListener::from_std(self.inner)?;
        let rootless = self.rootless;
        Ok(UnixListenerStream::new(socket).filter(move |c| c.as_ref().map_or(true, |c| allowed(c, rootless))))
    }

    fn bind_path(path: &Path, mode: u32) -> Result<StdUnixListener, ListenError> {
        let io = |operation| {
            let path = path.to_owned();
            move |source| ListenError::Io { operation, path, source }
        };
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .map_err(io("create the directory of"))?;
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(ListenError::InUse { path: path.to_owned() });
        }
        // The state directory's lock is what keeps two daemons apart; a socket that nobody answers is left from a crash.
        let _ = fs::remove_file(path);
        let listener = StdUnixListener::bind(path).map_err(io("bind"))?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io("set the mode of"))?;
        Ok(listener)
    }
}

fn take_listener() -> Option<StdUnixListener> {
    // Stored descriptors (FDSTORE) come through the same door; the first one is the socket.
    socket::take_listen_fds().into_iter().next().map(|l| StdUnixListener::from(l.fd))
}

/// Why serving ended with an error.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket cannot be used.
    #[error("cannot serve the socket")]
    Socket(#[source] io::Error),
    /// The gRPC server failed.
    #[error("the gRPC server failed")]
    Server(#[source] tonic::transport::Error),
}

/// A daemon as it presents itself.
pub struct Daemon {
    name: &'static str,
    version: &'static str,
    contracts: Vec<Version>,
    capabilities: Vec<String>,
    details: BTreeMap<String, String>,
    state_dir: PathBuf,
    stop: watch::Sender<bool>,
    beside: Vec<(Listener, Routes)>,
}

impl Daemon {
    /// A daemon called `name` (`davit-netd`) that speaks `contracts` besides `davit.plugin`.
    pub fn new(name: &'static str, version: &'static str, contracts: &[Version]) -> Self {
        let mut all = vec![PLUGIN];
        all.extend_from_slice(contracts);
        Self {
            name,
            version,
            contracts: all,
            capabilities: Vec::new(),
            details: BTreeMap::new(),
            state_dir: PathBuf::new(),
            stop: watch::Sender::new(false),
            beside: Vec::new(),
        }
    }

    /// Serves a contract of somebody else's on a socket of its own, for as long as the daemon runs.
    #[must_use]
    pub fn with_beside(mut self, listener: Listener, routes: Routes) -> Self {
        self.beside.push((listener, routes));
        self
    }

    /// Adds a capability word, such as `driver:overlay`.
    #[must_use]
    pub fn with_capability(mut self, word: impl Into<String>) -> Self {
        self.capabilities.push(word.into());
        self
    }

    /// Adds a detail that `davit status` shows.
    #[must_use]
    pub fn with_detail(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.details.insert(key.into(), value.into());
        self
    }

    /// Names the state directory.
    #[must_use]
    pub fn with_state_dir(mut self, path: &Path) -> Self {
        path.clone_into(&mut self.state_dir);
        self
    }

    /// Becomes true when the daemon has been told to end: tasks and endless streams finish then.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Serves until SIGTERM, SIGINT or `Plugin.Shutdown`, then lets calls under way finish for at most two seconds.
    pub async fn serve(
        mut self,
        mut listener: Listener,
        routes: Routes,
        health: Arc<dyn HealthSource>,
    ) -> Result<(), ServeError> {
        // Removed when we return.
        let mut own_sockets: Vec<_> = listener.own.take().into_iter().collect();
        let incoming = listener.incoming().map_err(ServeError::Socket)?;
        watch_signals(self.stop.clone()).map_err(ServeError::Socket)?;
        let plugin = PluginService {
            name: self.name,
            version: self.version,
            contracts: self.contracts.iter().map(|v| (*v).into()).collect(),
            capabilities: self.capabilities,
            details: self.details,
            state_dir: self.state_dir.display().to_string(),
            started_at_unix_ms: unix_ms(),
            health,
            stop: self.stop.clone(),
        };
        let routes = routes.add_service(PluginServer::new(plugin));
        for (mut listener, routes) in self.beside.drain(..) {
            own_sockets.extend(listener.own.take());
            let incoming = listener.incoming().map_err(ServeError::Socket)?;
            let serving = Server::builder()
                .add_routes(routes)
                .serve_with_incoming_shutdown(incoming, ended(self.stop.subscribe()));
            tokio::spawn(async move {
                if let Err(e) = serving.await {
                    tracing::error!(error = %e, "a socket beside the daemon's own is not served any more");
                }
            });
        }
        let serving = Server::builder()
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, ended(self.stop.subscribe()));

        tracing::info!(daemon = self.name, version = self.version, "ready");
        if let Err(e) = socket::notify("READY=1") {
            tracing::warn!(error = %e, "the supervisor cannot be told that we are ready");
        }
        let drained_late = async {
            ended(self.stop.subscribe()).await;
            let _ = socket::notify("STOPPING=1");
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            result = serving => result.map_err(ServeError::Server)?,
            () = drained_late => tracing::info!("cut streams that had not ended"),
        }
        drop(own_sockets);
        tracing::info!(daemon = self.name, "stopped");
        Ok(())
    }
}

async fn ended(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn watch_signals(stop: watch::Sender<bool>) -> io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    // Our log goes through a pipe of the supervisor's: its end must not be ours.
    let mut hup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                _ = hup.recv() => {}
            }
        }
        // Kept also while nobody waits for it yet.
        stop.send_replace(true);
    });
    Ok(())
}

/// The second fence behind the socket's file mode (SO_PEERCRED, unix(7)): root and our own user may; for root's daemon
/// also members of the socket's group, whom the mode 0660 let through.
fn allowed(connection: &UnixStream, rootless: bool) -> bool {
    let Ok(peer) = connection.peer_cred() else { return false };
    let me = rustix::process::geteuid().as_raw();
    if peer.uid() == 0 || peer.uid() == me {
        return true;
    }
    if !rootless && in_socket_group(connection, peer.gid(), peer.pid()) {
        return true;
    }
    tracing::warn!(peer.uid = peer.uid(), "refused a connection");
    false
}

fn in_socket_group(connection: &UnixStream, gid: u32, pid: Option<i32>) -> bool {
    let Some(path) = connection.local_addr().ok().and_then(|a| a.as_pathname().map(Path::to_owned)) else {
        return false;
    };
    let Ok(meta) = fs::metadata(path) else { return false };
    if meta.mode() & 0o020 == 0 {
        return false;
    }
    gid == meta.gid() || pid.is_some_and(|pid| supplementary_groups(pid).contains(&meta.gid()))
}

fn supplementary_groups(pid: i32) -> Vec<u32> {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return Vec::new() };
    status
        .lines()
        .find_map(|l| l.strip_prefix("Groups:"))
        .map(|l| l.split_whitespace().filter_map(|g| g.parse().ok()).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_that_comes_before_anybody_waits_for_it_is_kept() {
        let stop = watch::Sender::new(false);
        watch_signals(stop.clone()).unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
        let handled = async {
            while !*stop.borrow() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), handled).await.expect("the signal is lost");
        ended(stop.subscribe()).await;
    }
}
