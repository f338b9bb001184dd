//! What this host lets a container have, read once at start.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::{Resource, getrlimit};

pub mod cgroups;

pub use cgroups::Cgroups;

/// Facts about the host and about our own process.
#[derive(Debug, Clone)]
pub struct Host {
    /// The mask of capabilities that we can hand on (CapBnd of /proc/self/status).
    pub capabilities: u64,
    /// The highest hard limits that a process of ours can have, by docker's names ("nofile"); what is not named has no bound.
    pub hard_limits: BTreeMap<&'static str, u64>,
    /// The lowest oom_score_adj that a process of ours can have.
    pub oom_score_min: i32,
    /// We are uid 0 of a user namespace only.
    pub rootless: bool,
    /// The host's name, for containers that share it.
    pub hostname: String,
    /// Which limits control groups can hold here.
    pub cgroups: Cgroups,
    /// Security modules.
    pub modules: Modules,
    /// The SELinux context of containers' processes in the host's policy; empty: unknown, or no SELinux.
    pub container_label: String,
    /// Major and minor version of the kernel.
    pub kernel: (u32, u32),
}

/// Security modules of the kernel that are in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Modules {
    /// AppArmor.
    pub apparmor: bool,
    /// SELinux.
    pub selinux: bool,
    /// Landlock's interface; 0: none.
    pub landlock: u32,
}

/// `CAP_SYS_RESOURCE`.
const SYS_RESOURCE: u64 = 1 << 24;

/// docker's names of resource limits.
pub const ULIMITS: [(&str, Resource); 15] = [
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

impl Host {
    /// Reads the facts; what cannot be read has a value that asks for nothing special.
    pub fn read(rootless: bool) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        // In a user namespace the capability is there, but counts for nothing.
        let raises = !rootless && mask(&status, "CapEff:").is_some_and(|m| m & SYS_RESOURCE != 0);
        Self {
            capabilities: mask(&status, "CapBnd:").unwrap_or(u64::MAX),
            hard_limits: hard_limits(raises),
            oom_score_min: if raises {
                -1000
            } else {
                text("/proc/self/oom_score_adj").parse().unwrap_or(-1000)
            },
            rootless,
            hostname: text("/proc/sys/kernel/hostname"),
            cgroups: Cgroups::read(),
            modules: Modules {
                apparmor: text("/sys/module/apparmor/parameters/enabled") == "Y",
                selinux: fs::exists("/sys/fs/selinux/enforce").unwrap_or(false),
                landlock: davit_sys::landlock::version(),
            },
            container_label: container_label(),
            kernel: kernel(&text("/proc/sys/kernel/osrelease")),
        }
    }

    /// The highest hard limit of this name that a container can have.
    pub fn hard_limit(&self, name: &str) -> u64 {
        self.hard_limits.get(name).copied().unwrap_or(u64::MAX)
    }
}

/// Our own, unless we may raise them; and never more open files than the kernel counts.
fn hard_limits(raises: bool) -> BTreeMap<&'static str, u64> {
    if raises {
        let most = fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|t| t.trim().parse().ok());
        return most.into_iter().map(|n| ("nofile", n)).collect();
    }
    ULIMITS.iter().filter_map(|(name, r)| Some((*name, getrlimit(*r).maximum?))).collect()
}

/// What the policy's `lxc_contexts` names for processes, as other engines read it.
fn container_label() -> String {
    let config = fs::read_to_string("/etc/selinux/config").unwrap_or_default();
    let policy =
        config.lines().find_map(|l| l.trim().strip_prefix("SELINUXTYPE=")).unwrap_or("targeted").trim();
    let contexts =
        fs::read_to_string(format!("/etc/selinux/{policy}/contexts/lxc_contexts")).unwrap_or_default();
    let process = contexts.lines().filter_map(|l| l.split_once('=')).find(|(key, _)| key.trim() == "process");
    process.map_or(String::new(), |(_, label)| label.trim().trim_matches('"').to_owned())
}

fn mask(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix(field))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn kernel(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
impl Host {
    /// A host that can do everything, but for open files.
    pub fn of_tests() -> Self {
        Self {
            capabilities: u64::MAX,
            hard_limits: BTreeMap::from([("nofile", 20_000)]),
            oom_score_min: -1000,
            rootless: false,
            hostname: "h".into(),
            cgroups: Cgroups::of_tests(),
            modules: Modules::default(),
            container_label: String::new(),
            kernel: (6, 18),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounding_set_is_hexadecimal() {
        assert_eq!(mask("Name:\tx\nCapBnd:\t00000000a80425fb\n", "CapBnd:"), Some(0xa804_25fb));
        assert_eq!(mask("Name:\tx\n", "CapBnd:"), None);
    }

    #[test]
    fn kernel_versions() {
        assert_eq!(kernel("6.18.0-rc1+deb"), (6, 18));
        assert_eq!((kernel("5"), kernel("")), ((5, 0), (0, 0)));
    }

    /// The real values of this process, whatever they are: a limit that cannot be raised is the bound of what is given.
    #[test]
    fn every_hard_limit_is_the_kernels() {
        let own = hard_limits(false);
        for (name, resource) in ULIMITS {
            assert_eq!(own.get(name).copied(), getrlimit(resource).maximum, "{name}");
        }
        assert!(hard_limits(true).keys().eq(["nofile"].iter()));
    }
}
