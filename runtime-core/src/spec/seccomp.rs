//! docker's default seccomp profile for a given set of capabilities.

use std::borrow::Cow;

use super::oci::{Seccomp, Syscall, SyscallArg};
use super::seccomp_table::{
    AF_VSOCK, ALWAYS, ARCHITECTURE, ARCHITECTURES, BY_CAPABILITY, CLONE_NAMESPACES, PERSONALITIES,
};

pub mod profile;

const ALLOW: &str = "SCMP_ACT_ALLOW";
const ERRNO: &str = "SCMP_ACT_ERRNO";
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The profile: everything not listed fails with EPERM. `capabilities` is the bounding set.
pub fn default_profile(capabilities: &[String]) -> Seccomp {
    let has = |cap: &str| capabilities.iter().any(|c| c == cap);
    let mut names: Vec<&'static str> =
        ALWAYS.split_whitespace().chain(ARCHITECTURE.split_whitespace()).collect();
    for (cap, unlocked) in BY_CAPABILITY {
        if has(cap) {
            names.extend(unlocked.split_whitespace());
        }
    }
    names.sort_unstable();
    names.dedup();
    let mut syscalls = vec![allow(names, Vec::new())];
    syscalls.push(allow(vec!["socket"], vec![arg(AF_VSOCK, 0, "SCMP_CMP_NE")]));
    syscalls.extend(
        PERSONALITIES.iter().map(|value| allow(vec!["personality"], vec![arg(*value, 0, "SCMP_CMP_EQ")])),
    );
    if !has("CAP_SYS_ADMIN") {
        syscalls.push(allow(vec!["clone"], vec![arg(CLONE_NAMESPACES, 0, "SCMP_CMP_MASKED_EQ")]));
        // glibc falls back to clone(2), whose flags a filter can see, when clone3 does not exist.
        syscalls.push(Syscall {
            names: vec!["clone3".into()],
            action: ERRNO.into(),
            errno_ret: Some(ENOSYS),
            args: Vec::new(),
        });
    }
    Seccomp {
        default_action: ERRNO.into(),
        default_errno_ret: Some(EPERM),
        architectures: ARCHITECTURES.iter().map(|a| Cow::Borrowed(*a)).collect(),
        syscalls,
        ..Seccomp::default()
    }
}

fn allow(names: Vec<&'static str>, args: Vec<SyscallArg>) -> Syscall {
    let names = names.into_iter().map(Cow::Borrowed).collect();
    Syscall { names, action: ALLOW.into(), errno_ret: None, args }
}

fn arg(value: u64, value_two: u64, op: &'static str) -> SyscallArg {
    SyscallArg { index: 0, value, value_two, op: op.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(profile: &Seccomp, name: &str) -> bool {
        profile
            .syscalls
            .iter()
            .any(|s| s.action == ALLOW && s.args.is_empty() && s.names.iter().any(|n| n == name))
    }

    #[test]
    fn dangerous_calls_need_their_capability() {
        let plain = default_profile(&["CAP_CHOWN".into(), "CAP_SYS_CHROOT".into()]);
        for name in ["read", "openat2", "chroot", "futex"] {
            assert!(allowed(&plain, name), "{name}");
        }
        for name in
            ["mount", "clone", "unshare", "bpf", "kexec_load", "keyctl", "add_key", "userfaultfd", "reboot"]
        {
            assert!(!allowed(&plain, name), "{name}");
        }
        let clone3 = plain.syscalls.iter().find(|s| s.names == ["clone3"]).unwrap();
        assert_eq!(clone3.errno_ret, Some(ENOSYS));
        let admin = default_profile(&["CAP_SYS_ADMIN".into()]);
        assert!(allowed(&admin, "mount") && allowed(&admin, "clone3"));
        assert!(!admin.syscalls.iter().any(|s| s.errno_ret.is_some()));
    }
}
