//! Kills what a container left behind when its monitor died without a trace: processes by record and by cgroup, and the OCI runtime's
//! own state.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use davit_wire::config::RuntimeCommand;
use rustix::process::{Pid, Signal, kill_process, pidfd_send_signal};

use super::record::ProcessRecord;

/// How long killed processes may take to leave their cgroup.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where containers' cgroups are when nothing else was asked for.
const DEFAULT_PARENT: &str = "davit";

/// What is known about the dead.
#[derive(Debug, Clone, Default)]
pub struct Leftovers {
    /// The container's id.
    pub id: String,
    /// Its first process, if the record names one.
    pub process: Option<ProcessRecord>,
    /// A monitor that does not answer any more.
    pub monitor: Option<ProcessRecord>,
    /// The OCI runtime and its `--root`.
    pub runtime: Option<(RuntimeCommand, PathBuf)>,
    /// Parent of the container's cgroup.
    pub cgroup_parent: String,
}

/// Kills and removes; blocking. What is not there is success.
pub fn clear(left: &Leftovers) -> io::Result<()> {
    for process in [left.monitor, left.process].into_iter().flatten() {
        if let Ok(fd) = process.as_ref().pidfd() {
            let _ = pidfd_send_signal(fd, Signal::KILL);
        }
    }
    if let Some((runtime, root)) = &left.runtime
        && root.join(&left.id).exists()
    {
        let _ = Command::new(&runtime.path)
            .args(&runtime.args)
            .arg("--root")
            .arg(root)
            .args(["delete", "--force", &left.id])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .status();
    }
    clear_cgroups(&left.cgroup_parent, &left.id)
}

/// Ends what is in a container's cgroups and removes them; blocking. What is not there is success.
pub fn clear_cgroups(parent: &str, id: &str) -> io::Result<()> {
    let cgroups = cgroups(parent, id);
    // In all hierarchies before any is waited for: what one of them holds frozen leaves none of the others.
    for cgroup in &cgroups {
        end(cgroup);
    }
    for cgroup in &cgroups {
        empty(cgroup)?;
    }
    Ok(())
}

/// Thaws and kills what is in a cgroup and below it.
fn end(cgroup: &Path) {
    for inner in nested(cgroup).unwrap_or_default() {
        end(&inner);
    }
    // A frozen process of cgroup v1 dies only when it is thawed (freezer(7)).
    let _ = fs::write(cgroup.join("freezer.state"), "THAWED");
    for pid in fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn nested(cgroup: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(fs::read_dir(cgroup)?.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect())
}

/// Its directories in every cgroup hierarchy that is mounted here.
fn cgroups(parent: &str, id: &str) -> Vec<PathBuf> {
    let parent = match parent.trim_matches('/') {
        "" => DEFAULT_PARENT,
        parent => parent,
    };
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    cgroup_mounts(&mountinfo).map(|m| m.join(parent).join(id)).filter(|p| p.is_dir()).collect()
}

/// Removes the default parent of our containers' cgroups from every hierarchy where it is empty: with the last container and
/// the last daemon gone nothing of us stays. rmdir(2) refuses a parent that another instance still uses.
pub fn remove_empty_parents() {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for mount in cgroup_mounts(&mountinfo) {
        let _ = fs::remove_dir(mount.join(DEFAULT_PARENT));
    }
}

/// proc_pid_mountinfo(5): field 5 is the mount point, the type follows the lone hyphen.
fn cgroup_mounts(mountinfo: &str) -> impl Iterator<Item = PathBuf> {
    mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup").then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

fn empty(cgroup: &Path) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let inside = match nested(cgroup) {
            Ok(inside) => inside,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        for inner in inside {
            empty(&inner)?;
        }
        end(cgroup);
        match fs::remove_dir(cgroup) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if Instant::now() > deadline => return Err(e),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_mounts_are_found_in_mountinfo() {
        let text = "30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n31 30 0:27 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n\
                    32 30 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\nbroken\n";
        let got: Vec<_> = cgroup_mounts(text).collect();
        assert_eq!(got, [PathBuf::from("/sys/fs/cgroup/unified"), "/sys/fs/cgroup/cpu".into()]);
    }

    #[test]
    fn a_recorded_process_is_killed_and_a_recycled_one_is_not() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let process = ProcessRecord::of(child.id() as i32).unwrap();
        let other = ProcessRecord { start_time: process.start_time + 1, ..process };
        clear(&Leftovers { id: "none".into(), process: Some(other), ..Leftovers::default() }).unwrap();
        assert!(process.as_ref().is_alive());
        clear(&Leftovers { id: "none".into(), process: Some(process), ..Leftovers::default() }).unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
