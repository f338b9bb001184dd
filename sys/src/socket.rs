//! Unix sockets: descriptors handed over by a supervisor (sd_listen_fds(3)), readiness (sd_notify(3)), fd store.

use std::env;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

/// First descriptor that sd_listen_fds(3) hands over.
const LISTEN_FDS_START: RawFd = 3;

/// A descriptor that the supervisor handed over, with the name it goes by.
#[derive(Debug)]
pub struct ListenFd {
    /// From LISTEN_FDNAMES; `unknown` when none was given.
    pub name: String,
    /// The descriptor, close-on-exec.
    pub fd: OwnedFd,
}

/// Takes the descriptors that the supervisor handed over: LISTEN_PID must name us. Each call after the first gives
/// none, because a descriptor can be owned only once.
pub fn take_listen_fds() -> Vec<ListenFd> {
    static TAKEN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    if TAKEN.swap(true, std::sync::atomic::Ordering::SeqCst) {
        return Vec::new();
    }
    let number = |key| env::var(key).ok().and_then(|v| v.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").unwrap_or(0).min(1024) as RawFd;
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    (LISTEN_FDS_START..LISTEN_FDS_START + count)
        .filter_map(|raw| {
            let name = names.next().filter(|n| !n.is_empty()).unwrap_or("unknown").to_owned();
            // SAFETY: F_SETFD on a number that is no open descriptor fails with EBADF and changes nothing.
            let ok = unsafe { libc::fcntl(raw, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
            // SAFETY: the protocol gives us these descriptors to own, the fcntl above showed that this one is open, and the flag
            // above ensures that nobody takes them twice.
            ok.then(|| ListenFd { name, fd: unsafe { OwnedFd::from_raw_fd(raw) } })
        })
        .collect()
}

/// Tells the supervisor about our state, such as `READY=1` or `STOPPING=1`. Without NOTIFY_SOCKET nothing is done.
pub fn notify(state: &str) -> io::Result<()> {
    send_notify(state, &[])
}

/// Hands descriptors to the supervisor to keep over our restart: they come back by [`take_listen_fds`] under `name`.
/// Gives false when there is no supervisor to keep them.
pub fn store_fds(name: &str, fds: &[BorrowedFd<'_>]) -> io::Result<bool> {
    if env::var_os("NOTIFY_SOCKET").is_none() {
        return Ok(false);
    }
    send_notify(&format!("FDSTORE=1\nFDNAME={name}"), fds)?;
    Ok(true)
}

/// Asks the supervisor to forget stored descriptors of this name.
pub fn remove_stored_fds(name: &str) -> io::Result<()> {
    notify(&format!("FDSTOREREMOVE=1\nFDNAME={name}"))
}

fn send_notify(state: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let bytes = path.as_bytes();
    let socket = UnixDatagram::unbound()?;
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&path)?,
    };
    if fds.is_empty() {
        socket.send_to_addr(state.as_bytes(), &address)?;
        return Ok(());
    }
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => UnixAddr::new_abstract(name)?,
        None => UnixAddr::new(bytes)?,
    };
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let text = [io::IoSlice::new(state.as_bytes())];
    sendmsg(
        socket.as_raw_fd(),
        &text,
        &[ControlMessage::ScmRights(&raw)],
        MsgFlags::empty(),
        Some(&address),
    )?;
    Ok(())
}
