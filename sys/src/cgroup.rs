//! Where the control groups of this machine are (cgroups(7)): v1, v2 and hybrid, and joining one without paying for a migration.
//!
//! **The cheap way in.** Writing a pid into `cgroup.procs` takes a kernel-wide lock whose cold cost is an RCU grace period (several milliseconds).
//! The kernel takes none when a thread moves *itself*: `0` written into `tasks` (v1). On v2 a process is cloned
//! into its cgroup (CLONE_INTO_CGROUP). [`Entry`] is the opened file that makes the former possible after privileges are gone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Which interface a hierarchy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One or several named controllers.
    V1,
    /// The unified hierarchy.
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// v1 or v2.
    pub version: Version,
    /// v1: its controllers (`cpu`, `name=systemd`); v2: empty, see [`Hierarchy::available`].
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Which cgroup lies at the mount point; `/` but in containers.
    pub mount_root: String,
    /// The calling process's cgroup in it.
    pub own: String,
}

/// A file of the cgroup file system could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {path}")]
pub struct CgroupError {
    /// `read`, `write "5" to`, `make`.
    pub operation: String,
    /// Which file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl Hierarchy {
    /// The directory of a cgroup given by its path from the hierarchy's mounted root (absolute), or from our own cgroup (relative).
    pub fn directory(&self, path: &Path) -> PathBuf {
        if let Ok(from_root) = path.strip_prefix("/") {
            return self.mount_point.join(from_root);
        }
        let own = self.own.strip_prefix(&self.mount_root).unwrap_or(&self.own);
        self.mount_point.join(own.trim_start_matches('/')).join(path)
    }

    /// v2: the controllers that its root offers.
    pub fn available(&self) -> Vec<String> {
        let text = fs::read_to_string(self.mount_point.join("cgroup.controllers")).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    }
}

/// All hierarchies mounted in this mount namespace, each once.
pub fn hierarchies() -> Result<Vec<Hierarchy>, CgroupError> {
    Ok(parse(&read(Path::new("/proc/self/mountinfo"))?, &read(Path::new("/proc/self/cgroup"))?))
}

/// Pure part of [`hierarchies`]: mountinfo (proc(5)) and /proc/self/cgroup as text.
pub fn parse(mountinfo: &str, own: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut right = right.split(' ');
        let version = match right.next() {
            Some("cgroup") => Version::V1,
            Some("cgroup2") => Version::V2,
            _ => continue,
        };
        let mut left = left.split(' ').skip(3);
        let (Some(root), Some(point)) = (left.next(), left.next()) else { continue };
        let options = right.nth(1).unwrap_or_default();
        let controllers: Vec<String> = match version {
            Version::V2 => Vec::new(),
            Version::V1 => options.split(',').filter(|o| is_controller(o)).map(str::to_owned).collect(),
        };
        // The same hierarchy may be mounted twice (or over-mounted): the first full one is it.
        if found.iter().any(|h| h.version == version && h.controllers == controllers) {
            continue;
        }
        let own = own_path(own, version, &controllers);
        let (mount_point, mount_root) = (PathBuf::from(unescape(point)), unescape(root));
        found.push(Hierarchy { version, controllers, mount_point, mount_root, own });
    }
    found
}

fn is_controller(option: &str) -> bool {
    const CONTROLLERS: [&str; 13] = [
        "cpu",
        "cpuacct",
        "cpuset",
        "memory",
        "devices",
        "freezer",
        "blkio",
        "pids",
        "net_cls",
        "net_prio",
        "perf_event",
        "hugetlb",
        "rdma",
    ];
    option.starts_with("name=") || CONTROLLERS.contains(&option) || option == "misc"
}

fn own_path(text: &str, version: Version, controllers: &[String]) -> String {
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(list), Some(path)) = (fields.next(), fields.next()) else { continue };
        let matches = match version {
            Version::V2 => list.is_empty(),
            Version::V1 => !list.is_empty() && list.split(',').any(|c| controllers.iter().any(|x| x == c)),
        };
        if matches {
            return path.to_owned();
        }
    }
    "/".to_owned()
}

/// Undoes the octal escapes of mountinfo (space, tab, newline, backslash).
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let Some((first, rest)) = bytes.split_first() {
        let octal =
            (*first == b'\\').then(|| rest.get(..3)).flatten().and_then(|d| std::str::from_utf8(d).ok());
        if let Some(value) = octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            out.push(value);
            bytes = &rest[3..];
        } else {
            out.push(*first);
            bytes = rest;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The opened `tasks` (v1) or `cgroup.procs` (v2) file of a cgroup: whoever holds it may enter, even without privileges,
/// because the kernel checks the rights of the opener.
#[derive(Debug)]
pub struct Entry(OwnedFd);

impl Entry {
    /// Opens the door of the cgroup at `directory`.
    pub fn open(directory: &Path, version: Version) -> Result<Self, CgroupError> {
        let path = directory.join(if version == Version::V1 { "tasks" } else { "cgroup.procs" });
        let opened = OpenOptions::new().write(true).open(&path);
        let file = opened.map_err(|source| CgroupError { operation: "open".into(), path, source })?;
        Ok(Self(file.into()))
    }

    /// Takes one that was sent.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Moves the calling thread (v1) or process (v2) there. A caller of the v1 form must be single-threaded to be moved whole.
    pub fn join(self) -> io::Result<()> {
        File::from(self.0).write_all(b"0")
    }
}

impl AsFd for Entry {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Reads a control file.
pub fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError {
        operation: "read".into(),
        path: path.into(),
        source,
    })
}

/// Writes one value in one write(2), as control files want it; never creates a file.
pub fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    let done = OpenOptions::new().write(true).open(path).and_then(|mut f| f.write_all(value.as_bytes()));
    let operation = || format!("write {value:?} to");
    done.map_err(|source| CgroupError { operation: operation(), path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 24 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 31 0:28 / /sys/fs/cgroup/with\\040space rw,relatime shared:9 - cgroup cgroup rw,xattr,name=systemd
34 31 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
35 31 0:27 / /mnt/again rw,relatime - cgroup cgroup rw,cpu,cpuacct
";
    const OWN: &str = "3:name=systemd:/user\n2:cpu,cpuacct:/a/b\n0::/c\n";

    #[test]
    fn hybrid_hierarchies_are_found_once_each_with_our_own_place() {
        let all = parse(HYBRID, OWN);
        assert_eq!(all.len(), 3);
        assert_eq!((all[0].controllers.join("+"), all[0].own.as_str()), ("cpu+cpuacct".into(), "/a/b"));
        assert_eq!(
            (all[1].mount_point.to_str(), all[1].own.as_str()),
            (Some("/sys/fs/cgroup/with space"), "/user")
        );
        assert_eq!((all[2].version, all[2].own.as_str()), (Version::V2, "/c"));
    }

    #[test]
    fn absolute_paths_start_at_the_mount_and_relative_ones_at_our_cgroup() {
        let all = parse(HYBRID, OWN);
        let cpu = &all[0];
        assert_eq!(cpu.directory(Path::new("/davit/x")), Path::new("/sys/fs/cgroup/cpu,cpuacct/davit/x"));
        assert_eq!(cpu.directory(Path::new("x")), Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b/x"));
        let inside = Hierarchy { mount_root: "/a".into(), ..cpu.clone() };
        assert_eq!(inside.directory(Path::new("x")), Path::new("/sys/fs/cgroup/cpu,cpuacct/b/x"));
    }
}
