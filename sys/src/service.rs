//! Starting a daemon as sd_listen_fds(3) wants it: descriptors from 3 on, LISTEN_PID its own pid, known only after fork(2).

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use nix::unistd::{ForkResult, fork};

use crate::process::ProcessRef;

const PID_KEY: &[u8] = b"LISTEN_PID=";
/// Room for any pid and the closing NUL.
const PID_ROOM: usize = 12;

/// A daemon to start.
#[derive(Debug)]
pub struct Service<'a> {
    /// Its binary, an absolute path.
    pub program: PathBuf,
    /// Arguments after the program's name.
    pub args: Vec<OsString>,
    /// The whole environment; LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID are added.
    pub env: Vec<(OsString, OsString)>,
    /// Handed over from descriptor 3 on, with their names.
    pub fds: Vec<(String, BorrowedFd<'a>)>,
    /// Becomes stdout and stderr; stdin is /dev/null.
    pub output: BorrowedFd<'a>,
    /// /dev/null, opened by the caller.
    pub null: BorrowedFd<'a>,
    /// The network namespace to run in, unless the caller's.
    pub netns: Option<BorrowedFd<'a>>,
}

/// Why a daemon could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {program}")]
pub struct ServiceError {
    /// What failed.
    pub operation: &'static str,
    /// For which program.
    pub program: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl Service<'_> {
    /// Forks and executes. The child gets SIGTERM when the caller dies (PR_SET_PDEATHSIG), an empty signal mask, default signal
    /// dispositions and no other descriptors. A failed exec is an error here.
    ///
    /// The caller must be single-threaded.
    pub fn spawn(&self) -> Result<ProcessRef, ServiceError> {
        let fail =
            |operation| move |source| ServiceError { operation, program: self.program.clone(), source };
        let plan = self.plan().map_err(fail("start"))?;
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|e| fail("make a pipe for")(e.into()))?;
        let parent = rustix::process::getpid();
        // SAFETY: one thread (the caller's promise); the child calls only async-signal-safe functions until it execs or exits.
        match unsafe { fork() }.map_err(|e| fail("fork for")(e.into()))? {
            ForkResult::Child => {
                let (operation, errno) = plan.run(parent.as_raw_nonzero().get());
                let mut message = [operation, 0, 0, 0, 0];
                message[1..].copy_from_slice(&errno.to_ne_bytes());
                let _ = rustix::io::write(&write, &message);
                // SAFETY: ends the forked child without touching the parent's state.
                unsafe { libc::_exit(127) }
            }
            ForkResult::Parent { child } => {
                drop(write);
                let mut message = [0u8; 5];
                let n = rustix::io::read(&read, &mut message).unwrap_or(0);
                if n == 0 {
                    // The pipe closed by exec.
                    return ProcessRef::of(child.as_raw())
                        .map_err(|e| fail("find")(io::Error::other(e.to_string())));
                }
                let _ = nix::sys::wait::waitpid(child, None);
                let errno = i32::from_ne_bytes([message[1], message[2], message[3], message[4]]);
                let operation = STEPS.get(usize::from(message[0])).copied().unwrap_or("start");
                Err(fail(operation)(io::Error::from_raw_os_error(errno)))
            }
        }
    }

    fn plan(&self) -> io::Result<Plan> {
        let c = |s: &OsStr| CString::new(s.as_bytes()).map_err(io::Error::from);
        let program = c(self.program.as_os_str())?;
        let mut argv = vec![program.clone()];
        for arg in &self.args {
            argv.push(c(arg)?);
        }
        let names: Vec<&str> = self.fds.iter().map(|(name, _)| name.as_str()).collect();
        let mut env = Vec::new();
        for (key, value) in &self.env {
            let mut pair = key.clone();
            pair.push("=");
            pair.push(value);
            env.push(c(&pair)?.into_bytes_with_nul());
        }
        env.push(CString::new(format!("LISTEN_FDS={}", names.len()))?.into_bytes_with_nul());
        env.push(CString::new(format!("LISTEN_FDNAMES={}", names.join(":")))?.into_bytes_with_nul());
        // Last, because the child writes its pid into it.
        let mut pid = PID_KEY.to_vec();
        pid.resize(PID_KEY.len() + PID_ROOM, 0);
        env.push(pid);
        // Copies above every target number, so that dup2 below never overwrites one that is still to be copied.
        let floor = 3 + self.fds.len() as RawFd + 1;
        let mut fds = Vec::new();
        for fd in [self.null, self.output].iter().chain(self.fds.iter().map(|(_, fd)| fd)).chain(&self.netns)
        {
            fds.push(rustix::io::fcntl_dupfd_cloexec(fd, floor)?);
        }
        let netns = self.netns.is_some().then(|| fds.pop()).flatten();
        Ok(Plan { program, argv, env, fds, netns })
    }
}

