//! A private host's place in the machine's cgroup hierarchies.
//!
//! Each hierarchy gets one directory below the caller's own; the host's cgroup namespace is rooted there, so davit sees an
//! empty tree of the machine's real shape (v1, v2 or both) and whatever it leaves is found and removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const PREFIX: &str = "davit-test-";

/// The directories of one host.
#[derive(Debug)]
pub struct Cgroups {
    dirs: Vec<PathBuf>,
}

impl Cgroups {
    /// Makes the directories of the host `name`, and removes those that dead test processes left.
    pub fn create(name: &str) -> io::Result<Self> {
        let mut dirs = Vec::new();
        for parent in own()? {
            sweep(&parent);
            let dir = parent.join(format!("{PREFIX}{}-{name}", std::process::id()));
            fs::create_dir(&dir)?;
            // A cpuset without processors accepts no process (cgroup v1, cpuset.rst).
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let (Ok(value), true) = (fs::read(parent.join(file)), dir.join(file).exists()) {
                    let _ = fs::write(dir.join(file), value);
                }
            }
            dirs.push(dir);
        }
        Ok(Self { dirs })
    }

    /// The files that a process writes its pid into to enter.
    pub fn procs(&self) -> impl Iterator<Item = PathBuf> {
        self.dirs.iter().map(|d| d.join("cgroup.procs"))
    }

    /// Removes all; call it when the host's processes are gone.
    pub fn remove(&self) {
        self.dirs.iter().for_each(|d| remove_tree(d));
    }
}

/// The caller's own cgroup in each mounted hierarchy.
fn own() -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_to_string("/proc/self/cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mut found = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut right = right.split(' ');
        let (Some(fstype), Some(_), Some(options)) = (right.next(), right.next(), right.next()) else {
            continue;
        };
        let Some(target) = left.split(' ').nth(4) else { continue };
        let ours = |controllers: &str| match fstype {
            "cgroup2" => controllers.is_empty(),
            "cgroup" => {
                !controllers.is_empty() && controllers.split(',').all(|c| options.split(',').any(|o| o == c))
            }
            _ => false,
        };
        let mut lines =
            paths.lines().filter_map(|l| l.splitn(3, ':').skip(1).collect::<Vec<_>>().try_into().ok());
        if let Some([_, path]) = lines.find(|[controllers, _]: &[&str; 2]| ours(controllers)) {
            let dir = Path::new(target).join(path.trim_start_matches('/'));
            if dir.is_dir() && !found.contains(&dir) {
                found.push(dir);
            }
        }
    }
    Ok(found)
}

fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).and_then(|n| n.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove_tree(&entry.path());
        }
    }
}

/// A cgroup is removed by rmdir, children first; a dying process may hold it for a moment.
fn remove_tree(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    for _ in 0..100 {
        match fs::remove_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            _ => return,
        }
    }
}
