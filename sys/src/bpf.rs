//! Programs that decide about devices on cgroup v2 (bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE, Linux 4.15): loading, attaching, replacing.
//!
//! A program is kept by the cgroup that it is attached to and goes with it; no descriptor has to stay open.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One eBPF instruction, laid out as `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination register in the low four bits, source register in the high ones.
    pub registers: u8,
    /// Jump distance or memory offset.
    pub offset: i16,
    /// Operand.
    pub immediate: i32,
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;
const PROGRAM_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_TYPE_CGROUP_DEVICE: u32 = 6;
const FLAG_ALLOW_MULTI: u32 = 2;

/// The part of `union bpf_attr` that a command reads, zeros behind it.
fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: callers pass a repr(C) struct of integers laid out as the command's member of union bpf_attr, with its true size; the
    // memory behind its addresses lives over the call.
    let r = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r) }
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: only called with what a successful command of bpf(2) gave as a new descriptor, ours alone.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// Loads a device program. The kernel's verifier refuses (EINVAL, EACCES) one that has unreachable instructions or may not end.
pub fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        program_type: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    let mut attributes = Load {
        program_type: PROGRAM_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    bpf(PROG_LOAD, &mut attributes).map(owned)
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

fn attach(
    command: libc::c_int,
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    flags: u32,
) -> io::Result<()> {
    let mut attributes = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: ATTACH_TYPE_CGROUP_DEVICE,
        flags,
    };
    bpf(command, &mut attributes).map(drop)
}

/// Makes `program` the only device program of the cgroup whose directory is given: the new one is in force before the old ones go.
pub fn set_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let before = device_programs(cgroup)?;
    attach(PROG_ATTACH, cgroup, program, FLAG_ALLOW_MULTI)?;
    before.iter().try_for_each(|old| attach(PROG_DETACH, cgroup, std::os::fd::AsFd::as_fd(old), 0))
}

/// The device programs attached to a cgroup itself.
pub fn device_programs(cgroup: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    #[repr(C)]
    struct Query {
        target: u32,
        kind: u32,
        asked: u32,
        found: u32,
        ids: u64,
        count: u32,
        padding: u32,
    }
    #[repr(C)]
    struct ById {
        id: u32,
        next: u32,
        open_flags: u32,
    }
    let mut ids = [0u32; 64]; // the kernel allows 64 a cgroup
    let mut query = Query {
        target: cgroup.as_raw_fd() as u32,
        kind: ATTACH_TYPE_CGROUP_DEVICE,
        asked: 0,
        found: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        padding: 0,
    };
    bpf(PROG_QUERY, &mut query)?;
    let found = ids.iter().take(query.count as usize);
    found.map(|id| bpf(PROG_GET_FD_BY_ID, &mut ById { id: *id, next: 0, open_flags: 0 }).map(owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_takes_an_ending_program_and_no_other() {
        let exit = Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 };
        let zero = Instruction { code: 0xb7, registers: 0, offset: 0, immediate: 0 };
        match load_device_program(&[zero, exit]) {
            Ok(_) => load_device_program(&[zero]).map(drop).unwrap_err(),
            // Where bpf(2) is not ours to call there is nothing to see but that the refusal is clean.
            Err(e) => {
                assert!(matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)), "{e}");
                e
            }
        };
    }
}