const STEPS: [&str; 5] =
    ["start", "enter the network namespace for", "hand descriptors to", "execute", "stay with"];

/// Everything allocated before fork(2).
struct Plan {
    program: CString,
    argv: Vec<CString>,
    env: Vec<Vec<u8>>,
    /// stdin, output, then what is handed over.
    fds: Vec<std::os::fd::OwnedFd>,
    netns: Option<std::os::fd::OwnedFd>,
}

impl Plan {
    /// In the child: returns only on failure, with the number of the step and the errno. Nothing here allocates but two pointer arrays,
    /// which is sound because the parent had one thread.
    fn run(mut self, parent: i32) -> (u8, i32) {
        let errno = || io::Error::last_os_error().raw_os_error().unwrap_or(0);
        // SAFETY: prctl, getppid, setns, dup2, fcntl, signal, sigprocmask, execve with valid arguments: all pointers come from owned
        // buffers that live until execve replaces the process.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM, 0, 0, 0);
            if libc::getppid() != parent {
                return (4, libc::ESRCH);
            }
            if let Some(netns) = &self.netns
                && libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) != 0
            {
                return (1, errno());
            }
            for (target, source) in (0..).zip(&self.fds) {
                // The output is both 1 and 2, so that what is handed over begins at 3.
                let target = if target >= 2 { target + 1 } else { target };
                if libc::dup2(source.as_raw_fd(), target) < 0 {
                    return (2, errno());
                }
                if target == 1 && libc::dup2(source.as_raw_fd(), 2) < 0 {
                    return (2, errno());
                }
            }
            // Descriptors that whoever started us left open without close-on-exec must not reach a daemon.
            let first = 3 + self.fds.len() as u32 - 2;
            libc::close_range(first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as i32);
            for signal in [libc::SIGPIPE, libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGCHLD] {
                libc::signal(signal, libc::SIG_DFL);
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            if let Some(slot) = self.env.last_mut() {
                write_pid(&mut slot[PID_KEY.len()..], libc::getpid());
            }
            let argv: Vec<_> =
                self.argv.iter().map(|a| a.as_ptr()).chain(std::iter::once(std::ptr::null())).collect();
            let env: Vec<_> =
                self.env.iter().map(|e| e.as_ptr().cast()).chain(std::iter::once(std::ptr::null())).collect();
            libc::execve(self.program.as_ptr(), argv.as_ptr(), env.as_ptr());
        }
        (3, errno())
    }
}

/// Decimal digits and a closing NUL into `room`.
fn write_pid(room: &mut [u8], pid: i32) {
    let mut digits = [0u8; PID_ROOM];
    let mut n = 0;
    let mut rest = pid.unsigned_abs();
    loop {
        digits[n] = b'0' + (rest % 10) as u8;
        n += 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    for (to, from) in room.iter_mut().zip(digits[..n].iter().rev()) {
        *to = *from;
    }
    if let Some(end) = room.get_mut(n) {
        *end = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::fd::AsFd as _;

    #[test]
    fn pids_are_written_as_decimal() {
        for pid in [0, 7, 10, 4_194_304, i32::MAX] {
            let mut room = [0xffu8; PID_ROOM];
            write_pid(&mut room, pid);
            let end = room.iter().position(|b| *b == 0).unwrap();
            assert_eq!(std::str::from_utf8(&room[..end]).unwrap(), pid.to_string());
        }
    }

    fn run(script: &str, fds: Vec<(String, BorrowedFd<'_>)>) -> String {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let child = Service {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            fds,
            output: write.as_fd(),
            null: null.as_fd(),
            netns: None,
        }
        .spawn()
        .unwrap();
        drop(write);
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child.pid), None).unwrap();
        text
    }

    #[test]
    fn the_child_sees_its_own_pid_and_its_descriptors() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&write, b"hello\n").unwrap();
        let text = run(
            r#"[ "$LISTEN_PID" = $$ ] && echo "$LISTEN_FDS $LISTEN_FDNAMES"; read line <&4; echo "$line""#,
            vec![("a".into(), write.as_fd()), ("b".into(), read.as_fd())],
        );
        assert_eq!(text, "2 a:b\nhello\n");
    }

    #[test]
    fn nothing_else_is_inherited() {
        let text = run("ls /proc/self/fd", Vec::new());
        // 0, 1, 2 and the directory that ls itself has open.
        assert_eq!(text, "0\n1\n2\n3\n");
    }

    #[test]
    fn a_program_that_cannot_be_executed_is_an_error_here() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let e = Service {
            program: "/no/such/program".into(),
            args: Vec::new(),
            env: Vec::new(),
            fds: Vec::new(),
            output: null.as_fd(),
            null: null.as_fd(),
            netns: None,
        }
        .spawn()
        .unwrap_err();
        assert_eq!((e.operation, e.source.raw_os_error()), ("execute", Some(libc::ENOENT)));
    }
}
