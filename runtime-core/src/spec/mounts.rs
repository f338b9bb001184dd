//! What is mounted into a container: docker's defaults, the generated files of /etc, and what was asked for.

use std::path::{Path, PathBuf};

use davit_contracts::runtime::{ContainerSpec, MountPoint};

use super::merge::clean;
use super::oci::Mount;
use crate::error::RuntimeError;

/// docker's size of /dev/shm.
const SHM_SIZE: u64 = 64 << 20;

/// docker's list; what an image's programs must not see.
pub const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// docker's list; what they must not write.
pub const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Where /dev/shm comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shm {
    /// A tmpfs of its own.
    Own,
    /// From there, where it is another container's or the host's.
    Bind(PathBuf),
}

/// What decides about the mounts besides the spec.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// As asked for.
    pub spec: &'a ContainerSpec,
    /// Binds and volumes with their sources on the host.
    pub points: &'a [MountPoint],
    /// The directory of the generated `hosts`, `hostname` and `resolv.conf`.
    pub files: &'a Path,
    /// The network namespace is the host's.
    pub host_network: bool,
    /// Where /dev/shm comes from; none: there is none.
    pub shm: Option<&'a Shm>,
    /// Uid 0 of a user namespace only.
    pub rootless: bool,
    /// `--privileged`.
    pub privileged: bool,
    /// /sys/fs/cgroup is writable also in a container that is not privileged.
    pub writable_cgroups: bool,
}

/// All mounts in the order in which they are to be made: parents before what lies below them.
pub fn all(input: &Input<'_>) -> Result<Vec<Mount>, RuntimeError> {
    let mut asked = Vec::new();
    for point in input.points {
        asked.push(bind_point(point));
    }
    for mount in input.spec.mounts.iter().filter(|m| m.r#type == "tmpfs") {
        let mut options: Vec<String> = mount
            .options
            .iter()
            .map(|(k, v)| if v.is_empty() { k.clone() } else { format!("{k}={v}") })
            .collect();
        options.sort();
        if mount.read_only {
            options.push("ro".to_owned());
        }
        asked.push(tmpfs(&mount.target, &options));
    }
    for text in &input.spec.tmpfs {
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        if !path.starts_with('/') {
            return Err(RuntimeError::Invalid(format!(
                "invalid --tmpfs '{text}': the path must be absolute"
            )));
        }
        let options: Vec<String> = options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect();
        asked.push(tmpfs(path, &options));
    }
    if let Some(bad) = asked.iter().find(|m| is_in_proc(&m.destination)) {
        return Err(RuntimeError::Invalid(format!(
            "\"{}\" cannot be mounted because it is inside /proc",
            bad.destination
        )));
    }
    // A stable sort: of two mounts of one depth the later one asked for wins.
    asked.sort_by_key(|m: &Mount| m.destination.bytes().filter(|b| *b == b'/').count());
    let mut mounts = defaults(input);
    mounts.extend(etc_files(input));
    mounts.retain(|m| !asked.iter().any(|a| a.destination == m.destination));
    mounts.extend(asked);
    Ok(mounts)
}

/// What lxcfs and its like put over files of /proc; runc allows the same.
const OVER_PROC: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// A volume of an image over /proc would hide what protects the container: its masked paths, and the files by which a
/// security label is set (CVE-2019-16884).
fn is_in_proc(target: &str) -> bool {
    let target = clean(target);
    (target == "/proc" || target.starts_with("/proc/")) && !OVER_PROC.contains(&target.as_str())
}

fn defaults(input: &Input<'_>) -> Vec<Mount> {
    let access = if input.privileged { "rw" } else { "ro" };
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if !input.rootless {
        // The group tty; a rootless instance may have no such gid to map.
        pts.push("gid=5");
    }
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &pts),
    ];
    // sysfs belongs to the network namespace: without an own one a user namespace cannot mount it.
    mounts.push(if input.rootless && input.host_network {
        mount("/sys", "bind", "/sys", &["rbind", "nosuid", "noexec", "nodev", access])
    } else {
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access])
    });
    if !input.rootless {
        mounts.push(mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", if input.writable_cgroups { "rw" } else { access }],
        ));
    }
    mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
    let size = if input.spec.shm_size == 0 { SHM_SIZE } else { input.spec.shm_size };
    mounts.extend(input.shm.map(|shm| match shm {
        Shm::Bind(path) => mount("/dev/shm", "bind", &path.display().to_string(), &["rbind", "rprivate"]),
        Shm::Own => mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", &format!("size={size}")],
        ),
    }));
    mounts
}

