//! The container's control groups: which hierarchies it joins, its directories, freezing, killing, removal.
//!
//! Joined always where mounted: pids, memory, freezer, cpu, cpuacct (limits, statistics, pause, kill --all); devices unless all
//! are allowed; cpuset, blkio and hugetlb only where the config limits them: a cpuset costs up to a millisecond to make. `update` joins later
//! what it needs. Nothing here creates a directory outside the container's path, and [`Placement::remove`] removes exactly what was made.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use davit_sys::cgroup::{CgroupError, Entry, Hierarchy, Version, hierarchies, read};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::launch::identity;
use crate::spec::Resources;

pub mod device_program;
pub mod devices;
pub mod freeze;
pub mod limits_v1;
pub mod limits_v2;

/// One cgroup of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// v1: the hierarchy's controllers; empty: the unified hierarchy.
    pub controllers: Vec<String>,
    /// Absolute.
    pub directory: PathBuf,
    /// The hierarchy's mount point: removal stops there.
    pub mount_point: PathBuf,
}

/// All cgroups of the container; none where they are not available and nothing was asked of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// In the order of joining.
    pub joined: Vec<Joined>,
}

const ALWAYS: [&str; 5] = ["pids", "memory", "freezer", "cpu", "cpuacct"];

impl Joined {
    /// Which interface it speaks.
    pub fn version(&self) -> Version {
        if self.controllers.is_empty() { Version::V2 } else { Version::V1 }
    }
}

/// Decides which cgroups a container gets; makes none. `unified`: one of the unified hierarchy even where that limits nothing.
pub fn plan(path: &str, id: &str, resources: Option<&Resources>, unified: bool) -> Result<Placement> {
    let all = hierarchies()?;
    let mut placement = choose(&all, path, id, resources);
    if let Some(v2) = all.iter().find(|h| h.version == Version::V2)
        && unified
        && placement.unified().is_none()
    {
        placement.joined.push(place(v2, path, id));
    }
    Ok(placement)
}

fn place(h: &Hierarchy, path: &str, id: &str) -> Joined {
    Joined {
        controllers: h.controllers.clone(),
        directory: h.directory(&container_path(path, id, h.version)),
        mount_point: h.mount_point.clone(),
    }
}

fn choose(all: &[Hierarchy], path: &str, id: &str, resources: Option<&Resources>) -> Placement {
    let has_v1 = all.iter().any(|h| h.controllers.iter().any(|c| !c.starts_with("name=")));
    let wanted = wanted(resources);
    let devices_v1 = all.iter().any(|h| h.controllers.iter().any(|c| c == "devices"));
    let chosen = |h: &&Hierarchy| match h.version {
        Version::V1 => h.controllers.iter().any(|c| wanted.contains(c.as_str())),
        Version::V2 => {
            !has_v1
                || (wanted.contains("hugetlb") && h.available().iter().any(|c| c == "hugetlb"))
                || (wanted.contains("devices") && !devices_v1)
        }
    };
    Placement { joined: all.iter().filter(chosen).map(|h| place(h, path, id)).collect() }
}

fn wanted(resources: Option<&Resources>) -> BTreeSet<&'static str> {
    let mut set = BTreeSet::from(ALWAYS);
    let Some(r) = resources else {
        set.insert("devices");
        return set;
    };
    if !r.all_devices_allowed() {
        set.insert("devices");
    }
    if r.cpu.as_ref().is_some_and(|c| !c.cpus.is_empty() || !c.mems.is_empty()) {
        set.insert("cpuset");
    }
    if r.block_io_asked() {
        set.insert("blkio");
    }
    if !r.hugepage_limits.is_empty() {
        set.insert("hugetlb");
    }
    set
}

