//! davit-init: see the crate's docs. No std: a few hundred kilobytes of C library, no heap, no thread.
//!
//! All signals are blocked and taken one by one (sigwaitinfo(2)), so that nothing happens between two of them. The command runs in a
//! process group of its own, which is the terminal's foreground where there is one (tcsetpgrp(3)).

#![no_std]
#![no_main]

use core::ffi::{c_char, c_int, c_long, c_ulong, c_void};
use core::ptr::{null, null_mut};

/// glibc's and musl's sigset_t: 1024 bits.
type SigSet = [c_ulong; WORDS];
const WORDS: usize = 1024 / 8 / size_of::<c_ulong>();

const SIG_BLOCK: c_int = 0;
const SIG_SETMASK: c_int = 2;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;
const SIGCHLD: c_int = 17;
/// Signals that a fault of ours raises: they have to strike. ILL, TRAP, ABRT, BUS, FPE, SEGV, SYS.
const FAULTS: [c_int; 7] = [4, 5, 6, 7, 8, 11, 31];
const WNOHANG: c_int = 1;
const ENOENT: c_int = 2;
const PR_SET_CHILD_SUBREAPER: c_int = 36;

unsafe extern "C" {
    fn sigfillset(set: *mut SigSet) -> c_int;
    fn sigdelset(set: *mut SigSet, signal: c_int) -> c_int;
    fn sigprocmask(how: c_int, set: *const SigSet, old: *mut SigSet) -> c_int;
    fn sigwaitinfo(set: *const SigSet, info: *mut c_void) -> c_int;
    fn fork() -> c_int;
    fn getpid() -> c_int;
    fn setpgid(pid: c_int, group: c_int) -> c_int;
    fn tcsetpgrp(fd: c_int, group: c_int) -> c_int;
    fn execvp(file: *const c_char, argv: *const *const c_char) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int;
    fn write(fd: c_int, bytes: *const c_void, n: usize) -> c_long;
    fn strlen(text: *const c_char) -> usize;
    fn strerror(number: c_int) -> *const c_char;
    fn __errno_location() -> *mut c_int;
    fn _exit(code: c_int) -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: _exit(2) takes any number and does not return.
    unsafe { _exit(125) }
}

/// C's entry: `davit-init [--] [COMMAND ARGUMENT...]`.
///
/// # Safety
/// The C runtime calls it, with `argv` as exec(3) made it: `argc` strings and a null pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let (mut set, mut old): (SigSet, SigSet) = ([0; WORDS], [0; WORDS]);
    // SAFETY: both sets are whole sigset_t values of ours; prctl(2) takes plain numbers here.
    unsafe {
        sigfillset(&raw mut set);
        for fault in FAULTS {
            sigdelset(&raw mut set, fault);
        }
        sigprocmask(SIG_BLOCK, &raw const set, &raw mut old);
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    }
    // SAFETY: `argv` has `argc` strings, and a null pointer behind them.
    let command = unsafe { command(argc, argv) };
    let child = if command.is_null() { 0 } else { start(command, &old) };
    serve(child, &set)
}

/// Where the command begins; null when there is none.
///
/// # Safety
/// As `main`'s arguments.
unsafe fn command(argc: c_int, argv: *const *const c_char) -> *const *const c_char {
    // SAFETY: only indexes below `argc` are read, and two bytes at most of a string that ends with a zero.
    unsafe {
        if argc < 2 {
            return null();
        }
        let first = *argv.add(1);
        let dashes = strlen(first) == 2 && *first == b'-' as c_char && *first.add(1) == b'-' as c_char;
        match (dashes, argc) {
            (true, 2) => null(),
            (true, _) => argv.add(2),
            (false, _) => argv.add(1),
        }
    }
}

/// Starts the command with the signals as they were.
fn start(command: *const *const c_char, old: &SigSet) -> c_int {
    // SAFETY: there is one thread, so the child may do what it likes; `command` is a null-terminated list of strings (execvp(3)).
    unsafe {
        let child = fork();
        match child {
            0 => {
                setpgid(0, 0);
                // Refused without a terminal. SIGTTOU is still blocked: it would stop us.
                tcsetpgrp(0, getpid());
                sigprocmask(SIG_SETMASK, old, null_mut());
                execvp(*command, command);
                let error = *__errno_location();
                complain(*command, error);
                _exit(if error == ENOENT { 127 } else { 126 })
            }
            ..0 => {
                complain(*command, *__errno_location());
                _exit(125)
            }
            child => child,
        }
    }
}

/// Takes signals until the command has ended; without one (0) until it is told to go.
fn serve(child: c_int, set: &SigSet) -> ! {
    loop {
        // SAFETY: `set` is a whole set, and no details are asked for.
        let signal = unsafe { sigwaitinfo(set, null_mut()) };
        match signal {
            SIGCHLD => reap(child),
            // Interrupted: SIGSTOP and SIGCONT do that.
            ..=0 => {}
            // SAFETY: _exit(2) and kill(2) take plain numbers.
            SIGINT | SIGTERM if child == 0 => unsafe { _exit(0) },
            _ if child == 0 => {}
            signal => {
                // SAFETY: as above. It may have ended: then SIGCHLD is on its way.
                unsafe { kill(child, signal) };
            }
        }
    }
}

/// Waits for all that have ended, and ends with the command.
fn reap(child: c_int) {
    let mut code = None;
    loop {
        let mut status: c_int = 0;
        // SAFETY: `status` is ours.
        let ended = unsafe { waitpid(-1, &raw mut status, WNOHANG) };
        if ended <= 0 {
            break;
        }
        if ended == child {
            // wait(2): the low seven bits are the signal, the next byte the code.
            let signal = status & 0x7f;
            code = Some(if signal == 0 { (status >> 8) & 0xff } else { 128 + signal });
        }
    }
    if let Some(code) = code {
        // SAFETY: it takes any number.
        unsafe { _exit(code) }
    }
}

/// `davit-init: cannot run NAME: WHY`.
///
/// # Safety
/// `name` is a string that ends with a zero.
unsafe fn complain(name: *const c_char, error: c_int) {
    // SAFETY: strerror(3) answers a string that ends with a zero; a failed write is nobody's business any more.
    unsafe {
        let why = strerror(error);
        for (text, n) in [
            (c"davit-init: cannot run ".as_ptr(), 23),
            (name, strlen(name)),
            (c": ".as_ptr(), 2),
            (why, strlen(why)),
            (c"\n".as_ptr(), 1),
        ] {
            write(2, text.cast(), n);
        }
    }
}