fn etc_files(input: &Input<'_>) -> impl Iterator<Item = Mount> {
    let options: &[&str] =
        if input.spec.read_only { &["rbind", "rprivate", "ro"] } else { &["rbind", "rprivate"] };
    ["resolv.conf", "hostname", "hosts"].into_iter().map(move |name| {
        let source = input.files.join(name).display().to_string();
        mount(&format!("/etc/{name}"), "bind", &source, options)
    })
}

fn bind_point(point: &MountPoint) -> Mount {
    let propagation = if point.propagation.is_empty() { "rprivate" } else { &point.propagation };
    let access = if point.rw { "rw" } else { "ro" };
    let has = |option: &str| point.options.iter().any(|o| o == option);
    let target = clean(&point.target);
    let mut m = if point.fs_type == "tmpfs" {
        mount(&target, "tmpfs", "tmpfs", &["nosuid", "nodev", access])
    } else {
        let bind = if has("bind") { "bind" } else { "rbind" };
        mount(&target, "bind", &point.source, &[bind, propagation, access])
    };
    let further = point.options.iter().filter(|o| !matches!(o.as_str(), "bind" | "rbind" | "ro" | "rw"));
    m.options.extend(further.cloned());
    m
}

fn tmpfs(target: &str, asked: &[String]) -> Mount {
    let mut m = mount(&clean(target), "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec"]);
    for option in asked {
        // "exec" takes the default "noexec" back, and so on.
        m.options.retain(|o| o.strip_prefix("no") != Some(option));
        m.options.push(option.clone());
    }
    m
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: kind.to_owned(),
        source: source.to_owned(),
        options: options.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input<'a>(spec: &'a ContainerSpec, points: &'a [MountPoint]) -> Input<'a> {
        Input {
            spec,
            points,
            files: Path::new("/run/c"),
            host_network: false,
            shm: Some(&Shm::Own),
            rootless: false,
            privileged: false,
            writable_cgroups: false,
        }
    }

    #[test]
    fn what_was_asked_for_replaces_a_default_and_parents_come_first() {
        let spec = ContainerSpec {
            tmpfs: vec!["/a/b:exec,size=1m".into(), "/dev/shm".into()],
            ..ContainerSpec::default()
        };
        let points =
            [MountPoint { source: "/h".into(), target: "/a/".into(), rw: false, ..Default::default() }];
        let mounts = all(&input(&spec, &points)).unwrap();
        let at = |d: &str| mounts.iter().position(|m| m.destination == d).unwrap();
        assert!(at("/a") < at("/a/b"));
        assert_eq!(mounts.iter().filter(|m| m.destination == "/dev/shm").count(), 1);
        assert_eq!(mounts[at("/a/b")].options, ["nosuid", "nodev", "exec", "size=1m"]);
        assert_eq!(mounts[at("/a")].options, ["rbind", "rprivate", "ro"]);
        assert_eq!(mounts[at("/etc/hosts")].source, "/run/c/hosts");
    }

    #[test]
    fn points_carry_what_their_volumes_ask_for() {
        let point = |options: &[&str], fs_type: &str, rw| MountPoint {
            source: "/h".into(),
            target: "/t".into(),
            rw,
            options: options.iter().map(ToString::to_string).collect(),
            fs_type: fs_type.into(),
            ..MountPoint::default()
        };
        let options = |p: MountPoint| {
            let mounts = all(&input(&ContainerSpec::default(), &[p])).unwrap();
            mounts.into_iter().find(|m| m.destination == "/t").map(|m| (m.kind, m.options)).unwrap()
        };
        assert_eq!(options(point(&["bind", "ro"], "", false)).1, ["bind", "rprivate", "ro"]);
        assert_eq!(options(point(&["rro"], "", false)).1, ["rbind", "rprivate", "ro", "rro"]);
        let (kind, list) = options(point(&["size=1m", "uid=7"], "tmpfs", true));
        assert_eq!((kind.as_str(), list.join(",").as_str()), ("tmpfs", "nosuid,nodev,rw,size=1m,uid=7"));
    }

    #[test]
    fn a_relative_tmpfs_is_refused() {
        let spec = ContainerSpec { tmpfs: vec!["a".into()], ..ContainerSpec::default() };
        assert!(all(&input(&spec, &[])).is_err());
    }
}
