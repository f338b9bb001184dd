//! A second process without exec: clone3(2) with namespaces and cgroup, and what such a process sets on itself before it execs.
//!
//! Whoever calls [`clone_process`] must be single-threaded: the child goes on with a copy of the calling thread alone, so a lock that
//! another thread holds stays locked in it for ever. davit-runner is; a daemon is not and spawns an executable instead.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sched::CloneFlags;

pub mod channel;

/// Which side of a clone the caller is on.
#[derive(Debug)]
pub enum Cloned {
    /// In the new process.
    Child,
    /// In the old one.
    Parent {
        /// The child's pid as the caller's pid namespace numbers it.
        pid: i32,
        /// The child's pidfd, close-on-exec.
        pidfd: OwnedFd,
    },
}

/// A process could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CloneError {
    /// The caller has other threads.
    #[error("cannot clone a process that has {0} threads")]
    Threads(usize),
    /// clone3(2) failed.
    #[error("cannot clone a process with {flags:?}")]
    Clone {
        /// The namespaces asked for.
        flags: CloneFlags,
        /// Why.
        #[source]
        source: io::Error,
    },
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_PIDFD: u64 = 0x1000;

/// Clones the calling process as fork(2) does, into new namespaces (`flags`: CLONE_NEW*, CLONE_PARENT) and, on cgroup v2, directly into `cgroup`
/// (a directory's descriptor; Linux 5.7), which spares the migration and its RCU grace period.
pub fn clone_process(flags: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, CloneError> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(CloneError::Threads(threads));
    }
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: (flags.bits() as u32 as u64) | CLONE_PIDFD,
        pidfd: (&raw mut pidfd) as u64,
        // CLONE_PARENT takes the caller's own exit signal and refuses another.
        exit_signal: if flags.contains(CloneFlags::CLONE_PARENT) { 0 } else { libc::SIGCHLD as u64 },
        ..CloneArgs::default()
    };
    if let Some(dir) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a valid clone_args (version 2) that lives over the call, `pidfd` a writable int. Without CLONE_VM the child has its
    // own copy of memory and goes on on its own copy of this stack; the process has one thread (checked above), so no lock is left locked.
    let r = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match r {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => {
            // SAFETY: the kernel has stored a new descriptor that nobody else owns.
            Ok(Cloned::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
        }
        _ => Err(CloneError::Clone { flags, source: io::Error::last_os_error() }),
    }
}

/// Joins namespaces of the process behind a pidfd in one step (setns(2), Linux 5.8), or the one behind a namespace's descriptor.
pub fn setns(fd: BorrowedFd<'_>, flags: CloneFlags) -> io::Result<()> {
    // SAFETY: setns takes no memory; a thread-shared file system state makes it fail, not misbehave.
    check(unsafe { libc::setns(fd.as_raw_fd(), flags.bits()) }.into()).map(drop)
}

/// unshare(2) of namespaces only.
pub fn unshare(flags: CloneFlags) -> io::Result<()> {
    // SAFETY: only CLONE_NEW* flags are passed on, none of which affects memory or the descriptor table.
    check(unsafe { libc::unshare(flags.bits() & NAMESPACES) }.into()).map(drop)
}

const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP
    | NEWTIME;
const NEWTIME: i32 = 0x80;

/// Time namespaces (Linux 5.6): the flag that nix lacks.
pub const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(NEWTIME);

/// Marks every descriptor from `first` on close-on-exec (close_range(2), Linux 5.11).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: setting close-on-exec changes no memory and closes nothing now.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Hides the process from ptrace(2) and /proc/PID links of others without CAP_SYS_PTRACE (PR_SET_DUMPABLE).
pub fn set_undumpable() -> io::Result<()> {
    // SAFETY: integer arguments only.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }.into()).map(drop)
}

/// Gives every signal its default action and unblocks all: ignored signals and the mask would be inherited over exec.
pub fn reset_signals() -> io::Result<()> {
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP || signal == 32 || signal == 33 {
            continue;
        }
        // SAFETY: SIG_DFL installs no code; glibc refuses its own two signals, which are left out.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask().map_err(io::Error::from)
}

/// Gives the process a new session keyring, so that it does not share its parent's keys (keyctl(2)). Kernels without keyrings are no error.
pub fn new_session_keyring(name: &std::ffi::CStr) -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: the name is NUL-terminated and only read.
    let r = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    match check(r) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => other.map(drop),
    }
}

/// Asks to keep permitted capabilities over a change of uid from 0 (PR_SET_KEEPCAPS).
pub fn keep_capabilities(keep: bool) -> io::Result<()> {
    // SAFETY: integer arguments only.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(keep), 0, 0, 0) }.into()).map(drop)
}

/// Sets real, effective and saved gid and uid of this thread by the system calls themselves: glibc's wrappers would signal other threads.
pub fn set_ids(uid: u32, gid: u32, groups: Option<&[u32]>) -> io::Result<()> {
    if let Some(list) = groups {
        // SAFETY: pointer and length describe `list`, which is only read.
        check(unsafe { libc::syscall(libc::SYS_setgroups, list.len(), list.as_ptr()) })?;
    }
    // SAFETY: integer arguments only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: integer arguments only.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Makes the terminal behind `fd` the controlling one of this session (which must have been made by setsid(2)).
pub fn set_controlling_terminal(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// Makes `fd` descriptor 0, 1 or 2 too, without close-on-exec.
pub fn replace_stdio(fd: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    assert!((0..=2).contains(&target), "stdio is descriptors 0 to 2");
    // SAFETY: the standard descriptors are never owned by an OwnedFd of ours; dup3's target is one of them.
    let r = unsafe {
        if fd.as_raw_fd() == target {
            libc::fcntl(target, libc::F_SETFD, 0)
        } else {
            libc::dup3(fd.as_raw_fd(), target, 0)
        }
    };
    check(r.into()).map(drop)
}

/// Brings the loopback device of this network namespace up (netdevice(7): SIOCSIFFLAGS).
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: ifreq is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: `request` is a valid ifreq with a terminated name; the kernel only reads it.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into()).map(drop)
}

/// kill(2) by number: real-time signals too.
pub fn kill_raw(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: integer arguments only.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

fn check(r: libc::c_long) -> io::Result<libc::c_long> {
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_cloned() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let t = std::thread::spawn(move || wait.recv());
        assert!(matches!(clone_process(CloneFlags::empty(), None), Err(CloneError::Threads(n)) if n > 1));
        drop(go);
        t.join().unwrap().unwrap_err();
    }
}
