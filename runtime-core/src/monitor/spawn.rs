//! Starting a monitor and knowing when it listens.
//!
//! The monitor writes `monitor.pid` once its socket listens; an inotify watch tells us without polling. Its process is our child
//! until we end; a small task reaps it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use davit_wire::MonitorConfig;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};

use super::link::{Connected, connect};
use crate::container::dirs::RunDir;
use crate::error::{RuntimeError, io_error};
use crate::readable;

/// How long a monitor may take until it listens.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts a monitor in a run directory that exists, and connects to it.
pub async fn spawn(
    program: &Path,
    run: &RunDir,
    id: &str,
    config: &MonitorConfig,
) -> Result<Connected, RuntimeError> {
    let json = serde_json::to_vec(config).expect("plain structs always serialise");
    std::fs::write(run.monitor_config(), json).map_err(io_error("write", &run.monitor_config()))?;
    let watch = watch(run.path()).map_err(io_error("watch", run.path()))?;
    let failed = |why: String| RuntimeError::MonitorStart { id: id[..12.min(id.len())].to_owned(), why };
    let log = File::create(run.monitor_log()).map_err(io_error("create", &run.monitor_log()))?;
    let mut command = Command::new(program);
    // What our supervisor told us is not the container's: an OCI runtime would answer NOTIFY_SOCKET for it.
    for key in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
        command.env_remove(key);
    }
    let mut child = command
        .arg(run.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .current_dir("/")
        .spawn()
        .map_err(|e| failed(format!("{}: {e}", program.display())))?;
    let up = tokio::time::timeout(PATIENCE, listening(&watch, run, &mut child)).await;
    let why = match up {
        Ok(Ok(())) => match connect(&run.socket()).await {
            Ok(connected) => {
                reap(child);
                return Ok(connected);
            }
            Err(e) => davit_contracts::Error::from_error(davit_contracts::Kind::Internal, &e).to_string(),
        },
        Ok(Err(why)) => why,
        Err(_) => format!("it did not listen within {} s", PATIENCE.as_secs()),
    };
    let _ = child.kill().await;
    Err(failed(last_words(&run.monitor_log()).unwrap_or(why)))
}

fn watch(dir: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&fd, dir, inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CREATE)?;
    readable::watch(fd)
}

/// Waits until `monitor.pid` is there. An error is the monitor's end, or the system's refusal.
async fn listening(watch: &AsyncFd<OwnedFd>, run: &RunDir, child: &mut Child) -> Result<(), String> {
    let mut buffer = [0u8; 4096];
    loop {
        if run.monitor_pid().exists() {
            return Ok(());
        }
        tokio::select! {
            ready = watch.readable() => {
                let mut ready = ready.map_err(|e| e.to_string())?;
                // What happened does not matter, only that something did: the names are not looked at.
                while rustix::io::read(watch.get_ref(), &mut buffer).is_ok() {}
                ready.clear_ready();
            }
            status = child.wait() => {
                return Err(status.map_or_else(|e| e.to_string(), |s| format!("it ended with {s}")));
            }
        }
    }
}

fn reap(mut child: Child) {
    tokio::spawn(async move {
        let _ = child.wait().await;
    });
}

/// The last line that a monitor wrote to its stderr.
fn last_words(log: &PathBuf) -> Option<String> {
    let text = std::fs::read(log).ok()?;
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned();
    text.lines().rev().map(str::trim).find(|l| !l.is_empty()).map(str::to_owned)
}
