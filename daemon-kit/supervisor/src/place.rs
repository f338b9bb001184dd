//! The run directory as the supervisor owns it: the lock, and the sockets that vanish with it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use davit_layout::Layout;
use rustix::fs::{FlockOperation, flock};

/// A claimed run directory. Sockets bound through it are unlinked at the end.
#[derive(Debug)]
pub struct Place {
    run: PathBuf,
    socket_mode: u32,
    /// Held for our lifetime.
    _lock: File,
}

impl Place {
    /// Makes the run directory and takes its lock; none when another supervisor has it.
    pub fn claim(layout: &Layout) -> Result<Option<Self>> {
        // Root's directory is open so that members of the sockets' group reach them; a user's is nobody else's business.
        let mode = if layout.rootless { 0o700 } else { 0o755 };
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(&layout.run)
            .with_context(|| format!("cannot make {}", layout.run.display()))?;
        let path = layout.supervisor_lock();
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot lock {}", path.display())),
        }
        let socket_mode = if layout.rootless { 0o600 } else { 0o660 };
        Ok(Some(Self { run: layout.run.clone(), socket_mode, _lock: lock }))
    }

    /// Binds one daemon's socket, in place of one that a dead supervisor left.
    pub fn daemon_listener(&self, path: &Path) -> Result<UnixListener> {
        Self::listener(path, self.socket_mode)
    }

    /// Binds the control socket: only the owner's.
    pub fn control_listener(&self) -> Result<UnixListener> {
        let listener = Self::listener(&self.run.join("supervisor.sock"), 0o600)?;
        listener.set_nonblocking(true).context("cannot make the control socket non-blocking")?;
        Ok(listener)
    }

    fn listener(path: &Path, mode: u32) -> Result<UnixListener> {
        let _ = fs::remove_file(path);
        let listener = UnixListener::bind(path).with_context(|| format!("cannot bind {}", path.display()))?;
        fs::set_permissions(path, Permissions::from_mode(mode))
            .with_context(|| format!("cannot set the mode of {}", path.display()))?;
        Ok(listener)
    }

    /// Where daemons send sd_notify(3) messages. A path, because an abstract name would end at netd's network namespace.
    pub fn notify_path(&self) -> PathBuf {
        self.run.join("notify.sock")
    }

    /// Binds it.
    pub fn notify_socket(&self) -> Result<UnixDatagram> {
        let path = self.notify_path();
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).with_context(|| format!("cannot bind {}", path.display()))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))
            .with_context(|| format!("cannot set the mode of {}", path.display()))?;
        socket.set_nonblocking(true).context("cannot make the notify socket non-blocking")?;
        rustix::net::sockopt::set_socket_passcred(&socket, true)
            .context("cannot ask for the senders' credentials")?;
        Ok(socket)
    }
}

/// Takes the run directory, or finds the supervisor that has it listening; one that neither listens nor lets go is waited for.
pub fn claim_or_find(layout: &Layout) -> Result<Option<Place>> {
    let path = layout.supervisor_socket();
    let give_up = Instant::now() + Duration::from_secs(15);
    loop {
        if let Some(place) = Place::claim(layout)? {
            return Ok(Some(place));
        }
        match UnixStream::connect(&path) {
            Ok(_) => return Ok(None),
            Err(_) if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(5)),
            Err(e) => {
                return Err(e).with_context(|| {
                    format!("another supervisor runs but does not answer at {}", path.display())
                });
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for name in ["storaged.sock", "netd.sock", "runtimed.sock", "supervisor.sock", "notify.sock"] {
            let _ = fs::remove_file(self.run.join(name));
        }
    }
}
