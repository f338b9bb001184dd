//! Seccomp filters (seccomp(2)): loading a program of classic BPF. The compiler of OCI profiles is davit-runner's.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// One classic BPF instruction, laid out as `struct sock_filter`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when true.
    pub jt: u8,
    /// Instructions to skip when false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// SECCOMP_FILTER_FLAG_LOG.
pub const FLAG_LOG: u32 = 1 << 1;
/// SECCOMP_FILTER_FLAG_SPEC_ALLOW.
pub const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// SECCOMP_FILTER_FLAG_NEW_LISTENER: [`load`] gives the notification descriptor.
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;

const SET_MODE_FILTER: libc::c_uint = 1;
const GET_ACTION_AVAIL: libc::c_uint = 2;

/// Loads a filter for the calling thread; needs no_new_privs or CAP_SYS_ADMIN. The descriptor is there with [`FLAG_NEW_LISTENER`].
pub fn load(program: &[Instruction], flags: u32) -> io::Result<Option<OwnedFd>> {
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const Instruction,
    }
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let prog = Program { len, filter: program.as_ptr() };
    // SAFETY: `prog` has the layout of struct sock_fprog and names `len` instructions that live over the call; the kernel copies them.
    let r = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const prog) };
    match r {
        r if r < 0 => Err(io::Error::last_os_error()),
        // SAFETY: with this flag the result is a new descriptor, ours alone.
        fd if flags & FLAG_NEW_LISTENER != 0 => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) })),
        _ => Ok(None),
    }
}

/// Whether the kernel knows the action (a SECCOMP_RET_* value without data).
pub fn action_available(action: u32) -> bool {
    // SAFETY: the kernel reads one u32 behind the pointer.
    unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_actions_are_available_and_nonsense_is_not() {
        assert!(action_available(0x7fff_0000)); // ALLOW
        assert!(action_available(0x0005_0000)); // ERRNO
        assert!(!action_available(0x1234_0000));
    }

    #[test]
    fn a_program_without_return_is_refused() {
        let load_nr = Instruction { code: 0x20, jt: 0, jf: 0, k: 0 };
        assert_eq!(load(&[load_nr], 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
