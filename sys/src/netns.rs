//! Work inside another network namespace, done by a thread of its own that ends with the work (setns(2), namespaces(7)).
//!
//! A socket belongs to the namespace that its thread was in when it was opened, whoever uses it later. So the way to
//! act in a namespace is: visit it on a fresh thread, open sockets there, and hand them back. No thread of a pool ever
//! changes its namespace, and none can be left behind in the wrong one.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Stack of a visiting thread. Visits open sockets and exchange a few small netlink messages.
const STACK: usize = 128 << 10;

/// Why a namespace could not be visited.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// No thread could be made.
    #[error("cannot start a thread for another network namespace")]
    Thread(#[source] io::Error),
    /// setns(2) refused.
    #[error("cannot enter the network namespace")]
    Enter(#[source] io::Error),
    /// The calling thread's own namespace could not be opened.
    #[error("cannot open /proc/thread-self/ns/net")]
    Own(#[source] io::Error),
    /// A namespace that somebody keeps by a mount could not be opened.
    #[error("cannot open {path}")]
    Open {
        /// Where it was said to be.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is there is something else.
    #[error("{0} is no network namespace")]
    Other(PathBuf),
    /// The kernel does not tell where a socket is.
    #[error("cannot tell in which network namespace a socket is")]
    Socket(#[source] io::Error),
    /// What tells it from others could not be read.
    #[error("cannot tell which network namespace it is")]
    Identify(#[source] io::Error),
}

/// `NSFS_MAGIC` (linux/magic.h): the file system of namespaces.
const NSFS: i64 = 0x6e73_6673;
/// `SO_NETNS_COOKIE` (socket(7), Linux 5.14) of the common numbering of socket options.
const SO_NETNS_COOKIE: libc::c_int = 71;
/// `SIOCGSKNS` (linux/sockios.h, Linux 4.9): a descriptor of a socket's network namespace.
const SIOCGSKNS: libc::c_ulong = 0x894c;

/// Which network namespace it is, among all that there are until the machine ends.
///
/// The kernel soon gives a former namespace's inode number to the next one; the cookie it never gives twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetnsId {
    /// Device of the namespace's file.
    pub device: u64,
    /// Inode number of the namespace's file.
    pub inode: u64,
    /// `SO_NETNS_COOKIE`; 0 on kernels before 5.14.
    pub cookie: u64,
}

/// Opens a network namespace that is kept by a mount, such as /run/netns/x, or named by /proc/PID/ns/net.
///
/// # Errors
/// Nothing is there, or it is something else: a file, a pipe, a namespace of another kind (`NS_GET_NSTYPE`, ioctl_ns(2)).
pub fn open(path: &Path) -> Result<OwnedFd, NetnsError> {
    // Without O_NONBLOCK a pipe in its place would keep us waiting.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let failed = |e: rustix::io::Errno| NetnsError::Open { path: path.to_owned(), source: e.into() };
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
    let system = rustix::fs::fstatfs(&fd).map_err(failed)?;
    if system.f_type != NSFS {
        return Err(NetnsError::Other(path.to_owned()));
    }
    // SAFETY: NS_GET_NSTYPE takes no argument and writes no memory.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE) };
    if kind != libc::CLONE_NEWNET {
        return Err(NetnsError::Other(path.to_owned()));
    }
    Ok(fd)
}

/// Tells which namespace it is.
pub fn identify(netns: BorrowedFd<'_>) -> Result<NetnsId, NetnsError> {
    let stat = rustix::fs::fstat(netns).map_err(|e| NetnsError::Identify(e.into()))?;
    let cookie = visit(netns, own_cookie)?.map_err(NetnsError::Identify)?;
    Ok(NetnsId { device: stat.st_dev, inode: stat.st_ino, cookie })
}

fn own_cookie() -> io::Result<u64> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: `cookie` and `length` live through the call, and `length` says how large `cookie` is.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        return Ok(cookie);
    }
    match io::Error::last_os_error() {
        e if e.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(0),
        e => Err(e),
    }
}

/// Opens the network namespace that a socket belongs to, whoever has it (`SIOCGSKNS`). Needs `CAP_NET_ADMIN` there.
///
/// # Errors
/// It is no socket, or the namespace is not ours to open.
pub fn of_socket(socket: BorrowedFd<'_>) -> Result<OwnedFd, NetnsError> {
    // SAFETY: SIOCGSKNS takes no argument and writes no memory.
    let fd = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS as _) };
    if fd < 0 {
        return Err(NetnsError::Socket(io::Error::last_os_error()));
    }
    // SAFETY: the kernel has just made the descriptor (close-on-exec), and nobody else has its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs `work` in the namespace `netns` on a thread that exists for nothing else, and waits for it.
///
/// A panic of `work` goes on in the caller.
///
/// # Errors
/// The thread could not be made or could not enter; `work` did not run then.
pub fn visit<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    thread::scope(|scope| {
        let visitor = thread::Builder::new()
            .name("netns-visit".into())
            .stack_size(STACK)
            .spawn_scoped(scope, move || {
                setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|e| NetnsError::Enter(e.into()))?;
                Ok(work())
            })
            .map_err(NetnsError::Thread)?;
        visitor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Opens the calling thread's network namespace.
pub fn own() -> Result<OwnedFd, NetnsError> {
    std::fs::File::open("/proc/thread-self/ns/net").map(Into::into).map_err(NetnsError::Own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_namespace_is_refused_and_the_work_does_not_run() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut ran = false;
        let result = visit(null.as_fd(), || ran = true);
        assert!(matches!(result, Err(NetnsError::Enter(_))));
        assert!(!ran);
    }

    #[test]
    fn a_socket_tells_its_namespace_and_a_file_has_none() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(matches!(of_socket(null.as_fd()), Err(NetnsError::Socket(_))));
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let netns = of_socket(socket.as_fd());
        if !nix::unistd::geteuid().is_root() {
            // Only who may change a namespace is told which it is.
            let refused = |e: &io::Error| e.raw_os_error() == Some(libc::EPERM);
            assert!(matches!(netns, Err(NetnsError::Socket(e)) if refused(&e)));
            return;
        }
        let netns = netns.unwrap();
        let flags = rustix::io::fcntl_getfd(&netns).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        assert_eq!(identify(netns.as_fd()).unwrap(), identify(own().unwrap().as_fd()).unwrap());
    }

    #[test]
    fn only_a_network_namespace_is_opened_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for other in [Path::new("/proc/self/ns/mnt"), Path::new("/dev/null"), &pipe] {
            assert!(matches!(open(other), Err(NetnsError::Other(_))), "{}", other.display());
        }
        assert!(matches!(open(Path::new("/nowhere")), Err(NetnsError::Open { .. })));
        let id = |path: &str| identify(open(Path::new(path)).unwrap().as_fd()).unwrap();
        assert_eq!(id("/proc/self/ns/net"), id("/proc/thread-self/ns/net"));
    }
}
