//! User namespaces of a rootless instance: a holder process that keeps them, and joining it. user_namespaces(7), setns(2).
//!
//! A namespace lives as long as a process in it. The holder is a child that does nothing but sit in a user, a mount and a network
//! namespace, so that they outlive the supervisor, the daemons and every container of the instance.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{ForkResult, Pid, fork, pause, setsid};

use crate::fork::Cloned;
use crate::process::{ProcessError, ProcessRef};

/// Why a namespace could not be made or joined.
#[derive(Debug, thiserror::Error)]
pub enum UsernsError {
    /// A system call of ours failed.
    #[error("cannot {operation}")]
    Sys {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The new process could not make its namespaces.
    #[error("the kernel refuses a new {what}")]
    Refused {
        /// Which namespace.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The holder is gone.
    #[error("the process that holds the namespaces is gone")]
    Holder(#[from] ProcessError),
}

fn sys(operation: &'static str) -> impl FnOnce(nix::Error) -> UsernsError {
    move |e| UsernsError::Sys { operation, source: e.into() }
}

/// What the child reports, one byte; 0 is success.
const STEPS: [&str; 3] = [
    "user namespace (are unprivileged user namespaces switched off?)",
    "mount namespace",
    "network namespace",
];

/// Starts a process in a new user, mount and network namespace that does nothing until it is killed. Its ids are not mapped yet: write
/// /proc/PID/uid_map and gid_map (or have newuidmap(1) do it) from here.
///
/// The caller must be single-threaded: the child runs on after fork(2) without exec.
pub fn spawn_holder() -> Result<ProcessRef, UsernsError> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| UsernsError::Sys { operation: "make a pipe", source: e.into() })?;
    // SAFETY: the process has one thread (the caller's promise), so the child's copy of the address space is consistent.
    match unsafe { fork() }.map_err(sys("fork"))? {
        ForkResult::Child => hold(&write),
        ForkResult::Parent { child } => {
            drop(write);
            let mut answer = [0u8; 5];
            let n = rustix::io::read(&read, &mut answer).unwrap_or(0);
            let errno = i32::from_ne_bytes([answer[1], answer[2], answer[3], answer[4]]);
            match (n, answer[0]) {
                (5, 0) => Ok(ProcessRef::of(child.as_raw())?),
                (n, step) => {
                    reap(child);
                    let what = STEPS.get(usize::from(step).wrapping_sub(1)).copied().unwrap_or("process");
                    let source = if n == 5 {
                        io::Error::from_raw_os_error(errno)
                    } else {
                        io::Error::other("it died at once")
                    };
                    Err(UsernsError::Refused { what, source })
                }
            }
        }
    }
}

fn reap(child: Pid) {
    let _ = nix::sys::wait::waitpid(child, None);
}

/// The holder's life. Never returns.
fn hold(report: &OwnedFd) -> ! {
    let tell = |step: u8, errno: i32| {
        let mut message = [step, 0, 0, 0, 0];
        message[1..].copy_from_slice(&errno.to_ne_bytes());
        let _ = rustix::io::write(report, &message);
    };
    let steps = [CloneFlags::CLONE_NEWUSER, CloneFlags::CLONE_NEWNS, CloneFlags::CLONE_NEWNET];
    for (n, flag) in steps.into_iter().enumerate() {
        if let Err(e) = unshare(flag) {
            tell(n as u8 + 1, e as i32);
            // SAFETY: _exit(2) in a forked child; nothing of the parent's is flushed or dropped twice.
            unsafe { libc::_exit(1) }
        }
    }
    // What publishes on 127.0.0.1 needs it; netd works without, so a refusal is no reason to stop.
    let _ = crate::loopback::bring_up();
    // What happens to mounts on the host still arrives here, never the other way round.
    let _ = mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>);
    let _ = setsid();
    let _ = rustix::thread::set_name(c"davit-holder");
    tell(0, 0);
    quiet(report);
    // SIGTERM must end it whatever mask and handlers the parent had.
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    loop {
        pause();
    }
}

