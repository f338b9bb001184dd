//! What `--pid`, `--ipc`, `--uts`, `--cgroupns`, `--time`, `--userns` and `--sysctl` ask for, and which of it excludes what. Pure.

use davit_contracts::runtime::{ContainerSpec, Namespaces};

use super::check::{self, Network};
use super::userns;
use crate::error::RuntimeError;

/// Where a namespace comes from, as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode<'a> {
    /// A new one.
    Private,
    /// The host's.
    Host,
    /// That of a container, by name or id.
    Container(&'a str),
}

/// Reads a mode; none for what is no mode of this kind.
fn mode<'a>(kind: &str, text: &'a str) -> Option<Mode<'a>> {
    match text {
        "" if matches!(kind, "time" | "userns") => Some(Mode::Host),
        "" | "private" => Some(Mode::Private),
        "shareable" | "none" if kind == "ipc" => Some(Mode::Private),
        "host" => Some(Mode::Host),
        auto if kind == "userns" && (auto == "auto" || auto.starts_with("auto:")) => Some(Mode::Private),
        other => other.strip_prefix("container:").filter(|c| !c.is_empty()).map(Mode::Container),
    }
}

/// The modes of a container whose spec was checked.
pub fn pid(ns: &Namespaces) -> Mode<'_> {
    mode("pid", &ns.pid).unwrap_or(Mode::Private)
}

/// See [`pid`].
pub fn ipc(ns: &Namespaces) -> Mode<'_> {
    mode("ipc", &ns.ipc).unwrap_or(Mode::Private)
}

/// See [`pid`].
pub fn uts(ns: &Namespaces) -> Mode<'_> {
    mode("uts", &ns.uts).unwrap_or(Mode::Private)
}

/// See [`pid`].
pub fn cgroup(ns: &Namespaces) -> Mode<'_> {
    mode("cgroupns", &ns.cgroup).unwrap_or(Mode::Private)
}

/// See [`pid`]. Offsets want one of their own.
pub fn time(ns: &Namespaces) -> Mode<'_> {
    match mode("time", &ns.time).unwrap_or(Mode::Host) {
        Mode::Host if ns.time.is_empty() && !ns.time_offsets_ns.is_empty() => Mode::Private,
        mode => mode,
    }
}

/// See [`pid`]. An explicit map wants one of its own.
pub fn user(ns: &Namespaces) -> Mode<'_> {
    match mode("userns", &ns.user).unwrap_or(Mode::Host) {
        Mode::Host if ns.user.is_empty() && !ns.uid_map.is_empty() => Mode::Private,
        mode => mode,
    }
}

/// Every mode that may name a container, to keep it by id from here on.
pub fn references(spec: &mut ContainerSpec) -> impl Iterator<Item = &mut String> {
    let ns = spec.namespaces.get_or_insert_default();
    let own = [&mut ns.pid, &mut ns.ipc, &mut ns.uts, &mut ns.user, &mut ns.cgroup, &mut ns.time];
    own.into_iter().filter(|text| text.starts_with("container:"))
}

/// Refuses what cannot be, in docker's words where docker has some.
pub fn check(spec: &ContainerSpec) -> Result<(), RuntimeError> {
    let ns = spec.namespaces.clone().unwrap_or_default();
    let invalid = |text: String| Err(RuntimeError::Invalid(text));
    for (flag, word, text) in [
        ("pid", "PID", &ns.pid),
        ("ipc", "IPC", &ns.ipc),
        ("uts", "UTS", &ns.uts),
        ("userns", "USER", &ns.user),
        ("cgroupns", "CGROUP", &ns.cgroup),
        ("time", "TIME", &ns.time),
    ] {
        if mode(flag, text).is_none() {
            return invalid(format!("--{flag}: invalid {word} mode: {text}"));
        }
    }
    if uts(&ns) != Mode::Private {
        for (given, what) in [(&spec.hostname, "hostname"), (&spec.domainname, "domainname")] {
            if !given.is_empty() {
                return invalid(format!("conflicting options: {what} and the UTS mode"));
            }
        }
    }
    check_time(&ns)?;
    check_sysctls(spec, &ns)?;
    userns::check(spec, &ns)
}

fn check_time(ns: &Namespaces) -> Result<(), RuntimeError> {
    if ns.time_offsets_ns.is_empty() {
        return Ok(());
    }
    if time(ns) != Mode::Private {
        return Err(RuntimeError::Invalid(
            "conflicting options: --time-offset and the TIME mode: only an own time namespace has offsets"
                .into(),
        ));
    }
    match ns.time_offsets_ns.keys().find(|clock| !matches!(clock.as_str(), "monotonic" | "boottime")) {
        Some(other) => Err(RuntimeError::Invalid(format!(
            "--time-offset: unknown clock '{other}': monotonic or boottime"
        ))),
        None => Ok(()),
    }
}

