//! Processes named so that a recycled pid is never mistaken for the old one: pid plus start time, or a pidfd.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};

use crate::apart::{self, Own};
use crate::rootfs::clone_tree;

/// A process as a record that outlives it may name it.
///
/// The start time is field 22 of /proc/PID/stat (clock ticks since boot, proc(5)): two processes never share pid and
/// start time within one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessRef {
    /// The pid in our pid namespace.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat.
    pub start_time: u64,
}

/// Why a process could not be named or opened.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is no such process.
    #[error("process {0} does not exist")]
    Gone(i32),
    /// The pid now belongs to another process.
    #[error("process {pid} is not the one meant: its start time is {found}, not {expected}")]
    Recycled {
        /// Which pid.
        pid: i32,
        /// From the record.
        expected: u64,
        /// From /proc.
        found: u64,
    },
    /// A file below /proc could not be read.
    #[error("cannot read {path}")]
    Proc {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ProcessRef {
    /// Names a running process.
    pub fn of(pid: i32) -> Result<Self, ProcessError> {
        Ok(Self { pid, start_time: stat(pid)?.start_time })
    }

    /// Names the calling process.
    pub fn this() -> Result<Self, ProcessError> {
        Self::of(std::process::id() as i32)
    }

    /// Whether this very process still exists and is no zombie.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_ok_and(|s| s.start_time == self.start_time && !s.has_ended())
    }

    /// The processes of a process group (setpgid(2)) that live.
    pub fn group(pgid: i32) -> Result<Vec<Self>, ProcessError> {
        let path = PathBuf::from("/proc");
        let failed = |source| ProcessError::Proc { path: path.clone(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(&path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(pid) = name.to_str().and_then(|n| n.parse().ok()) else { continue };
            // One that ends meanwhile is none of them.
            let Ok(stat) = stat(pid) else { continue };
            if stat.group == pgid && !stat.has_ended() {
                found.push(Self { pid, start_time: stat.start_time });
            }
        }
        Ok(found)
    }

    /// Ends it at once (SIGKILL), if it is there still: no other process that has its pid by now.
    pub fn kill(&self) -> Result<(), ProcessError> {
        let fd = match self.pidfd() {
            Ok(fd) => fd,
            Err(ProcessError::Gone(_) | ProcessError::Recycled { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        match rustix::process::pidfd_send_signal(fd, rustix::process::Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => {
                Err(ProcessError::Proc { path: format!("/proc/{}", self.pid).into(), source: e.into() })
            }
        }
    }

    /// Opens a pidfd (pidfd_open(2), Linux 5.3) and checks after it that the pid had not been recycled before.
    pub fn pidfd(&self) -> Result<OwnedFd, ProcessError> {
        let pid = rustix::process::Pid::from_raw(self.pid).ok_or(ProcessError::Gone(self.pid))?;
        let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            .map_err(|_| ProcessError::Gone(self.pid))?;
        self.check()?;
        Ok(fd)
    }

    /// Opens one of its namespaces (`net`, `mnt`, `pid`, ...), with the start time checked after the open.
    pub fn namespace(&self, kind: &str) -> Result<OwnedFd, ProcessError> {
        let path = PathBuf::from(format!("/proc/{}/ns/{kind}", self.pid));
        let file = fs::File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ProcessError::Gone(self.pid),
            _ => ProcessError::Proc { path, source },
        })?;
        self.check()?;
        Ok(file.into())
    }

    /// Opens its root directory, as it sees it, with the start time checked after the open: a way into its mount namespace.
    pub fn root(&self) -> Result<OwnedFd, ProcessError> {
        let path = PathBuf::from(format!("/proc/{}/root", self.pid));
        let file = fs::File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ProcessError::Gone(self.pid),
            _ => ProcessError::Proc { path, source },
        })?;
        // A zombie's root is that of nobody.
        if self.is_alive() { Ok(file.into()) } else { Err(ProcessError::Gone(self.pid)) }
    }

    /// A copy of the mount that its root is on, without what is mounted below: attached nowhere, and shared with nobody's namespace.
    pub fn own_root(&self) -> Result<OwnedFd, ProcessError> {
        let path = PathBuf::from(format!("/proc/{}/root", self.pid));
        let failed = |source| ProcessError::Proc { path: path.clone(), source };
        let (root, namespace) = (self.root()?, self.namespace("mnt")?);
        // A mount is only copied from the namespace that it is in, and to enter that one a thread must share its root with nobody.
        let copied = apart::spawn("own-root", Own::Root, move || {
            nix::sched::setns(namespace, CloneFlags::CLONE_NEWNS)?;
            let copy = clone_tree(root.as_fd(), Path::new(""), false)?;
            // To be read, not only to be named; the mount is there as long as this is.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok::<_, io::Error>(rustix::fs::openat(copy, ".", flags, Mode::empty())?)
        });
        let thread = copied.map_err(|e| failed(io::Error::other(e)))?;
        let result = thread.join().map_err(|_| failed(io::Error::other("a thread panicked")))?;
        result.map_err(|e| failed(io::Error::other(e)))?.map_err(failed)
    }

    fn check(&self) -> Result<(), ProcessError> {
        let found = stat(self.pid)?.start_time;
        if found == self.start_time {
            Ok(())
        } else {
            Err(ProcessError::Recycled { pid: self.pid, expected: self.start_time, found })
        }
    }
}

struct Stat {
    state: u8,
    group: i32,
    start_time: u64,
}

impl Stat {
    fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

fn stat(pid: i32) -> Result<Stat, ProcessError> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let text = fs::read_to_string(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ProcessError::Gone(pid),
        _ if source.raw_os_error() == Some(libc::ESRCH) => ProcessError::Gone(pid),
        _ => ProcessError::Proc { path, source },
    })?;
    parse_stat(&text).ok_or(ProcessError::Gone(pid))
}

