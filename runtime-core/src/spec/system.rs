//! System containers: what an init needs to be booted, to have a console and to be shut down.
//!
//! A container with `system` set runs an image's init as its first process. Which init that is was said, or is found out in the image at
//! each start ([`detect`]); it decides about mounts, environment, capabilities and the stop signal. Everything else, seccomp and the other
//! capabilities among it, is as in any container. docs/semantics/system-containers.md says what each needs and why.

use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use davit_contracts::runtime::{ContainerSpec, Security};
use davit_sys::beneath::open_in_root;
use davit_sys::cgroup::{Hierarchy, Version, hierarchies};
use davit_sys::process::ProcessRef;
use rustix::fs::{FileType, OFlags};

use super::merge;
use super::oci::Mount;
use crate::config::BUILT_IN_RUNTIME;
use crate::error::RuntimeError;

/// An init is given more time to end than a program: it ends others first.
pub const STOP_TIMEOUT_S: u32 = 60;

/// The inits that davit knows how to treat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// SysV init: /etc/inittab.
    Sysvinit,
    /// runit: three stages and a tree of supervised services.
    Runit,
    /// systemd.
    Systemd,
    /// BusyBox's: /etc/inittab in another dialect.
    Busybox,
}

const ALL: [Init; 4] = [Init::Sysvinit, Init::Runit, Init::Systemd, Init::Busybox];

impl Init {
    /// Its name on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Sysvinit => "sysvinit",
            Self::Runit => "runit",
            Self::Systemd => "systemd",
            Self::Busybox => "busybox",
        }
    }

    /// From its name.
    pub fn parse(word: &str) -> Option<Self> {
        ALL.into_iter().find(|init| init.word() == word)
    }

    /// What makes it shut down: ctrl-alt-del for sysvinit, "look at your orders" for runit, `halt.target` for systemd, power off for BusyBox.
    pub fn stop_signal(self) -> &'static str {
        match self {
            Self::Sysvinit => "INT",
            Self::Runit => "CONT",
            Self::Systemd => "RTMIN+3",
            Self::Busybox => "USR2",
        }
    }
}

/// What was asked for, as far as it is known without the image: `Some(None)` is "auto".
#[allow(clippy::option_option, reason = "three answers: no, whatever there is, this one")]
pub fn asked(spec: &ContainerSpec) -> Result<Option<Option<Init>>, RuntimeError> {
    match spec.system.as_str() {
        "" | "off" => Ok(None),
        "auto" => Ok(Some(None)),
        word => Init::parse(word).map(|init| Some(Some(init))).ok_or_else(|| {
            let known = "auto, sysvinit, runit, systemd, busybox and off";
            RuntimeError::Invalid(format!("unknown kind of system container '{word}': {known} are known"))
        }),
    }
}

/// Refuses what cannot go together.
pub fn check(spec: &ContainerSpec, rootless: bool) -> Result<(), RuntimeError> {
    let Some(init) = asked(spec)? else { return Ok(()) };
    let conflict =
        |with: &str| Err(RuntimeError::Invalid(format!("conflicting options: --system and {with}")));
    let namespaces = spec.namespaces.clone().unwrap_or_default();
    if spec.init {
        return conflict("--init");
    }
    // reboot(2) of the host's pid namespace would be the host's.
    if !matches!(namespaces.pid.as_str(), "" | "private") {
        return conflict("--pid: an init is the first process of a namespace of its own");
    }
    if init == Some(Init::Systemd) {
        if namespaces.cgroup == "host" {
            return conflict("--cgroupns=host");
        }
        delegation(rootless, &spec.runtime).map(drop)?;
    }
    Ok(())
}

/// Completes what was asked for: a console that is there without a client, whose input does not end with one.
pub fn complete(spec: &mut ContainerSpec) {
    if asked(spec).is_ok_and(|system| system.is_some()) {
        spec.tty = true;
        spec.open_stdin = true;
        spec.stdin_once = false;
    }
}

/// Which init a container is to be treated as having, found in its root where the person left that open. None: it is no system container.
pub fn settle(
    spec: &ContainerSpec,
    root: BorrowedFd<'_>,
    program: &str,
) -> Result<Option<Init>, RuntimeError> {
    match asked(spec)? {
        None => Ok(None),
        Some(Some(init)) => Ok(Some(init)),
        Some(None) => detect(root, program).map(Some).ok_or_else(|| {
            RuntimeError::Invalid(format!(
                "cannot tell which init {program} is: say --system=sysvinit, runit, systemd or busybox"
            ))
        }),
    }
}

