//! The run directory as the supervisor owns it: the lock, and the sockets that vanish with it.

use std::cell::RefCell;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use davit_layout::Layout;
use davit_sys::process::ProcessRef;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::fs::{FlockOperation, flock};

/// A claimed run directory. Sockets bound through it are unlinked at the end.
#[derive(Debug)]
pub struct Place {
    run: PathBuf,
    socket_mode: u32,
    /// What was bound: path, device and inode.
    bound: RefCell<Vec<(PathBuf, (u64, u64))>>,
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
        Ok(Some(Self { run: layout.run.clone(), socket_mode, bound: RefCell::default(), _lock: lock }))
    }

    /// Binds one daemon's socket, in place of one that a dead supervisor left.
    pub fn daemon_listener(&self, path: &Path) -> Result<UnixListener> {
        self.listener(path, self.socket_mode)
    }

    /// Binds the control socket: only the owner's.
    pub fn control_listener(&self) -> Result<UnixListener> {
        let listener = self.listener(&self.run.join("supervisor.sock"), 0o600)?;
        listener.set_nonblocking(true).context("cannot make the control socket non-blocking")?;
        Ok(listener)
    }

    fn listener(&self, path: &Path, mode: u32) -> Result<UnixListener> {
        let _ = fs::remove_file(path);
        let listener = UnixListener::bind(path).with_context(|| format!("cannot bind {}", path.display()))?;
        fs::set_permissions(path, Permissions::from_mode(mode))
            .with_context(|| format!("cannot set the mode of {}", path.display()))?;
        self.note(path.to_owned());
        Ok(listener)
    }

    fn note(&self, path: PathBuf) {
        if let Some(identity) = identity(&path) {
            self.bound.borrow_mut().push((path, identity));
        }
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
        self.note(path);
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
        for (path, ours) in self.bound.borrow().iter() {
            if identity(path) == Some(*ours) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

/// Who serves a daemon's socket that no supervisor has bound, as `davit-netd` does that an administrator started.
///
/// The kernel tells who called listen(2). Of a socket that a dead supervisor handed over that is the supervisor: a daemon of
/// its, if there is still one, is ending.
pub fn server(path: &Path) -> Option<i32> {
    let stream = UnixStream::connect(path).ok()?;
    let pid = getsockopt(&stream, PeerCredentials).ok()?.pid();
    is_alive(pid).then_some(pid)
}

/// Whether there is a process of this pid.
pub fn is_alive(pid: i32) -> bool {
    ProcessRef::of(pid).is_ok_and(|p| p.is_alive())
}
