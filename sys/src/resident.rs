//! What a process that lives as long as a container does to stay small and unharmed: no inherited descriptors, an allocator that
//! gives memory back, any signal number to a child.

use std::io;

/// Closes every descriptor above standard error (close_range(2), Linux 5.9). For the first line of `main`, before anything was opened:
/// a descriptor that some later value owns would be closed under it.
pub fn close_inherited_descriptors() {
    // SAFETY: the caller runs it before any descriptor above 2 has an owner in this process; the call touches no memory.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
}

/// Tells glibc's allocator (mallopt(3)) to keep one arena, to map big blocks apart, and to return the heap's top early.
pub fn keep_heap_small() {
    set_heap(16 << 10, 4 << 10, 32 << 10);
}

/// The same for a process that allocates all the time: what it frees for a moment stays, and only blocks from 64 KiB on, which it keeps for
/// long, are mapped apart, so that each goes back when it is freed.
pub fn keep_heap_together() {
    set_heap(1 << 20, 128 << 10, 64 << 10);
}

fn set_heap(trim_threshold: i32, top_pad: i32, mmap_threshold: i32) {
    #[cfg(target_env = "gnu")]
    for (option, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_TRIM_THRESHOLD, trim_threshold),
        (libc::M_TOP_PAD, top_pad),
        (libc::M_MMAP_THRESHOLD, mmap_threshold),
    ] {
        // SAFETY: mallopt takes two integers; the process has one thread and the options are documented ones.
        unsafe { libc::mallopt(option, value) };
    }
}

/// Gives free heap pages back to the kernel (malloc_trim(3)).
pub fn release_free_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only looks at the allocator's own lists.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Undoes what the process was started with: signals that are ignored get their default back, because being ignored outlives exec(2) and
/// would reach every child. SIGPIPE stays as Rust's runtime sets it (and resets it in children).
pub fn stop_ignoring_signals() {
    for signal in (1..=libc::SIGRTMAX()).filter(|s| *s != libc::SIGPIPE) {
        // SAFETY: an all-zero sigaction is SIG_DFL without flags; the kernel fills it with the present one, and only an ignored signal is
        // set, to a default that needs no handler. Numbers that the C library keeps for itself are refused.
        unsafe {
            let mut present: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, std::ptr::null(), &raw mut present) == 0
                && present.sa_sigaction == libc::SIG_IGN
            {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

/// Sends any signal number, real-time ones included, to a child that has not been waited for: until then its pid is its own.
pub fn signal_child(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 1 {
        // 0 and negative numbers mean groups, 1 is never our child.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: kill takes two integers.
    if unsafe { libc::kill(pid, signal) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_pid_1_are_never_signalled() {
        for pid in [-1, 0, 1] {
            assert_eq!(signal_child(pid, 0).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        }
        signal_child(std::process::id() as i32, 0).unwrap();
    }
}