/// `..` cannot lead out of the hierarchy; an empty path is `/davit/ID` on v2 (our own cgroup has processes, so it can have no children
/// with controllers) and ID below our own cgroup on v1.
fn container_path(path: &str, id: &str, version: Version) -> PathBuf {
    if path.is_empty() {
        return if version == Version::V2 { PathBuf::from("/davit").join(id) } else { PathBuf::from(id) };
    }
    let mut clean = PathBuf::from(if path.starts_with('/') { "/" } else { "" });
    for component in Path::new(path).components() {
        match component {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

impl Placement {
    /// Makes the directories, writes the limits and opens the doors, in the order of `joined`. Where cgroups cannot be written and nothing
    /// was asked of them, the container goes without (and without trace in `joined`).
    pub fn make(&mut self, resources: Option<&Resources>) -> Result<Vec<Entry>> {
        let needed = resources.is_some_and(Resources::limits_asked);
        let mut entries = Vec::with_capacity(self.joined.len());
        let mut kept = Vec::with_capacity(self.joined.len());
        for group in std::mem::take(&mut self.joined) {
            match make_directory(&group, resources)
                .and_then(|()| Entry::open(&group.directory, group.version()))
            {
                Ok(entry) => {
                    entries.push(entry);
                    kept.push(group);
                }
                Err(e) if !needed && is_refusal(&e) => {}
                Err(e) => {
                    self.joined = kept;
                    self.joined.push(group);
                    return Err(e.into());
                }
            }
        }
        self.joined = kept;
        self.limit(resources)?;
        Ok(entries)
    }

    fn limit(&self, resources: Option<&Resources>) -> Result<()> {
        let default = Resources::default();
        let resources = resources.unwrap_or(&default);
        self.apply(resources)?;
        if let Some(group) = self.controller("devices") {
            devices::restrict(&group.directory, &resources.devices)?;
        } else if let Some(group) = self.unified().filter(|_| !resources.all_devices_allowed()) {
            devices::restrict_unified(&group.directory, &resources.devices, identity::is_nested())?;
        }
        Ok(())
    }

    /// New device rules for a running container; none: those that it has stay.
    pub fn change_devices(&self, resources: &Resources) -> Result<()> {
        if resources.devices.is_empty() {
            return Ok(());
        }
        if let Some(group) = self.controller("devices") {
            return Ok(devices::exchange(&group.directory, &resources.devices)?);
        }
        match self.unified() {
            Some(group) => {
                devices::restrict_unified(&group.directory, &resources.devices, identity::is_nested())
            }
            // Nothing restricts a privileged container, and update does not begin to.
            None => Ok(()),
        }
    }

    /// Writes limits (not device rules) into the cgroups.
    pub fn apply(&self, resources: &Resources) -> Result<()> {
        match self.unified() {
            Some(group) if self.joined.len() == 1 => limits_v2::apply(&group.directory, resources),
            Some(group) => {
                // Hybrid: the unified hierarchy has what no v1 hierarchy has.
                let rest =
                    Resources { hugepage_limits: resources.hugepage_limits.clone(), ..Resources::default() };
                limits_v2::apply(&group.directory, &rest)?;
                limits_v1::apply(self, resources)
            }
            None => limits_v1::apply(self, resources),
        }
    }

    /// Joins hierarchies that `resources` needs and the container is not in yet, with all its processes.
    pub fn extend(&mut self, path: &str, id: &str, resources: &Resources) -> Result<()> {
        let more = plan(path, id, Some(resources), false)?;
        let pids = self.pids();
        for group in more.joined {
            if self.joined.contains(&group) || group.controllers.iter().any(|c| c == "devices") {
                continue;
            }
            make_directory(&group, Some(resources))?;
            for pid in &pids {
                davit_sys::cgroup::write(&group.directory.join("cgroup.procs"), &pid.to_string())?;
            }
            self.joined.push(group);
        }
        Ok(())
    }

    /// The cgroup with this v1 controller.
    pub fn controller(&self, name: &str) -> Option<&Joined> {
        self.joined.iter().find(|j| j.controllers.iter().any(|c| c == name))
    }

    /// The v2 cgroup.
    pub fn unified(&self) -> Option<&Joined> {
        self.joined.iter().find(|j| j.controllers.is_empty())
    }

    /// What knows all processes best.
    fn main(&self) -> Option<&Joined> {
        self.controller("freezer").or_else(|| self.unified()).or_else(|| self.joined.first())
    }

    /// Every process in the container's cgroup and those below it.
    pub fn pids(&self) -> Vec<i32> {
        let mut pids = BTreeSet::new();
        if let Some(group) = self.main() {
            collect(&group.directory, &mut pids);
        }
        pids.into_iter().collect()
    }

    /// Removes the directories, cgroups below them first. Dying processes keep one busy for a moment: tried for a second. All are
    /// tried; the first failure is returned.
    pub fn remove(&self) -> Result<()> {
        let mut failed = Ok(());
        for group in &self.joined {
            let done = remove_tree(&group.directory);
            if done.is_ok() {
                remove_parents(group);
            }
            if failed.is_ok() {
                failed = done;
            }
        }
        failed
    }
}

fn collect(directory: &Path, pids: &mut BTreeSet<i32>) {
    let text = read(&directory.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
    for below in subdirectories(directory) {
        collect(&below, pids);
    }
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .collect()
}

fn is_refusal(e: &CgroupError) -> bool {
    matches!(
        e.source.kind(),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotFound
    ) || matches!(e.source.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EBUSY))
}

fn make_directory(group: &Joined, resources: Option<&Resources>) -> Result<(), CgroupError> {
    // The last container below a parent may be removing it at this moment.
    let mut tries = 0;
    loop {
        match make_path(group) {
            Err(e) if e.source.kind() == ErrorKind::NotFound && tries < 20 => tries += 1,
            other => break other?,
        }
    }
    if group.version() == Version::V2 {
        limits_v2::delegate(group, resources)?;
    }
    Ok(())
}

fn make_path(group: &Joined) -> Result<(), CgroupError> {
    let mut missing: Vec<&Path> = Vec::new();
    let mut at = group.directory.as_path();
    while at != group.mount_point && at.starts_with(&group.mount_point) && !at.exists() {
        missing.push(at);
        at = at.parent().unwrap_or(&group.mount_point);
    }
    for directory in missing.into_iter().rev() {
        match fs::create_dir(directory) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                return Err(CgroupError { operation: "make".into(), path: directory.into(), source: e });
            }
            _ => {}
        }
        if group.controllers.iter().any(|c| c == "cpuset") {
            limits_v1::inherit_cpuset(directory)?;
        }
    }
    Ok(())
}

/// Empty directories above the container's go too, so that nothing is left after the last container; only below a top directory named
/// `davit...`, because any other may be an administrator's.
fn remove_parents(group: &Joined) {
    let Ok(below) = group.directory.strip_prefix(&group.mount_point) else { return };
    let ours = below.iter().next().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("davit"));
    let mut at = group.directory.parent();
    while let Some(directory) = at.filter(|d| ours && *d != group.mount_point) {
        if fs::remove_dir(directory).is_err() {
            return;
        }
        at = directory.parent();
    }
}

