//! How a process is scheduled and what it takes the machine for: ioprio_set(2), sched_setattr(2), sched_setaffinity(2), personality(2).

use std::io;

use rustix::thread::{CpuSet, sched_setaffinity};

/// `struct sched_attr` of sched_setattr(2), its first version.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes {
    /// Filled in by [`set_scheduler`].
    pub size: u32,
    /// SCHED_*.
    pub policy: u32,
    /// SCHED_FLAG_*.
    pub flags: u64,
    /// Of SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// Of SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// Of SCHED_DEADLINE, nanoseconds.
    pub runtime: u64,
    /// Of SCHED_DEADLINE, nanoseconds.
    pub deadline: u64,
    /// Of SCHED_DEADLINE, nanoseconds.
    pub period: u64,
}

fn check(r: libc::c_long) -> io::Result<()> {
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Schedules this thread so.
pub fn set_scheduler(attributes: Attributes) -> io::Result<()> {
    let attributes = Attributes { size: size_of::<Attributes>() as u32, ..attributes };
    // SAFETY: `attributes` is a valid struct sched_attr of the size that it names, only read.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
}

/// Gives this thread an I/O class (1 real time, 2 best effort, 3 idle) and a level in it (0 to 7).
pub fn set_io_priority(class: u32, level: u32) -> io::Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    let value = (class << 13) | (level & 0x1fff);
    // SAFETY: integer arguments only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) })
}

/// Binds this thread to these CPUs.
pub fn set_affinity(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        if *cpu >= CpuSet::MAX_CPU {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        set.set(*cpu);
    }
    sched_setaffinity(None, &set).map_err(io::Error::from)
}

/// Sets the execution domain (PER_LINUX, PER_LINUX32).
pub fn set_personality(domain: u64) -> io::Result<()> {
    // SAFETY: personality takes an integer and only changes how later exec and system calls behave.
    check(unsafe { libc::personality(domain as libc::c_ulong) }.into())
}
