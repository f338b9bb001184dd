//! The config.json that `davit-runner spec` writes: a shell with docker's default capabilities, paths and devices.

use std::path::PathBuf;

use super::linux::Namespace;
use super::process::{Capabilities, Process, Rlimit};
use super::resources::{DeviceRule, Resources};
use super::{IdMapping, Linux, Mount, NamespaceKind, OCI_VERSION, Root, Spec};

const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The template; `rootless` adds a user namespace with our own ids and leaves out what it cannot have.
pub fn spec(rootless: bool) -> Spec {
    let names = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let capabilities = Capabilities {
        bounding: names(&CAPABILITIES),
        effective: names(&CAPABILITIES),
        permitted: names(&CAPABILITIES),
        ..Capabilities::default()
    };
    let process = Process {
        terminal: true,
        args: vec!["sh".into()],
        env: names(&["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"]),
        cwd: "/".into(),
        capabilities: Some(capabilities),
        rlimits: vec![Rlimit { kind: "RLIMIT_NOFILE".into(), hard: 1024, soft: 1024 }],
        no_new_privileges: true,
        ..Process::default()
    };
    Spec {
        oci_version: OCI_VERSION.into(),
        process: Some(process),
        root: Some(Root { path: "rootfs".into(), readonly: true }),
        hostname: Some("davit".into()),
        mounts: mounts(rootless),
        linux: linux(rootless),
        ..Spec::default()
    }
}

fn mounts(rootless: bool) -> Vec<Mount> {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| Mount {
        destination: destination.into(),
        kind: kind.into(),
        source: source.into(),
        options: options.iter().map(|s| (*s).to_owned()).collect(),
        ..Mount::default()
    };
    let pts: &[&str] = &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    let sysfs = if rootless {
        mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"])
    } else {
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
    };
    let mut all = vec![
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", if rootless { &pts[..5] } else { pts }),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        sysfs,
    ];
    if !rootless {
        all.push(mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        ));
    }
    all
}

fn linux(rootless: bool) -> Linux {
    use NamespaceKind as N;
    let mut kinds = vec![N::Pid, N::Ipc, N::Uts, N::Mount, N::Cgroup];
    kinds.push(if rootless { N::User } else { N::Network });
    let own = |host_id| vec![IdMapping { container_id: 0, host_id, size: 1 }];
    let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
    let deny = DeviceRule { access: "rwm".into(), ..DeviceRule::default() };
    Linux {
        namespaces: kinds.into_iter().map(|kind| Namespace { kind, path: PathBuf::new() }).collect(),
        uid_mappings: if rootless { own(nix::unistd::geteuid().as_raw()) } else { vec![] },
        gid_mappings: if rootless { own(nix::unistd::getegid().as_raw()) } else { vec![] },
        resources: (!rootless).then(|| Resources { devices: vec![deny], ..Resources::default() }),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        ..Linux::default()
    }
}
