//! The files of cgroups: which hierarchy has which controller, and what its files say (cgroups(7), admin-guide/cgroup-v1 and -v2).

use std::fs;
use std::path::{Path, PathBuf};

use davit_contracts::runtime::StatsResponse;

/// Where controllers are mounted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Hierarchies {
    /// v1: the controllers of a mount, its place, and what part of the hierarchy it shows.
    v1: Vec<(Vec<String>, PathBuf, String)>,
    v2: Option<(PathBuf, String)>,
}

/// One container's directories; the unified one where a controller has no hierarchy of its own.
#[derive(Debug, Default)]
pub struct Cgroups {
    v1: Vec<(String, PathBuf)>,
    v2: Option<PathBuf>,
}

impl Hierarchies {
    /// As this process sees them.
    pub fn of_this_process() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    /// proc_pid_mountinfo(5).
    fn parse(mountinfo: &str) -> Self {
        let mut out = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut left = left.split(' ').skip(3);
            let (Some(root), Some(place)) = (left.next(), left.next()) else { continue };
            let mut right = right.split(' ');
            match right.next() {
                Some("cgroup2") if out.v2.is_none() => out.v2 = Some((place.into(), root.to_owned())),
                Some("cgroup") => {
                    let options = right.nth(1).unwrap_or_default();
                    let controllers = options.split(',').map(str::to_owned).collect();
                    out.v1.push((controllers, place.into(), root.to_owned()));
                }
                _ => {}
            }
        }
        out
    }

    /// The directories of a process's container: what the program made below its own cgroup counts to it.
    pub fn of(&self, pid: i32, id: &str) -> Option<Cgroups> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        Some(self.find(&text, id))
    }

    /// From /proc/PID/cgroup.
    fn find(&self, text: &str, id: &str) -> Cgroups {
        let mut out = Cgroups::default();
        let named = !id.is_empty() && text.contains(id);
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            // In a hierarchy where it was given no cgroup it is in somebody else's, whose figures are not its own.
            if named && !path.contains(id) {
                continue;
            }
            let path = up_to(path, id);
            if controllers.is_empty() {
                out.v2 = self.v2.as_ref().map(|(place, root)| below(place, root, path));
            }
            for controller in controllers.split(',').filter(|c| !c.is_empty()) {
                let mount = self.v1.iter().find(|(have, _, _)| have.iter().any(|c| c == controller));
                if let Some((_, place, root)) = mount {
                    out.v1.push((controller.to_owned(), below(place, root, path)));
                }
            }
        }
        out
    }
}

/// The path up to the component that names the container.
fn up_to<'a>(path: &'a str, id: &str) -> &'a str {
    match path.find(id).filter(|_| !id.is_empty()) {
        Some(at) => {
            let rest = &path[at..];
            &path[..at + rest.find('/').unwrap_or(rest.len())]
        }
        None => path,
    }
}

fn below(place: &Path, root: &str, path: &str) -> PathBuf {
    let path = if root == "/" { path } else { path.strip_prefix(root).unwrap_or(path) };
    place.join(path.trim_start_matches('/'))
}

impl Cgroups {
    fn v1(&self, controller: &str, file: &str) -> Option<String> {
        let (_, dir) = self.v1.iter().find(|(c, _)| c == controller)?;
        fs::read_to_string(dir.join(file)).ok()
    }

    fn has(&self, controller: &str) -> bool {
        self.v1.iter().any(|(c, _)| c == controller)
    }

    fn v2(&self, file: &str) -> String {
        self.v2.as_ref().and_then(|dir| fs::read_to_string(dir.join(file)).ok()).unwrap_or_default()
    }

    /// Time on CPUs, and how it was held up.
    pub fn cpu(&self, out: &mut StatsResponse) {
        if self.has("cpuacct") {
            out.cpu_ns = number(&self.v1("cpuacct", "cpuacct.usage").unwrap_or_default());
        } else {
            out.cpu_ns = 1000 * keyed(&self.v2("cpu.stat"), "usage_usec");
        }
        if self.has("cpu") {
            let stat = self.v1("cpu", "cpu.stat").unwrap_or_default();
            out.throttled_periods = keyed(&stat, "nr_throttled");
            out.throttled_ns = keyed(&stat, "throttled_time");
        } else {
            let stat = self.v2("cpu.stat");
            out.throttled_periods = keyed(&stat, "nr_throttled");
            out.throttled_ns = 1000 * keyed(&stat, "throttled_usec");
        }
    }

    /// docker's figure: without the file pages that the kernel would drop first.
    pub fn memory(&self, out: &mut StatsResponse, total: u64) {
        let (usage, idle, limit);
        if self.has("memory") {
            let read = |file: &str| self.v1("memory", file).unwrap_or_default();
            usage = number(&read("memory.usage_in_bytes"));
            idle = keyed(&read("memory.stat"), "total_inactive_file");
            limit = number(&read("memory.limit_in_bytes"));
            out.oom_kills = keyed(&read("memory.oom_control"), "oom_kill");
        } else {
            usage = number(&self.v2("memory.current"));
            idle = keyed(&self.v2("memory.stat"), "inactive_file");
            limit = number(&self.v2("memory.max"));
            out.oom_kills = keyed(&self.v2("memory.events"), "oom_kill");
        }
        out.memory_bytes = usage.saturating_sub(idle);
        out.memory_limit = if limit == 0 { total } else { limit.min(total) };
    }