/// Only what a namespace of the container isolates may be set: anything else would change the host.
fn check_sysctls(spec: &ContainerSpec, ns: &Namespaces) -> Result<(), RuntimeError> {
    const IPC: [&str; 8] =
        ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
    for key in spec.sysctls.keys() {
        // `net.ipv4.conf.eth0/1.x` names an interface with a dot; a name with slashes only is a path.
        let dotted = if key.contains('.') { key.clone() } else { key.replace('/', ".") };
        let refused = |why: &str| Err(RuntimeError::Invalid(format!("sysctl \"{key}\" {why}")));
        let is_ipc = dotted.strip_prefix("kernel.").is_some_and(|k| IPC.contains(&k))
            || dotted.starts_with("fs.mqueue.");
        if is_ipc {
            if ipc(ns) == Mode::Host {
                return refused("is not allowed in the hosts ipc namespace");
            }
        } else if dotted.starts_with("net.") {
            if check::network(spec)? == Network::Host {
                return refused("not allowed in host network namespace");
            }
        } else if dotted == "kernel.hostname" {
            return refused("conflicts with --hostname: use that");
        } else if dotted == "kernel.domainname" {
            if uts(ns) != Mode::Private {
                return refused("is not allowed as the UTS namespace is not the container's own");
            }
        } else {
            return refused("is not in a separate kernel namespace");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut ContainerSpec, &mut Namespaces)) -> String {
        let (mut spec, mut ns) = (ContainerSpec::default(), Namespaces::default());
        change(&mut spec, &mut ns);
        spec.namespaces = Some(ns);
        check(&spec).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn every_kind_has_its_modes_and_its_default() {
        let all = |text: &str| Namespaces {
            pid: text.into(),
            ipc: text.into(),
            uts: text.into(),
            user: text.into(),
            cgroup: text.into(),
            time: text.into(),
            ..Namespaces::default()
        };
        let modes = |ns: &Namespaces| {
            let of = |m: Mode<'_>| format!("{m:?}");
            [of(pid(ns)), of(ipc(ns)), of(uts(ns)), of(cgroup(ns)), of(time(ns)), of(user(ns))].join(" ")
        };
        assert_eq!(modes(&all("")), "Private Private Private Private Host Host");
        assert_eq!(modes(&all("private")), ["Private"; 6].join(" "));
        assert_eq!(modes(&all("host")), ["Host"; 6].join(" "));
        assert_eq!(modes(&all("container:x")), ["Container(\"x\")"; 6].join(" "));
        assert!(
            refused(|_, ns| ns.pid = "container:".into()).contains("--pid: invalid PID mode: container:")
        );
        assert!(refused(|_, ns| ns.ipc = "nowhere".into()).contains("--ipc: invalid IPC mode: nowhere"));
        assert!(refused(|_, ns| ns.uts = "shareable".into()).contains("--uts: invalid UTS mode"));
        assert_eq!(refused(|_, ns| ns.ipc = "none".into()), "");
    }

    #[test]
    fn what_excludes_one_another_is_refused() {
        let uts = |s: &mut ContainerSpec, ns: &mut Namespaces| {
            ns.uts = "host".into();
            s.hostname = "x".into();
        };
        assert_eq!(refused(uts), "conflicting options: hostname and the UTS mode");
        let set = |key: &str, change: fn(&mut ContainerSpec, &mut Namespaces)| {
            refused(|s, ns| {
                s.sysctls.insert(key.into(), "1".into());
                change(s, ns);
            })
        };
        let host_net = |s: &mut ContainerSpec, _: &mut Namespaces| {
            s.network.get_or_insert_default().mode = "host".into();
        };
        assert_eq!(set("net.ipv4.ip_forward", |_, _| {}), "");
        assert!(set("net.ipv4.ip_forward", host_net).contains("not allowed in host network namespace"));
        assert!(set("kernel.shmmax", |_, ns| ns.ipc = "host".into()).contains("hosts ipc namespace"));
        assert!(set("vm.swappiness", |_, _| {}).contains("not in a separate kernel namespace"));
        assert!(set("kernel.domainname", |_, ns| ns.uts = "container:a".into()).contains("not allowed"));
        let offset = |mode: &'static str, clock: &'static str| {
            refused(move |_, ns| {
                ns.time = mode.into();
                ns.time_offsets_ns.insert(clock.into(), 1);
            })
        };
        assert_eq!(offset("", "monotonic"), "");
        assert!(offset("host", "monotonic").contains("conflicting options"));
        assert!(offset("private", "realtime").contains("unknown clock 'realtime'"));
    }
}
