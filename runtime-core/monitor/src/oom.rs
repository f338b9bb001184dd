//! What the kernel's OOM killer does in the container's memory cgroup, on cgroup v1, v2 and hybrid hosts.
//!
//! The kernel tells (v1: an eventfd on memory.oom_control, v2: inotify on memory.events) when memory has run out, a moment before or after it kills.
//! Who is in the cgroup is noted then, because the number that a process has inside its container is gone with it; who was killed is read from
//! the kernel's log where that can be read.
//!
//! Best effort: a container without a memory cgroup of its own (it shares the monitor's) is never said to be OOM-killed, because
//! the counter there belongs to others too.

mod files;
mod victim;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;

use files::{MemoryCgroup, amount, count, limit, memory_cgroup};
use victim::Resident;

/// The kill follows the kernel's word within this time, or the memory was found in another way.
const SOON: Duration = Duration::from_millis(20);
const LOOKS: u32 = 25;

/// The container's memory cgroup and what is known of it.
#[derive(Debug)]
pub struct OomWatch {
    container_id: String,
    directory: PathBuf,
    v1: bool,
    before: u64,
    seen: u64,
    /// Readable when memory has run out.
    notice: Option<OwnedFd>,
    residents: Vec<Resident>,
    /// When the counter is to be looked at again, and how often still.
    look: Option<(Instant, u32)>,
    report: Option<String>,
}

impl OomWatch {
    /// Finds the cgroup of a process that has just been placed in its cgroups.
    pub fn of(pid: i32, container_id: &str) -> Option<Self> {
        let theirs = memory_cgroup(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)?;
        let ours = memory_cgroup(&fs::read_to_string("/proc/self/cgroup").ok()?);
        if ours.as_ref() == Some(&theirs) {
            return None;
        }
        Self::at(&theirs, Path::new("/sys/fs/cgroup"), container_id)
    }

    fn at(cgroup: &MemoryCgroup, root: &Path, container_id: &str) -> Option<Self> {
        let (directory, v1) = (cgroup.directory(root), cgroup.v1);
        let mut this = Self {
            container_id: container_id.to_owned(),
            directory,
            v1,
            before: 0,
            seen: 0,
            notice: None,
            residents: Vec::new(),
            look: None,
            report: None,
        };
        this.before = this.count()?;
        this.seen = this.before;
        this.notice = if v1 { this.notice_v1() } else { this.notice_v2() };
        Some(this)
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.directory.join(name)).ok()
    }

    fn count(&self) -> Option<u64> {
        count(&self.read(if self.v1 { "memory.oom_control" } else { "memory.events" })?)
    }

    fn notice_v1(&self) -> Option<OwnedFd> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
        let control = File::open(self.directory.join("memory.oom_control")).ok()?;
        let register = self.directory.join("cgroup.event_control");
        let mut register =
            OpenOptions::new().write(true).custom_flags(libc::O_CLOEXEC).open(register).ok()?;
        // The kernel takes the line in one write only.
        register.write_all(format!("{} {}", bell.as_raw_fd(), control.as_raw_fd()).as_bytes()).ok()?;
        Some(bell)
    }

    fn notice_v2(&self) -> Option<OwnedFd> {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).ok()?;
        inotify::add_watch(&fd, self.directory.join("memory.events"), inotify::WatchFlags::MODIFY).ok()?;
        Some(fd)
    }

    /// To wait for.
    pub fn notice(&self) -> Option<BorrowedFd<'_>> {
        self.notice.as_ref().map(|fd| fd.as_fd())
    }

    /// Memory has run out: whoever is killed now is still there, or has just been.
    pub fn noticed(&mut self, now: Instant) {
        let mut buffer = [0; 512];
        while self
            .notice
            .as_ref()
            .is_some_and(|fd| matches!(rustix::io::read(fd, &mut buffer), Ok(n) if n > 0))
        {
            if self.v1 {
                break;
            }
        }
        if self.count().is_none() {
            // The cgroup is being removed.
            self.notice = None;
            return;
        }
        victim::merge(&mut self.residents, victim::residents(&self.directory.join("cgroup.procs")));
        self.look = Some((now, LOOKS));
    }

    /// How long until the counter is to be looked at.
    pub fn patience(&self, now: Instant) -> Option<Duration> {
        self.look.map(|(at, _)| at.saturating_duration_since(now))
    }

    /// Looks at the counter where it is time; a report when it has grown.
    pub fn step(&mut self, now: Instant) -> Option<&str> {
        let (at, left) = self.look?;
        if at > now {
            return None;
        }
        self.look = (left > 0).then(|| (now + SOON, left - 1));
        self.check()
    }

    /// Looks at the counter. To be asked before the cgroup is removed.
    pub fn check(&mut self) -> Option<&str> {
        let now = self.count().filter(|n| *n > self.seen)?;
        self.seen = now;
        self.look = None;
        let killed = victim::find(&self.container_id, &self.residents);
        let number = |names: [&str; 2]| names.iter().find_map(|n| limit(&self.read(n)?));
        let limit = number(["memory.limit_in_bytes", "memory.max"]);
        let peak = number(["memory.max_usage_in_bytes", "memory.peak"]);
        self.report = Some(words(limit, peak, killed.as_deref()));
        self.residents = Vec::new();
        self.report.as_deref()
    }

    /// Whether it has struck since the start.
    pub fn struck(&self) -> bool {
        self.seen > self.before
    }

    /// What it did last.
    pub fn report(&self) -> Option<&str> {
        self.report.as_deref()
    }
}

