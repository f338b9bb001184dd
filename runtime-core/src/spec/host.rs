//! What this host lets a container have, read once at start.

use std::fs;

/// Facts about the host and about our own process.
#[derive(Debug, Clone)]
pub struct Host {
    /// The mask of capabilities that we can hand on (CapBnd of /proc/self/status).
    pub capabilities: u64,
    /// Our hard limit of open files: a container's cannot be higher where CAP_SYS_RESOURCE is missing.
    pub nofile_hard: u64,
    /// We are uid 0 of a user namespace only.
    pub rootless: bool,
    /// The host's name, for containers that share it.
    pub hostname: String,
}

impl Host {
    /// Reads the facts; what cannot be read has a value that asks for nothing special.
    pub fn read(rootless: bool) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Self {
            capabilities: parse_cap_bnd(&status).unwrap_or(u64::MAX),
            nofile_hard: limit.maximum.unwrap_or(u64::MAX),
            rootless,
            hostname: fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
        }
    }
}

fn parse_cap_bnd(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounding_set_is_hexadecimal() {
        assert_eq!(parse_cap_bnd("Name:\tx\nCapBnd:\t00000000a80425fb\n"), Some(0xa804_25fb));
        assert_eq!(parse_cap_bnd("Name:\tx\n"), None);
    }
}