/// Looks at the program that a link leads to: `/sbin/init` is systemd's or BusyBox's or runit's by a link, and sysvinit's by its words.
fn detect(root: BorrowedFd<'_>, program: &str) -> Option<Init> {
    let named = program.trim_start_matches('/');
    let path = if named == program { Path::new("/sbin").join(named) } else { program.into() };
    // A fifo of that name must not hold us up.
    let opened = open_in_root(root, &path, OFlags::RDONLY | OFlags::NONBLOCK).ok()?;
    let target = std::fs::read_link(through_proc(&opened)).ok();
    let names = [target.as_deref(), Some(&path)].into_iter().flatten();
    for name in names.filter_map(|p| p.file_name()?.to_str()) {
        match name {
            "systemd" => return Some(Init::Systemd),
            "runit" | "runit-init" => return Some(Init::Runit),
            "busybox" => return Some(Init::Busybox),
            _ => {}
        }
    }
    if !is_file(&opened) {
        return None;
    }
    // A program of some ten thousand bytes.
    let mut bytes = Vec::new();
    std::fs::File::from(opened).take(8 << 20).read_to_end(&mut bytes).ok()?;
    let says = |word: &[u8]| bytes.windows(word.len()).any(|w| w == word);
    if says(b"/run/runit.stopit") || says(b"/etc/runit/stopit") {
        Some(Init::Runit)
    } else if says(b"BusyBox v") {
        Some(Init::Busybox)
    } else {
        (says(b"/etc/inittab") && says(b"initctl")).then_some(Init::Sysvinit)
    }
}

fn through_proc(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn is_file(file: &OwnedFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile)
}

/// `container` and `container_uuid`, by which inits and their scripts know where they are (systemd's container interface).
pub fn environment(env: &mut Vec<String>, id: &str) {
    if !merge::has(env, "container") {
        env.push("container=davit".into());
    }
    if !merge::has(env, "container_uuid")
        && let (Some(a), Some(b), Some(c), Some(d), Some(e)) =
            (id.get(..8), id.get(8..12), id.get(12..16), id.get(16..20), id.get(20..32))
    {
        env.push(format!("container_uuid={a}-{b}-{c}-{d}-{e}"));
    }
}

/// Adds mounts for what an init expects to be empty at each boot, with what the image has there. What a person wants at the same places
/// stays.
pub fn mount(init: Init, rootless: bool, runtime: &str, mounts: &mut Vec<Mount>) -> Result<(), RuntimeError> {
    let tmpfs = |target: &str, options: &[&str]| Mount {
        destination: target.to_owned(),
        kind: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        options: ["nosuid", "nodev", "tmpcopyup"].iter().chain(options).map(ToString::to_string).collect(),
    };
    // Some keep scripts and marks there that have to be executable.
    add(mounts, tmpfs("/run", &["mode=755"]));
    if init != Init::Busybox {
        add(mounts, tmpfs("/run/lock", &["noexec", "mode=1777"]));
    }
    if init == Init::Systemd {
        add(mounts, tmpfs("/tmp", &["mode=1777"]));
        if let Some(cgroup) = delegation(rootless, runtime)? {
            mounts.retain(|m| m.destination != cgroup.destination);
            // Where the one of any container would be: after /sys.
            let after = mounts.iter().position(|m| m.destination == "/sys").map_or(0, |at| at + 1);
            mounts.insert(after, cgroup);
        }
    }
    Ok(())
}

/// Before what lies below it; not where something is already.
fn add(mounts: &mut Vec<Mount>, new: Mount) {
    if mounts.iter().any(|m| m.destination == new.destination) {
        return;
    }
    let below =
        |m: &Mount| m.destination.strip_prefix(&new.destination).is_some_and(|rest| rest.starts_with('/'));
    let at = mounts.iter().position(below).unwrap_or(mounts.len());
    mounts.insert(at, new);
}