fn remove_tree(directory: &Path) -> Result<()> {
    let mut pause = Duration::from_micros(200);
    let mut waited = Duration::ZERO;
    loop {
        let source = match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => e,
        };
        for below in subdirectories(directory) {
            remove_tree(&below)?;
        }
        if waited > Duration::from_secs(1) {
            return Err(Error::Cgroup(CgroupError {
                operation: "remove".into(),
                path: directory.into(),
                source,
            }));
        }
        std::thread::sleep(pause);
        waited += pause;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hybrid() -> Vec<Hierarchy> {
        let controllers =
            ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "name=systemd"];
        let lines: Vec<String> = controllers
            .iter()
            .map(|c| format!("1 1 0:1 / /sys/fs/cgroup/{c} rw - cgroup cgroup rw,{c}"))
            .chain(["1 1 0:1 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw".to_owned()])
            .collect();
        davit_sys::cgroup::parse(&lines.join("\n"), "1:cpu:/me\n0::/\n")
    }

    fn names(p: &Placement) -> Vec<String> {
        p.joined.iter().map(|j| j.directory.display().to_string().replace("/sys/fs/cgroup/", "")).collect()
    }

    #[test]
    fn only_what_is_needed_is_joined() {
        let plain = choose(&hybrid(), "/davit/x", "x", Some(&Resources::default()));
        let want = [
            "cpu/davit/x",
            "cpuacct/davit/x",
            "memory/davit/x",
            "devices/davit/x",
            "freezer/davit/x",
            "pids/davit/x",
        ];
        assert_eq!(names(&plain), want);
        let text = r#"{"devices":[{"allow":true,"access":"rwm"}],"cpu":{"cpus":"0"}}"#;
        let privileged = choose(&hybrid(), "/davit/x", "x", Some(&serde_json::from_str(text).unwrap()));
        assert!(privileged.controller("devices").is_none() && privileged.controller("cpuset").is_some());
        assert!(privileged.unified().is_none());
    }

    #[test]
    fn paths_follow_runcs_rules_and_stay_inside() {
        let cpu = |path: &str| names(&choose(&hybrid(), path, "id", None)).remove(0);
        assert_eq!(cpu("/davit/id"), "cpu/davit/id");
        assert_eq!(cpu("rel/id"), "cpu/me/rel/id");
        assert_eq!(cpu(""), "cpu/me/id");
        assert_eq!(cpu("/../../../etc"), "cpu/etc");
        assert_eq!(cpu("../../../etc"), "cpu/me/etc");
    }

    #[test]
    fn a_machine_with_v2_alone_has_one_group() {
        let all =
            davit_sys::cgroup::parse("1 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "0::/user.slice\n");
        assert_eq!(names(&choose(&all, "", "id", None)), ["davit/id"]);
        assert_eq!(names(&choose(&all, "/a/b", "id", None)), ["a/b"]);
    }
}
