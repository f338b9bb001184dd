//! Settings of the new namespaces: names, kernel parameters, the loopback device, the OOM score.

use std::fs;
use std::path::PathBuf;

use crate::error::{Context, Error, Result};
use crate::spec::{NamespaceKind, Spec};

/// Host and domain name, sysctls, loopback.
pub fn set(spec: &Spec) -> Result<()> {
    if let Some(name) = spec.hostname.as_ref().filter(|n| !n.is_empty()) {
        if !spec.linux.has(NamespaceKind::Uts) {
            return Err(Error::Config("hostname needs an own UTS namespace".into()));
        }
        nix::unistd::sethostname(name).context(|| format!("set the hostname {name:?}"))?;
    }
    if let Some(name) = spec.domainname.as_ref().filter(|n| !n.is_empty()) {
        if !spec.linux.has(NamespaceKind::Uts) {
            return Err(Error::Config("domainname needs an own UTS namespace".into()));
        }
        fs::write("/proc/sys/kernel/domainname", name).context(|| format!("set the domain name {name:?}"))?;
    }
    if spec.linux.makes(NamespaceKind::Network) {
        davit_sys::fork::loopback_up().context(|| "bring the loopback device up")?;
    }
    for (key, value) in &spec.linux.sysctl {
        check_sysctl(key, spec)?;
        let path = sysctl_path(key)?;
        fs::write(&path, value).context(|| format!("set sysctl {key} to {value:?}"))?;
    }
    Ok(())
}

/// Dots separate, slashes are dots of a name (`net.ipv4.conf.eth0/1.x`); both forms without `..`.
fn sysctl_path(key: &str) -> Result<PathBuf> {
    let relative: String = key
        .chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    let slashed = key.contains('/') && !key.contains('.');
    let relative = if slashed { key.to_owned() } else { relative };
    if relative.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(Error::Config(format!("sysctl {key:?} is no parameter's name")));
    }
    Ok(PathBuf::from("/proc/sys").join(relative))
}

/// Only what a namespace of the container isolates may be set: everything else would change the host.
fn check_sysctl(key: &str, spec: &Spec) -> Result<()> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let dotted = if key.contains('.') { key.to_owned() } else { key.replace('/', ".") };
    let needs = if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        NamespaceKind::Ipc
    } else if dotted.starts_with("net.") {
        NamespaceKind::Network
    } else if matches!(dotted.as_str(), "kernel.domainname" | "kernel.hostname") {
        NamespaceKind::Uts
    } else if dotted.starts_with("user.") {
        NamespaceKind::User
    } else {
        return Err(Error::Config(format!("sysctl {key:?} is not in a separate kernel namespace")));
    };
    if !spec.linux.has(needs) {
        return Err(Error::Config(format!("sysctl {key:?} needs an own {} namespace", needs.file())));
    }
    Ok(())
}

/// Lowering needs CAP_SYS_RESOURCE: where it is lacking, the score stays.
pub fn set_oom_score(score: i32) -> Result<()> {
    match fs::write("/proc/self/oom_score_adj", score.to_string()) {
        Err(e) if e.raw_os_error() == Some(libc::EACCES) => Ok(()),
        other => other.context(|| format!("set oom_score_adj to {score}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(kinds: &str) -> Spec {
        serde_json::from_str(&format!(r#"{{"linux":{{"namespaces":[{kinds}]}}}}"#)).unwrap()
    }

    #[test]
    fn only_namespaced_parameters_pass() {
        let s = spec(r#"{"type":"ipc"},{"type":"network"}"#);
        for ok in ["net.ipv4.ip_forward", "net/ipv4/ip_forward", "kernel.shmmax", "fs.mqueue.msg_max"] {
            check_sysctl(ok, &s).unwrap();
        }
        for bad in ["kernel.core_pattern", "vm.swappiness", "kernel.hostname"] {
            check_sysctl(bad, &s).unwrap_err();
        }
        check_sysctl("net.ipv4.ip_forward", &spec("")).unwrap_err();
    }

    #[test]
    fn names_become_paths_that_stay_below_proc_sys() {
        assert_eq!(
            sysctl_path("net.ipv4.conf.eth0/1.rp_filter").unwrap(),
            PathBuf::from("/proc/sys/net/ipv4/conf/eth0.1/rp_filter")
        );
        assert_eq!(
            sysctl_path("net/ipv4/ip_forward").unwrap(),
            PathBuf::from("/proc/sys/net/ipv4/ip_forward")
        );
        for bad in ["net/../kernel/x", "net..x", "net.//.x", ""] {
            sysctl_path(bad).unwrap_err();
        }
    }
}