    /// Processes and threads.
    pub fn pids(&self, out: &mut StatsResponse) {
        let read = |file: &str| self.v1("pids", file).unwrap_or_else(|| self.v2(file));
        out.pids = number(&read("pids.current"));
        out.pids_limit = number(&read("pids.max"));
    }

    /// Bytes from and to block devices.
    pub fn disks(&self, out: &mut StatsResponse) {
        if self.has("blkio") {
            let text = self
                .v1("blkio", "blkio.throttle.io_service_bytes_recursive")
                .or_else(|| self.v1("blkio", "blkio.throttle.io_service_bytes"))
                .unwrap_or_default();
            (out.blk_read, out.blk_write) = blkio(&text);
        } else {
            (out.blk_read, out.blk_write) = io_stat(&self.v2("io.stat"));
        }
    }
}

/// "max" and what is no number are 0.
fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// A line `key value`.
fn keyed(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' '));
    line.map_or(0, number)
}

/// `8:0 Read 4096`.
fn blkio(text: &str) -> (u64, u64) {
    let sum = |word: &str| {
        text.lines()
            .filter_map(|l| {
                let mut fields = l.split(' ').skip(1);
                (fields.next() == Some(word)).then(|| number(fields.next().unwrap_or_default()))
            })
            .sum()
    };
    (sum("Read"), sum("Write"))
}

/// `8:0 rbytes=1 wbytes=2 ...`.
fn io_stat(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        text.split_ascii_whitespace().filter_map(|f| f.strip_prefix(key)).map(number).sum::<u64>()
    };
    (sum("rbytes="), sum("wbytes="))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        31 30 0:27 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n\
        32 30 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
        33 30 0:29 /a /mem rw - cgroup cgroup rw,memory\nbroken\n";

    #[test]
    fn a_controller_is_where_its_hierarchy_is() {
        let h = Hierarchies::parse(HYBRID);
        let id = "c".repeat(64);
        let text = format!("5:memory:/a/davit/{id}/deeper\n2:cpu,cpuacct:/davit/{id}\n0::/davit/{id}/x/y\n");
        let found = h.find(&text, &id);
        assert_eq!(found.v2, Some(PathBuf::from(format!("/sys/fs/cgroup/unified/davit/{id}"))));
        let of = |c: &str| found.v1.iter().find(|(have, _)| have == c).map(|(_, p)| p.clone());
        assert_eq!(of("memory"), Some(format!("/mem/davit/{id}").into()));
        assert_eq!(of("cpuacct"), Some(format!("/sys/fs/cgroup/cpu/davit/{id}").into()));
        assert!(!found.has("pids"));
    }

    #[test]
    fn the_files_of_both_versions_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("cpu.stat", "usage_usec 5\nnr_throttled 3\nthrottled_usec 7\n");
        write("memory.current", "1000\n");
        write("memory.stat", "anon 1\ninactive_file 400\n");
        write("memory.max", "max\n");
        write("memory.events", "oom 2\noom_kill 1\n");
        write("pids.current", "4\n");
        write("pids.max", "max\n");
        write("io.stat", "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n");
        let mut out = StatsResponse::default();
        let unified = Cgroups { v1: Vec::new(), v2: Some(dir.path().into()) };
        unified.cpu(&mut out);
        unified.memory(&mut out, 5000);
        unified.pids(&mut out);
        unified.disks(&mut out);
        assert_eq!((out.cpu_ns, out.throttled_periods, out.throttled_ns), (5000, 3, 7000));
        assert_eq!((out.memory_bytes, out.memory_limit, out.oom_kills), (600, 5000, 1));
        assert_eq!((out.pids, out.pids_limit, out.blk_read, out.blk_write), (4, 0, 11, 22));
        write("memory.usage_in_bytes", "900");
        write("memory.limit_in_bytes", "2000");
        write("memory.oom_control", "oom_kill_disable 0\noom_kill 9\n");
        write("memory.stat", "inactive_file 1\ntotal_inactive_file 100\n");
        write("blkio.throttle.io_service_bytes", "8:0 Read 3\n8:0 Write 4\n8:0 Sync 9\nTotal 7\n");
        let v1 = ["memory", "blkio"].map(|c| (c.to_owned(), dir.path().to_owned())).to_vec();
        let old = Cgroups { v1, v2: None };
        old.memory(&mut out, 5000);
        old.disks(&mut out);
        assert_eq!((out.memory_bytes, out.memory_limit, out.oom_kills), (800, 2000, 9));
        assert_eq!((out.blk_read, out.blk_write), (3, 4));
    }
}
