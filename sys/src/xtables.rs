//! The kernel's older packet filter tables (linux/netfilter_ipv4/ip_tables.h): how large they are. It tells of no changes, so
//! who wants to know compares.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`.
const GET_INFO: libc::c_int = 64;

/// `struct ipt_getinfo`; IPv6's is the same.
#[repr(C)]
struct Info {
    name: [u8; 32],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    entries: u32,
    size: u32,
}

/// Entries and bytes of a table of the calling thread's network namespace. A table that was not there is made, empty.
///
/// # Errors
/// getsockopt(2) or socket(2): EPERM without CAP_NET_ADMIN, ENOENT where the kernel lacks the table.
pub fn size(table: &str, ipv6: bool) -> io::Result<(u32, u32)> {
    let (family, level) =
        if ipv6 { (libc::AF_INET6, libc::IPPROTO_IPV6) } else { (libc::AF_INET, libc::IPPROTO_IP) };
    // SAFETY: plain numbers; the result is checked.
    let raw = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let mut info =
        Info { name: [0; 32], valid_hooks: 0, hook_entry: [0; 5], underflow: [0; 5], entries: 0, size: 0 };
    let name = table.as_bytes();
    if name.len() >= info.name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    info.name[..name.len()].copy_from_slice(name);
    let mut len = size_of::<Info>() as libc::socklen_t;
    // SAFETY: `info` is as large as `len` says, and the kernel writes no more than that.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, GET_INFO, (&raw mut info).cast(), &raw mut len)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok((info.entries, info.size)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_no_kernel_has_is_an_error() {
        assert!(size("no-such-table", false).is_err());
        assert!(size(&"x".repeat(32), false).is_err());
    }
}
