//! Capabilities (capabilities(7)): names, sets, and setting all five sets of the calling thread.

use std::fmt;
use std::io;
use std::str::FromStr;

/// All names without `CAP_`, in the kernel's order: the index is the capability's number (capabilities(7), Linux 5.9).
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// One capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(u8);

impl Capability {
    /// Sets up and changes other processes' capability sets; also needed to drop from the bounding set.
    pub const SETPCAP: Self = Self(8);
    /// Mounts, namespaces, seccomp filters without no_new_privs.
    pub const SYS_ADMIN: Self = Self(21);
    /// Raising hard limits.
    pub const SYS_RESOURCE: Self = Self(24);

    /// All that this version knows.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..NAMES.len() as u8).map(Self)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CAP_{}", NAMES[usize::from(self.0)])
    }
}

/// Not the name of a capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {0:?}")]
pub struct UnknownCapability(pub String);

impl FromStr for Capability {
    type Err = UnknownCapability;

    /// Takes `CAP_NET_RAW`, `NET_RAW`, in any case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let at = NAMES.iter().position(|n| *n == name).ok_or_else(|| UnknownCapability(text.to_owned()))?;
        Ok(Self(at as u8))
    }
}

/// A set of capabilities, bit n for capability n as in /proc/PID/status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapSet(pub u64);

impl CapSet {
    /// Whether it holds `capability`.
    pub fn has(self, capability: Capability) -> bool {
        self.0 & (1 << capability.0) != 0
    }

    /// It and one more.
    #[must_use]
    pub fn with(self, capability: Capability) -> Self {
        Self(self.0 | 1 << capability.0)
    }

    /// What both hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What either holds.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Its members.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::all().filter(move |c| self.has(*c))
    }
}

impl FromIterator<Capability> for CapSet {
    fn from_iter<I: IntoIterator<Item = Capability>>(items: I) -> Self {
        items.into_iter().fold(Self::default(), Self::with)
    }
}

/// A capability set could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}")]
pub struct CapsError {
    operation: String,
    #[source]
    source: io::Error,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

/// The calling thread's (effective, permitted, inheritable).
pub fn get() -> Result<(CapSet, CapSet, CapSet), CapsError> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 takes a header and two data elements, both valid and writable.
    let r = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    check(r, || "read the capabilities".to_owned())?;
    let join = |f: fn(&Data) -> u32| CapSet(u64::from(f(&data[0])) | u64::from(f(&data[1])) << 32);
    Ok((join(|d| d.effective), join(|d| d.permitted), join(|d| d.inheritable)))
}

/// Sets the calling thread's effective, permitted and inheritable sets.
pub fn set(effective: CapSet, permitted: CapSet, inheritable: CapSet) -> Result<(), CapsError> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Data {
        effective: (effective.0 >> shift) as u32,
        permitted: (permitted.0 >> shift) as u32,
        inheritable: (inheritable.0 >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 takes a header and two data elements, both valid for the call.
    let r = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    check(r, || format!("set the capabilities (permitted {:#x})", permitted.0))
}

/// Drops everything outside `keep` from the bounding set. Needs CAP_SETPCAP where anything is to drop.
pub fn limit_bounding(keep: CapSet) -> Result<(), CapsError> {
    for number in 0..64u8 {
        // SAFETY: integer arguments only.
        let held = unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0, 0, 0) };
        if held < 0 {
            break; // beyond the last capability of this kernel
        }
        if held == 1 && keep.0 & (1 << number) == 0 {
            // SAFETY: integer arguments only.
            let r = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
            check(r.into(), || format!("drop capability {number} from the bounding set"))?;
        }
    }
    Ok(())
}

/// The bounding set of the calling thread.
pub fn bounding() -> CapSet {
    let held = |number: u8| {
        // SAFETY: integer arguments only.
        unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0, 0, 0) == 1 }
    };
    Capability::all().filter(|c| held(c.0)).collect()
}

/// Makes the ambient set exactly `ambient`; members must be permitted and inheritable.
pub fn set_ambient(ambient: CapSet) -> Result<(), CapsError> {
    // SAFETY: integer arguments only.
    let r = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    check(r.into(), || "clear the ambient capabilities".to_owned())?;
    for capability in ambient.iter() {
        let (raise, number) = (libc::PR_CAP_AMBIENT_RAISE, libc::c_ulong::from(capability.0));
        // SAFETY: integer arguments only.
        let r = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, number, 0, 0) };
        check(r.into(), || format!("raise {capability} in the ambient set"))?;
    }
    Ok(())
}

fn check(r: libc::c_long, operation: impl FnOnce() -> String) -> Result<(), CapsError> {
    if r < 0 {
        return Err(CapsError { operation: operation(), source: io::Error::last_os_error() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_with_and_without_prefix_and_printed_with_it() {
        for text in ["CAP_SYS_ADMIN", "sys_admin", "cap_Sys_Admin"] {
            assert_eq!(text.parse::<Capability>().unwrap(), Capability::SYS_ADMIN);
        }
        assert_eq!(Capability::SYS_ADMIN.to_string(), "CAP_SYS_ADMIN");
        assert_eq!("CAP_CHECKPOINT_RESTORE".parse::<Capability>().unwrap().0, 40);
        assert_eq!("ALL".parse::<Capability>(), Err(UnknownCapability("ALL".into())));
    }

    #[test]
    fn sets_are_bit_masks_as_in_proc() {
        let docker: CapSet = ["CHOWN", "KILL", "SETFCAP"].iter().map(|n| n.parse().unwrap()).collect();
        assert_eq!(docker.0, 1 | 1 << 5 | 1 << 31);
        assert_eq!(docker.iter().count(), 3);
        let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let hex = text.lines().find_map(|l| l.strip_prefix("CapPrm:\t")).unwrap();
        assert_eq!(get().unwrap().1.0, u64::from_str_radix(hex, 16).unwrap());
    }
}
