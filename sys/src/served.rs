//! Mounts that a process of ours serves: `davit-cowfs` (fuse(4)), started in the caller's mount namespace and there only for it.
//!
//! The server is the caller's child and dies with the thread that started it (PR_SET_PDEATHSIG), so that neither it nor its mount outlives
//! a caller that is killed. In order it ends by itself: when its mount is taken away the kernel writes back what it still holds, and then
//! hangs up. Killing it first would lose that.
//!
//! ```text
//!  start ──> mounted ──unmount(2)──> it has ended by itself
//!     `──> ended before its mount was there: its last words are the error
//! ```

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::mount::{MountError, Options, unmount};

/// The program's name, which is also the type of its mounts.
pub const PROGRAM: &str = "davit-cowfs";

/// How long a server may take until its mount is there, and until it has ended after its mount was taken away.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Why a served mount is not there, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServedError {
    /// The program cannot be run.
    #[error("cannot run {program}")]
    Run {
        /// Which.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended before its mount was there.
    #[error("{program} did not mount: {words}")]
    Refused {
        /// Which.
        program: PathBuf,
        /// The last line of what it wrote, else its status.
        words: String,
    },
    /// Its mount is not there after [`PATIENCE`], or is there and does not answer.
    #[error("{program} does not serve {at}")]
    Silent {
        /// Which.
        program: PathBuf,
        /// The mount point.
        at: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The mount point, or this process's own mounts, cannot be looked at.
    #[error("cannot watch for the mount at {at}")]
    Watch {
        /// The mount point.
        at: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The mount could not be taken away.
    #[error(transparent)]
    Unmount(#[from] MountError),
    /// Its mount was taken away, but it did not end well: what was written last may be lost.
    #[error("{program} did not end well: {words}")]
    Ended {
        /// Which.
        program: PathBuf,
        /// The last line of what it wrote, else its status.
        words: String,
    },
}

/// Whether a mount of this type is served by [`PROGRAM`]: `fuse.davit-cowfs`, and `fuse3.davit-cowfs` as containerd spells it.
#[must_use]
pub fn is_served(fstype: &str) -> bool {
    let name = fstype.strip_prefix("fuse.").or_else(|| fstype.strip_prefix("fuse3."));
    name == Some(PROGRAM)
}

/// Starts `program -f -o OPTIONS AT` and returns once its mount answers; who calls has to wait for the process in the end.
///
/// What the server writes goes to `log`, which is open for reading too. The server lives as long as the calling thread at most.
///
/// # Errors
/// Nothing is mounted then, and the process has been waited for.
pub fn start(program: &Path, options: &[String], at: &Path, log: &File) -> Result<Child, ServedError> {
    let watching = |source| ServedError::Watch { at: at.to_owned(), source };
    let before = mount_id(at).map_err(watching)?;
    // Not /proc/self: that is the main thread's namespace.
    let mounts = File::open("/proc/thread-self/mountinfo").map_err(watching)?;
    let errors = log.try_clone().map_err(watching)?;
    let mut child = spawn(program, options, at, errors)
        .map_err(|source| ServedError::Run { program: program.to_owned(), source })?;
    let result = wait_for_mount(&mut child, at, before, &mounts);
    let why = match result {
        Ok(Wait::Mounted) => match std::fs::metadata(at) {
            // The mount is made before the server reads its first request: only an answer tells that it works.
            Ok(_) => return Ok(child),
            Err(source) => ServedError::Silent { program: program.to_owned(), at: at.to_owned(), source },
        },
        Ok(Wait::Ended(status)) => {
            let words = last_words(log).unwrap_or_else(|| in_words(status));
            return Err(ServedError::Refused { program: program.to_owned(), words });
        }
        Err(source) => ServedError::Silent { program: program.to_owned(), at: at.to_owned(), source },
    };
    let _ = child.kill();
    let _ = child.wait();
    if mount_id(at).is_ok_and(|now| now != before) {
        let _ = unmount(at);
    }
    Err(why)
}

/// A mount and the process that serves it, both held by the thread that made them. Dropping it kills the process; see [`Served::end`].
#[derive(Debug)]
pub struct Served {
    program: PathBuf,
    at: PathBuf,
    log: File,
    child: Child,
}

impl Served {
    /// See [`start`].
    pub fn start(program: &Path, options: &[String], at: &Path, log: File) -> Result<Self, ServedError> {
        let child = start(program, options, at, &log)?;
        Ok(Self { program: program.to_owned(), at: at.to_owned(), log, child })
    }

    /// Takes the mount away and waits until the server, which is told everything that is still to be written, has ended.
    ///
    /// # Errors
    /// The mount is still in use, or the server failed: what was written last may be lost.
    pub fn end(mut self) -> Result<(), ServedError> {
        unmount(&self.at)?;
        let words = match ended(&mut self.child, Instant::now() + PATIENCE) {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => last_words(&self.log).unwrap_or_else(|| in_words(status)),
            Ok(None) => format!("it still runs {} s after its mount was taken away", PATIENCE.as_secs()),
            Err(e) => e.to_string(),
        };
        Err(ServedError::Ended { program: self.program.clone(), words })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
            let _ = unmount(&self.at);
        }
    }
}

/// The last line of what a server wrote.
pub fn last_words(log: &File) -> Option<String> {
    const MOST: u64 = 4096;
    let end = log.metadata().ok()?.len();
    let mut bytes = vec![0; end.min(MOST) as usize];
    log.read_exact_at(&mut bytes, end.saturating_sub(MOST)).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    text.lines().rev().map(str::trim).find(|l| !l.is_empty()).map(str::to_owned)
}

/// A file without a name, for the words of a server that nobody reads later.
pub fn nameless_log() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("served", rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

enum Wait {
    Mounted,
    Ended(ExitStatus),
}

fn wait_for_mount(child: &mut Child, at: &Path, before: u64, mounts: &File) -> io::Result<Wait> {
    let deadline = Instant::now() + PATIENCE;
    let process = pidfd(child)?;
    loop {
        // The namespace's mounts have changed: an exceptional condition (proc_pid_mounts(5)).
        let mut fds = [PollFd::new(&process, PollFlags::IN), PollFd::new(mounts, PollFlags::PRI)];
        let left = deadline.saturating_duration_since(Instant::now());
        poll(&mut fds, left)?;
        let ended = !fds[0].revents().is_empty();
        if mount_id(at)? != before {
            return Ok(Wait::Mounted);
        }
        if ended {
            return Ok(Wait::Ended(child.wait()?));
        }
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

fn ended(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    let process = pidfd(child)?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        poll(&mut [PollFd::new(&process, PollFlags::IN)], left)?;
    }
}

fn poll(fds: &mut [PollFd<'_>], at_most: Duration) -> io::Result<()> {
    let time = Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: i64::from(at_most.subsec_nanos()) };
    match rustix::event::poll(fds, Some(&time)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_child(child);
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// The mount that a path is on (statx(2)); its file system is not asked, which might not answer yet.
fn mount_id(at: &Path) -> io::Result<u64> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    Ok(rustix::fs::statx(CWD, at, flags, StatxFlags::MNT_ID)?.stx_mnt_id)
}

fn spawn(program: &Path, options: &[String], at: &Path, errors: File) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.arg("-f");
    for option in Options::parse(options).command_line() {
        command.args(["-o", &option]);
    }
    command.arg(at).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
    let parent = std::process::id() as i32;
    let with_parent = move || {
        // SAFETY: prctl and getppid take and give integers and are async-signal-safe.
        let alone = unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) < 0 || libc::getppid() != parent
        };
        if alone { Err(io::Error::from_raw_os_error(libc::ESRCH)) } else { Ok(()) }
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(with_parent) };
    command.spawn()
}

fn in_words(status: ExitStatus) -> String {
    format!("it ended with {status}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn both_spellings_of_the_type_are_ours_and_no_other_program_is() {
        assert!(is_served("fuse.davit-cowfs") && is_served("fuse3.davit-cowfs"));
        for other in ["fuse", "davit-cowfs", "fuse.sshfs", "fuse.davit-cowfs2", "overlay", "fuse3."] {
            assert!(!is_served(other), "{other}");
        }
    }

    /// A program that is a shell script, in a mount namespace of the calling thread.
    fn scripted<T: Send>(name: &str, script: &str, work: impl FnOnce(&Path, &Path) -> T + Send) -> T {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        let dir = std::env::temp_dir().join(format!("davit-served-{name}-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("at")).unwrap();
        let program = dir.join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let result = crate::private_mounts::run(|| work(&program, &dir.join("at"))).unwrap();
        std::fs::remove_dir_all(dir).unwrap();
        result
    }

    #[test]
    fn a_server_that_refuses_is_quoted() {
        let script = "echo first >&2; echo 'no such layer' >&2; exit 1";
        let error = scripted("refuses", script, |program, at| {
            Served::start(program, &[], at, nameless_log().unwrap()).unwrap_err()
        });
        assert!(matches!(&error, ServedError::Refused { words, .. } if words == "no such layer"), "{error}");
        let error = scripted("silent", "kill -9 $$", |program, at| {
            Served::start(program, &[], at, nameless_log().unwrap()).unwrap_err()
        });
        assert!(error.to_string().contains("signal: 9"), "{error}");
    }

    #[test]
    fn a_server_is_given_its_options_and_ends_with_its_mount() {
        // A tmpfs is mounted in its place; the script sees it vanish.
        let script = "echo \"$@\" >&2; for at; do :; done; mount -t tmpfs tmpfs $at
            while grep -q \" $at tmpfs\" /proc/self/mounts; do sleep 0.01; done";
        let words = scripted("serves", script, |program, at| {
            let log = nameless_log().unwrap();
            let options = ["lowerdir+=/a", "lowerdir+=/b", "upperdir=/u", "ro"].map(str::to_owned);
            let served = Served::start(program, &options, at, log.try_clone().unwrap()).unwrap();
            std::fs::write(at.join("inside"), "x").unwrap();
            served.end().unwrap();
            assert!(!at.join("inside").exists());
            last_words(&log).unwrap()
        });
        assert!(words.starts_with("-f -o lowerdir=/a:/b,upperdir=/u -o ro /"), "{words}");
    }

    #[test]
    fn a_server_does_not_outlive_the_thread_that_started_it() {
        let script = "for at; do :; done; mount -t tmpfs tmpfs $at; exec sleep 1000";
        let (mut child, process) = scripted("thread", script, |program, at| {
            let log = nameless_log().unwrap();
            let child = start(program, &[], at, &log).unwrap();
            let process = pidfd(&child).unwrap();
            (child, process)
        });
        let mut fds = [PollFd::new(&process, PollFlags::IN)];
        poll(&mut fds, PATIENCE).unwrap();
        assert!(!fds[0].revents().is_empty(), "process {} still runs", child.id());
        child.wait().unwrap();
    }
}
