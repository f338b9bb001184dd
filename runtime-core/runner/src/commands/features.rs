//! What this runtime can do, in the specification's features.json shape.

use davit_sys::caps::Capability;
use serde_json::json;

use crate::error::{Error, Result};
use crate::spec::NamespaceKind;

/// Prints it.
pub fn print_value() -> serde_json::Value {
    let namespaces: Vec<_> = NamespaceKind::ALL.iter().map(|k| json!(k)).collect();
    let capabilities: Vec<_> = Capability::all().map(|c| c.to_string()).collect();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": crate::spec::OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": [
            "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "idmap", "lazytime", "mand", "noatime", "nodev",
            "nodiratime", "noexec", "nosuid", "nosymfollow", "private", "rbind", "relatime", "ridmap", "ro", "rprivate", "rro", "rshared",
            "rslave", "runbindable", "rw", "shared", "slave", "strictatime", "suid", "sync", "tmpcopyup", "unbindable"
        ],
        "linux": {
            "namespaces": namespaces,
            "capabilities": capabilities,
            "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false },
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
                    "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"
                ],
                "archs": if cfg!(target_arch = "x86_64") { vec!["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"] } else { vec!["SCMP_ARCH_AARCH64"] }
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": true } }
        },
        "annotations": { "org.davit.runner.version": env!("CARGO_PKG_VERSION") }
    })
}

/// Prints it.
pub fn print() -> Result<()> {
    let text = serde_json::to_string_pretty(&print_value());
    super::print(&(text.map_err(|source| Error::Json { path: "the output".into(), source })? + "\n"))
}
