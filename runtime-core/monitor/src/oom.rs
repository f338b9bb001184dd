//! Whether the kernel's OOM killer struck in the container's memory cgroup, on cgroup v1, v2 and hybrid hosts.
//!
//! Best effort: a container without a memory cgroup of its own (it shares the monitor's) is never said to be OOM-killed, because
//! the counter there belongs to others too.

use std::fs;
use std::path::{Path, PathBuf};

/// The file with the container's `oom_kill` counter and what it said at first.
#[derive(Debug)]
pub struct OomCounter {
    file: PathBuf,
    before: u64,
}

impl OomCounter {
    /// Finds the counter of a process that has just been placed in its cgroups.
    pub fn of(pid: i32) -> Option<Self> {
        let theirs = memory_cgroup(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)?;
        let ours = memory_cgroup(&fs::read_to_string("/proc/self/cgroup").ok()?);
        if ours.as_ref() == Some(&theirs) {
            return None;
        }
        let file = theirs.file(Path::new("/sys/fs/cgroup"));
        let before = count(&fs::read_to_string(&file).ok()?)?;
        Some(Self { file, before })
    }

    /// Whether it has grown. To be asked before the cgroup is removed.
    pub fn struck(&self) -> bool {
        fs::read_to_string(&self.file).ok().and_then(|t| count(&t)).is_some_and(|n| n > self.before)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct MemoryCgroup {
    v1: bool,
    path: String,
}

impl MemoryCgroup {
    fn file(&self, root: &Path) -> PathBuf {
        let relative = self.path.trim_start_matches('/');
        if self.v1 {
            root.join("memory").join(relative).join("memory.oom_control")
        } else {
            root.join(relative).join("memory.events")
        }
    }
}

/// From /proc/PID/cgroup (cgroups(7)): the v1 memory hierarchy where there is one, else the unified one.
fn memory_cgroup(text: &str) -> Option<MemoryCgroup> {
    let mut unified = None;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        if controllers.split(',').any(|c| c == "memory") {
            return Some(MemoryCgroup { v1: true, path: path.into() });
        }
        if controllers.is_empty() {
            unified = Some(MemoryCgroup { v1: false, path: path.into() });
        }
    }
    unified
}

fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_cgroup_is_found_on_every_kind_of_host() {
        let root = Path::new("/sys/fs/cgroup");
        let hybrid = memory_cgroup("8:pids:/a\n4:memory:/b/c\n0::/u\n").unwrap();
        assert_eq!(hybrid.file(root), Path::new("/sys/fs/cgroup/memory/b/c/memory.oom_control"));
        let unified = memory_cgroup("0::/u\n").unwrap();
        assert_eq!(unified.file(root), Path::new("/sys/fs/cgroup/u/memory.events"));
        assert_eq!(memory_cgroup("nonsense"), None);
    }

    #[test]
    fn both_versions_files_are_read() {
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), Some(2));
        assert_eq!(count("low 0\nmax 7\noom 3\noom_kill 1\noom_group_kill 0\n"), Some(1));
        assert_eq!(count(""), None);
    }
}
