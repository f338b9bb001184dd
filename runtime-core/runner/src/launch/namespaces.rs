//! Which namespaces are made by the clone, and which are joined before it.
//!
//! The runner itself enters the existing network, IPC, UTS, time and pid namespaces just before the clone: the child then is in
//! them from birth, with the runner's rights over them (a child in a user namespace of its own would lack those).

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use davit_sys::fork::{self, Cloned, channel::Channel};
use nix::sched::CloneFlags;

use crate::error::{Context, Error, Result};
use crate::spec::{NamespaceKind as Kind, Spec};

/// The CLONE_NEW* flags of the first process. The cgroup namespace comes later, inside its cgroup; the time namespace is made before.
pub fn clone_flags(spec: &Spec) -> CloneFlags {
    let by_clone = [Kind::User, Kind::Pid, Kind::Network, Kind::Mount, Kind::Ipc, Kind::Uts];
    by_clone.into_iter().filter(|k| spec.linux.makes(*k)).map(Kind::flag).collect()
}

/// What the runner left to join the container's namespaces.
#[derive(Debug, Default)]
pub struct Left(Vec<(Kind, File)>);

/// Joins what is to be joined; remembers what is to be returned to.
pub fn join_before_clone(spec: &Spec) -> Result<Left> {
    let mut left = Left::default();
    let has_hooks = spec.hooks.is_some();
    for kind in [Kind::Network, Kind::Ipc, Kind::Uts, Kind::Time, Kind::Pid] {
        let Some(path) = spec.linux.joins(kind) else { continue };
        let file =
            File::open(path).context(|| format!("open the {} namespace {}", kind.file(), path.display()))?;
        // In another time namespace start times of processes would be read as others than everybody else reads.
        if kind == Kind::Time || (has_hooks && kind != Kind::Pid) {
            let own = format!("/proc/self/ns/{}", kind.file());
            left.0.push((kind, File::open(&own).context(|| format!("open {own}"))?));
        }
        fork::setns(file.as_fd(), kind.flag())
            .context(|| format!("join the {} namespace {}", kind.file(), path.display()))?;
    }
    if spec.linux.makes(Kind::Time) {
        fork::unshare(fork::CLONE_NEWTIME).context(|| "make a time namespace")?;
        for (clock, offset) in &spec.linux.time_offsets {
            let line = format!("{clock} {} {}", offset.secs, offset.nanosecs);
            fs::write("/proc/self/timens_offsets", &line).context(|| format!("move the clock ({line})"))?;
        }
    }
    Ok(left)
}

impl Left {
    /// Goes back, so that hooks run, and clocks are read, in the runtime's namespaces.
    pub fn restore(self, _spec: &Spec) -> Result<()> {
        for (kind, file) in self.0 {
            fork::setns(file.as_fd(), kind.flag())
                .context(|| format!("return to the {} namespace", kind.file()))?;
        }
        Ok(())
    }
}

/// Clones into an existing user namespace.
pub fn clone_in_user_namespace(path: &Path, flags: CloneFlags) -> Result<Cloned> {
    let file = File::open(path).context(|| format!("open the user namespace {}", path.display()))?;
    let join = || {
        fork::setns(file.as_fd(), Kind::User.flag())
            .context(|| format!("join the user namespace {}", path.display()))
    };
    clone_through(join, flags)
}

/// Clones by way of a middle process that first enters a user namespace (`join`): the child is made there, as the middle's sibling,
/// so that new namespaces belong to that user namespace while the runner stays outside.
pub fn clone_through(join: impl FnOnce() -> Result<()>, flags: CloneFlags) -> Result<Cloned> {
    let (ours, theirs) = Channel::pair().context(|| "make a channel")?;
    match fork::clone_process(CloneFlags::empty(), None)? {
        Cloned::Child => {
            drop(ours);
            let cloned = join()
                .and_then(|()| fork::set_ids(0, 0, None).context(|| "become root of the user namespace"))
                .and_then(|()| Ok(fork::clone_process(flags | CloneFlags::CLONE_PARENT, None)?));
            let (text, fds): (String, Vec<OwnedFd>) = match cloned {
                Ok(Cloned::Child) => return Ok(Cloned::Child),
                Ok(Cloned::Parent { pidfd, .. }) => (String::new(), vec![pidfd]),
                Err(e) => (e.chain(), vec![]),
            };
            let text = format!("={text}");
            let _ = theirs.send(text.as_bytes(), &fds.iter().map(AsFd::as_fd).collect::<Vec<_>>());
            std::process::exit(0)
        }
        Cloned::Parent { pid: middle, .. } => {
            drop(theirs);
            let received = ours.receive().context(|| "hear from the process in the user namespace")?;
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(middle), None);
            let text = String::from_utf8_lossy(&received.bytes).into_owned();
            match received.fds.into_iter().next() {
                // The middle process may count pids in another namespace: the descriptor tells ours.
                Some(pidfd) => Ok(Cloned::Parent { pid: pid_of(&pidfd)?, pidfd }),
                None if text.len() < 2 => Err(Error::Vanished),
                None => Err(Error::Inside(text[1..].to_owned())),
            }
        }
    }
}

fn pid_of(pidfd: &OwnedFd) -> Result<i32> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = fs::read_to_string(&path).context(|| format!("read {path}"))?;
    let pid = text.lines().find_map(|l| l.strip_prefix("Pid:")?.trim().parse().ok());
    pid.filter(|p| *p > 0).ok_or(Error::Vanished)
}