/// "killed: memory limit 64M, peak 64M, by pid 7 python3"
fn words(limit: Option<u64>, peak: Option<u64>, killed: Option<&str>) -> String {
    let mut text = match limit {
        Some(limit) => format!("killed: memory limit {}", amount(limit)),
        None => "killed: the host was out of memory".to_owned(),
    };
    if let Some(peak) = peak {
        text.push_str(", peak ");
        text.push_str(&amount(peak));
    }
    if let Some(killed) = killed {
        text.push_str(", by ");
        text.push_str(killed);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("davit-oom-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let dir = if name == "v1" { root.join("memory/c") } else { root.join("c") };
        fs::create_dir_all(&dir).unwrap();
        for (file, content) in files {
            fs::write(dir.join(file), content).unwrap();
        }
        root
    }

    #[test]
    fn a_kill_is_reported_once_with_limit_and_peak() {
        for (v1, files, events, after) in [
            (
                true,
                &[
                    ("memory.oom_control", "oom_kill 1\n"),
                    ("memory.limit_in_bytes", "67108864\n"),
                    ("memory.max_usage_in_bytes", "67108864\n"),
                ][..],
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            ),
            (
                false,
                &[
                    ("memory.events", "oom_kill 0\n"),
                    ("memory.max", "67108864\n"),
                    ("memory.peak", "67108864\n"),
                ][..],
                "memory.events",
                "low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 0\n",
            ),
        ] {
            let root = cgroup(if v1 { "v1" } else { "v2" }, files);
            let place = MemoryCgroup { v1, path: "/c".into() };
            let mut watch = OomWatch::at(&place, &root, "no such container").unwrap();
            assert!(watch.check().is_none() && !watch.struck());
            fs::write(place.directory(&root).join(events), after).unwrap();
            assert_eq!(watch.check(), Some("killed: memory limit 64M, peak 64M"));
            assert!(watch.check().is_none() && watch.struck());
            assert_eq!(watch.report(), Some("killed: memory limit 64M, peak 64M"));
            fs::remove_dir_all(root).unwrap();
        }
    }

    #[test]
    fn words_for_what_is_known() {
        let text = words(Some(64 << 20), Some(67_000_000), Some("pid 7 python3"));
        assert_eq!(text, "killed: memory limit 64M, peak 63.8M, by pid 7 python3");
        assert_eq!(words(None, None, None), "killed: the host was out of memory");
    }
}