/// The program's name (field 2) may hold anything, also ") ": fields are counted from its last closing bracket.
fn parse_stat(text: &str) -> Option<Stat> {
    let rest = &text[text.rfind(')')? + 2..];
    let mut fields = rest.split(' ');
    let state = fields.next()?.bytes().next()?;
    // `state` is field 3, so the process group (5) is the second after it, and the start time (22) the 17th after that.
    let group = fields.nth(1)?.parse().ok()?;
    let start_time = fields.nth(16)?.trim().parse().ok()?;
    Some(Stat { state, group, start_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_confuse_the_fields() {
        let rest: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let text = format!("7 (a) R (b) S {}", rest.join(" "));
        let s = parse_stat(&text).unwrap();
        assert_eq!((s.state, s.group, s.start_time), (b'S', 5, 22));
    }

    #[test]
    fn a_group_is_found_and_its_members_end() {
        use std::os::unix::process::CommandExt as _;
        let mut child = std::process::Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        let leader = ProcessRef::of(child.id() as i32).unwrap();
        assert_eq!(ProcessRef::group(leader.pid).unwrap(), [leader]);
        ProcessRef { start_time: leader.start_time + 1, ..leader }.kill().unwrap();
        assert!(leader.is_alive(), "another that had its pid was meant");
        leader.kill().unwrap();
        child.wait().unwrap();
        leader.kill().unwrap();
        assert_eq!(ProcessRef::group(leader.pid).unwrap(), []);
    }

    #[test]
    fn this_process_is_alive_and_another_start_time_is_not() {
        let me = ProcessRef::this().unwrap();
        assert!(me.is_alive());
        me.pidfd().unwrap();
        me.namespace("net").unwrap();
        me.root().unwrap();
        let other = ProcessRef { start_time: me.start_time + 1, ..me };
        assert!(!other.is_alive());
        assert!(matches!(other.pidfd(), Err(ProcessError::Recycled { .. })));
        assert!(matches!(other.root(), Err(ProcessError::Gone(_))));
    }
}