/// What an init may do besides: end its pid namespace as a machine ends (reboot(2)), which other namespaces do not feel.
pub fn capability(security: &mut Security, available: u64) {
    let boot = davit_sys::caps::NAMES.iter().position(|name| *name == "SYS_BOOT");
    let all = security.cap_drop.iter().any(|c| c.eq_ignore_ascii_case("all"));
    if !all && boot.is_some_and(|n| available & (1 << n) != 0) {
        security.cap_add.push("SYS_BOOT".into());
    }
}

/// systemd's cgroup: its own, to write to, of the unified hierarchy.
fn delegation(rootless: bool, runtime: &str) -> Result<Option<Mount>, RuntimeError> {
    let built_in = matches!(runtime, "" | BUILT_IN_RUNTIME);
    delegated(&hierarchies().unwrap_or_default(), rootless, built_in)
        .map_err(|why| RuntimeError::Unsupported(format!("systemd cannot be booted here: {why}")))
}

fn delegated(all: &[Hierarchy], rootless: bool, built_in: bool) -> Result<Option<Mount>, &'static str> {
    if rootless {
        return Err("without root there is no cgroup that it could be given");
    }
    if !all.iter().any(|h| h.version == Version::V2) {
        return Err("it needs the unified cgroup hierarchy (mount -t cgroup2), which is not mounted");
    }
    let hybrid = all.iter().any(|h| h.controllers.iter().any(|c| !c.starts_with("name=")));
    if hybrid && !built_in {
        return Err(
            "this host has cgroup v1 controllers, and only davit's own runtime shows it the unified hierarchy alone",
        );
    }
    Ok(Some(Mount {
        destination: "/sys/fs/cgroup".to_owned(),
        kind: if hybrid { "cgroup2" } else { "cgroup" }.to_owned(),
        source: "cgroup".to_owned(),
        options: ["nosuid", "noexec", "nodev", "relatime", "rw"].map(str::to_owned).to_vec(),
    }))
}