/// Lets go of everything inherited: terminals, pipes, locks and listening sockets belong to the parent.
fn quiet(report: &OwnedFd) {
    if let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
    let _ = report.as_raw_fd();
    // SAFETY: this process owns no descriptor above 2 that anything uses again: it only pauses from here on.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}

/// A user namespace that nobody is in, and a network namespace that belongs to it.
#[derive(Debug)]
pub struct Mapped {
    /// For id-mapped mounts, and to be joined.
    pub user: OwnedFd,
    /// Where one was asked for.
    pub net: Option<OwnedFd>,
}

/// Makes a user namespace with these maps (lines of uid_map, see user_namespaces(7)), which live as long as their descriptors. The caller is single-threaded.
pub fn mapped(uids: &str, gids: &str, net: bool) -> io::Result<Mapped> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut flags = CloneFlags::CLONE_NEWUSER;
    flags.set(CloneFlags::CLONE_NEWNET, net);
    match crate::fork::clone_process(flags, None).map_err(io::Error::other)? {
        Cloned::Child => {
            drop(write);
            // Until the parent has what it came for, or is gone.
            let _ = rustix::io::read(&read, &mut [0u8; 1]);
            // SAFETY: _exit(2) in a child that shares nothing with its parent; nothing is flushed or dropped twice.
            unsafe { libc::_exit(0) }
        }
        Cloned::Parent { pid, pidfd: _ } => {
            let open = |kind: &str| std::fs::File::open(format!("/proc/{pid}/ns/{kind}")).map(OwnedFd::from);
            let made = std::fs::write(format!("/proc/{pid}/uid_map"), uids)
                .and_then(|()| std::fs::write(format!("/proc/{pid}/gid_map"), gids))
                .and_then(|()| {
                    Ok(Mapped { user: open("user")?, net: net.then(|| open("net")).transpose()? })
                });
            drop(write);
            reap(Pid::from_raw(pid));
            made
        }
    }
}

/// Makes a network namespace that belongs to an existing user namespace. The caller is single-threaded.
pub fn network_in(user: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (told, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match crate::fork::clone_process(CloneFlags::empty(), None).map_err(io::Error::other)? {
        Cloned::Child => {
            drop((write, told));
            let made = crate::fork::setns(user, CloneFlags::CLONE_NEWUSER)
                .and_then(|()| crate::fork::unshare(CloneFlags::CLONE_NEWNET));
            let errno = made.err().map_or(0, |e| e.raw_os_error().unwrap_or(libc::EIO));
            let _ = rustix::io::write(&tell, &errno.to_ne_bytes());
            let _ = rustix::io::read(&read, &mut [0u8; 1]);
            // SAFETY: _exit(2) in a child that shares nothing with its parent; nothing is flushed or dropped twice.
            unsafe { libc::_exit(0) }
        }
        Cloned::Parent { pid, pidfd: _ } => {
            drop((read, tell));
            let mut errno = [0u8; 4];
            let n = rustix::io::read(&told, &mut errno).unwrap_or(0);
            let made = match i32::from_ne_bytes(errno) {
                0 if n == 4 => std::fs::File::open(format!("/proc/{pid}/ns/net")).map(OwnedFd::from),
                0 => Err(io::Error::other("the process that makes it died")),
                errno => Err(io::Error::from_raw_os_error(errno)),
            };
            drop(write);
            reap(Pid::from_raw(pid));
            made
        }
    }
}

/// Puts the calling, single-threaded process into the holder's user and mount namespaces. The network namespace stays its own.
pub fn join(holder: ProcessRef) -> Result<(), UsernsError> {
    // Both are opened first: afterwards we see /proc with other eyes.
    let user = holder.namespace("user")?;
    let mnt = holder.namespace("mnt")?;
    setns(&user, CloneFlags::CLONE_NEWUSER).map_err(sys("join the user namespace"))?;
    setns(&mnt, CloneFlags::CLONE_NEWNS).map_err(sys("join the mount namespace"))?;
    Ok(())
}

/// Leaves the terminal and the session of whoever started us: the parent ends at once with status 0, the child goes on in a session of
/// its own. Call it first thing in `main`, while there is one thread.
pub fn detach() -> Result<(), UsernsError> {
    // SAFETY: the process has one thread (the caller's promise), so the child's copy of the address space is consistent.
    match unsafe { fork() }.map_err(sys("fork"))? {
        // SAFETY: _exit(2) ends the parent without running destructors whose resources the child still uses.
        ForkResult::Parent { .. } => unsafe { libc::_exit(0) },
        ForkResult::Child => setsid().map(drop).map_err(sys("start a session")),
    }
}
