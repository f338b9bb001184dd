//! The memory cgroup's files, as text.

use std::path::{Path, PathBuf};

/// Where a process' memory is counted.
#[derive(Debug, PartialEq, Eq)]
pub struct MemoryCgroup {
    /// In the memory hierarchy of cgroup v1.
    pub v1: bool,
    /// As /proc/PID/cgroup has it.
    pub path: String,
}

impl MemoryCgroup {
    /// Below /sys/fs/cgroup.
    pub fn directory(&self, root: &Path) -> PathBuf {
        let relative = self.path.trim_start_matches('/');
        if self.v1 { root.join("memory").join(relative) } else { root.join(relative) }
    }
}

/// From /proc/PID/cgroup (cgroups(7)): the v1 memory hierarchy where there is one, else the unified one.
pub fn memory_cgroup(text: &str) -> Option<MemoryCgroup> {
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

/// `oom_kill` of memory.oom_control (v1) or memory.events (v2).
pub fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// A number of bytes; none for v2's "max" and v1's nearly 2^63.
pub fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|n| *n < 1 << 62)
}

/// `64M`, `1.5G`.
pub fn amount(bytes: u64) -> String {
    let unit = (0..5).rfind(|n| bytes >> (10 * n) > 0).unwrap_or(0);
    let (whole, rest) = (bytes >> (10 * unit), bytes & ((1 << (10 * unit)) - 1));
    let tenths = (rest * 10) >> (10 * unit);
    let fraction = if tenths == 0 { String::new() } else { format!(".{tenths}") };
    format!("{whole}{fraction}{}", ["B", "K", "M", "G", "T"][unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_cgroup_is_found_on_every_kind_of_host() {
        let root = Path::new("/sys/fs/cgroup");
        let hybrid = memory_cgroup("8:pids:/a\n4:memory:/b/c\n0::/u\n").unwrap();
        assert_eq!(hybrid.directory(root), Path::new("/sys/fs/cgroup/memory/b/c"));
        let unified = memory_cgroup("0::/u\n").unwrap();
        assert_eq!(unified.directory(root), Path::new("/sys/fs/cgroup/u"));
        assert_eq!(memory_cgroup("nonsense"), None);
    }

    #[test]
    fn both_versions_files_are_read() {
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), Some(2));
        assert_eq!(count("low 0\nmax 7\noom 3\noom_kill 1\noom_group_kill 0\n"), Some(1));
        assert_eq!(count(""), None);
        assert_eq!(
            [limit("67108864\n"), limit("max\n"), limit("9223372036854771712\n")],
            [Some(64 << 20), None, None]
        );
        assert_eq!(
            [amount(64 << 20), amount(3 << 29), amount(10), amount(1000 << 10)],
            ["64M", "1.5G", "10B", "1000K"]
        );
    }
}