/// The signal that makes an init shut down. runit looks for its orders in a file first; where that cannot be written it is told as by
/// ctrl-alt-del.
pub fn prepare_stop(init: Init, first: Option<ProcessRef>) -> &'static str {
    if init != Init::Runit {
        return init.stop_signal();
    }
    let ordered = first.and_then(|process| process.root().ok()).is_some_and(|root| {
        // By a descriptor that opens nothing: whatever the container has put there, only a file's mode is changed.
        let mode = |path: &str, mode| {
            let opened = open_in_root(root.as_fd(), Path::new(path), OFlags::PATH);
            opened.is_ok_and(|file| {
                let permissions = std::fs::Permissions::from_mode(mode);
                is_file(&file) && std::fs::set_permissions(through_proc(&file), permissions).is_ok()
            })
        };
        let dirs = ["/run/runit.", "/etc/runit/"];
        // Not a reboot: that mark may be left from before.
        for dir in dirs {
            mode(&format!("{dir}reboot"), 0);
        }
        dirs.iter().any(|dir| mode(&format!("{dir}stopit"), 0o100))
    });
    if ordered { init.stop_signal() } else { "INT" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn spec(system: &str) -> ContainerSpec {
        ContainerSpec { system: system.into(), ..ContainerSpec::default() }
    }

    #[test]
    fn what_can_be_asked_for() {
        assert_eq!(asked(&spec("")).unwrap(), None);
        assert_eq!(asked(&spec("auto")).unwrap(), Some(None));
        assert_eq!(asked(&spec("runit")).unwrap(), Some(Some(Init::Runit)));
        assert!(asked(&spec("upstart")).unwrap_err().to_string().contains("sysvinit, runit"));
        let mut vm = spec("sysvinit");
        complete(&mut vm);
        assert!(vm.tty && vm.open_stdin && !vm.stdin_once);
        let mut plain = spec("off");
        complete(&mut plain);
        assert!(!plain.tty);
    }

    #[test]
    fn the_hosts_pid_namespace_cannot_be_rebooted() {
        let mut vm = spec("auto");
        check(&vm, false).unwrap();
        vm.namespaces.get_or_insert_default().pid = "host".into();
        assert!(check(&vm, false).unwrap_err().to_string().contains("--pid"));
        vm = ContainerSpec { init: true, ..spec("busybox") };
        assert!(check(&vm, false).unwrap_err().to_string().contains("--init"));
    }

    #[test]
    fn inits_are_told_by_links_and_by_their_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for sub in ["sbin", "bin", "lib/systemd"] {
            fs::create_dir_all(path(sub)).unwrap();
        }
        fs::write(path("lib/systemd/systemd"), "x").unwrap();
        fs::write(path("bin/busybox"), "x").unwrap();
        let root = fs::File::open(dir.path()).unwrap();
        let found = |program: &str| detect(root.as_fd(), program);
        for (target, init) in [("/lib/systemd/systemd", Init::Systemd), ("../bin/busybox", Init::Busybox)] {
            symlink(target, path("sbin/init")).unwrap();
            assert_eq!(found("/sbin/init"), Some(init));
            fs::remove_file(path("sbin/init")).unwrap();
        }
        fs::write(path("sbin/init"), "...\0/etc/inittab\0/run/initctl\0").unwrap();
        assert_eq!(found("/sbin/init"), Some(Init::Sysvinit));
        fs::write(path("sbin/init"), "...\0/run/runit.stopit\0").unwrap();
        assert_eq!(found("/sbin/init"), Some(Init::Runit));
        fs::write(path("sbin/init"), "#!/bin/sh\n").unwrap();
        assert_eq!((found("/sbin/init"), found("/missing")), (None, None));
        let e = settle(&spec("auto"), root.as_fd(), "/sbin/init").unwrap_err().to_string();
        assert!(e.contains("/sbin/init") && e.contains("--system=sysvinit"), "{e}");
        assert_eq!(settle(&spec(""), root.as_fd(), "/sbin/init").unwrap(), None);
    }

    #[test]
    fn systemd_gets_a_cgroup_where_there_is_one_to_give() {
        let of = |version, controllers: &[&str]| Hierarchy {
            version,
            controllers: controllers.iter().map(ToString::to_string).collect(),
            mount_point: "/sys/fs/cgroup".into(),
            mount_root: "/".into(),
            own: "/".into(),
        };
        let (v1, v2) = (of(Version::V1, &["memory"]), of(Version::V2, &[]));
        let kind = |all: &[Hierarchy], rootless, built_in| {
            delegated(all, rootless, built_in).map(|m| m.map(|m| m.kind))
        };
        assert_eq!(kind(std::slice::from_ref(&v2), false, false), Ok(Some("cgroup".into())));
        let hybrid = [v1.clone(), v2.clone()];
        assert_eq!(kind(&hybrid, false, true), Ok(Some("cgroup2".into())));
        assert!(kind(&hybrid, false, false).unwrap_err().contains("davit's own runtime"));
        assert!(kind(&[v1], false, true).unwrap_err().contains("cgroup2"));
        assert!(kind(&[v2], true, true).unwrap_err().contains("without root"));
    }

    #[test]
    fn mounts_leave_to_the_person_what_the_person_wants() {
        let of = |path: &str| Mount {
            destination: path.into(),
            kind: "bind".into(),
            source: String::new(),
            options: vec![],
        };
        let mut all = ["/sys", "/etc/hosts", "/run/lock", "/run/mine", "/srv"].map(of).to_vec();
        mount(Init::Sysvinit, false, "", &mut all).unwrap();
        let order: Vec<_> = all.iter().map(|m| (m.destination.as_str(), m.kind.as_str())).collect();
        let binds = ["/run/lock", "/run/mine", "/srv"].map(|p| (p, "bind"));
        assert_eq!(order[2], ("/run", "tmpfs"));
        assert_eq!(order[3..], binds);
        let mut env = vec!["container=mine".to_owned()];
        environment(&mut env, &"0123456789abcdef".repeat(4));
        assert_eq!(env, ["container=mine", "container_uuid=01234567-89ab-cdef-0123-456789abcdef"]);
    }

    #[test]
    fn an_init_may_reboot_unless_everything_was_taken() {
        let given = |drop: &[&str], available| {
            let mut security =
                Security { cap_drop: drop.iter().map(ToString::to_string).collect(), ..Security::default() };
            capability(&mut security, available);
            security.cap_add
        };
        assert_eq!(given(&[], u64::MAX), ["SYS_BOOT"]);
        assert!(given(&["all"], u64::MAX).is_empty() && given(&[], 1).is_empty());
    }
}
