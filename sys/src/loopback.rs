//! The loopback interface of a network namespace that has just been made: it is there, and down (netdevice(7)).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Sets `lo` of the calling thread's network namespace up. The kernel gives it 127.0.0.1/8 and ::1 by itself.
pub fn bring_up() -> io::Result<()> {
    let kind = SocketType::DGRAM;
    let socket: OwnedFd = rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
    // SAFETY: an all-zero ifreq is a valid one: it is made of integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads the ifreq, which lives through the call; the name is terminated by its zeros.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
