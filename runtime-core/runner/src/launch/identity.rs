//! User namespaces: whether we live in one, and the mappings of a new one.

use std::fs;
use std::os::fd::OwnedFd;
use std::process::Command;

use crate::error::{Context, Error, Result};
use crate::spec::{IdMapping, Linux};

/// Whether we are in a user namespace that is not the machine's first: then no device node can be made.
pub fn is_nested() -> bool {
    let text = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !is_full_map(&text) || std::env::var_os("DAVIT_ROOTLESS").is_some_and(|v| v == "1")
}

fn is_full_map(text: &str) -> bool {
    text.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Writes the id maps of the process, itself where we may, else by newuidmap(1) and newgidmap(1).
pub fn map(pid: i32, linux: &Linux) -> Result<()> {
    let (uids, gids) = (lines(&linux.uid_mappings), lines(&linux.gid_mappings));
    let privileged = nix::unistd::geteuid().is_root();
    let single = linux.uid_mappings.len() == 1 && linux.uid_mappings[0].size == 1;
    if privileged || single {
        if !privileged {
            fs::write(format!("/proc/{pid}/setgroups"), "deny")
                .context(|| "deny setgroups in the user namespace")?;
        }
        fs::write(format!("/proc/{pid}/uid_map"), uids).context(|| "map user ids")?;
        return fs::write(format!("/proc/{pid}/gid_map"), gids).context(|| "map group ids");
    }
    by_program("newuidmap", pid, &uids)?;
    by_program("newgidmap", pid, &gids)
}

/// The uid that root of a process's user namespace has here; 0 where that cannot be told.
pub fn root_of(pid: i32) -> u32 {
    let text = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap_or_default();
    let of = |line: &str| {
        let mut words = line.split_whitespace().map(str::parse::<u32>);
        (words.next()? == Ok(0)).then(|| words.next()?.ok()).flatten()
    };
    text.lines().find_map(of).unwrap_or(0)
}

/// A user namespace with these maps, for id-mapped mounts.
pub fn namespace(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd> {
    let made = davit_sys::userns::mapped(&lines(uids), &lines(gids), false);
    made.map(|m| m.user).context(|| "make a user namespace for id-mapped mounts")
}

fn lines(mappings: &[IdMapping]) -> String {
    mappings
        .iter()
        .fold(String::new(), |text, m| text + &format!("{} {} {}\n", m.container_id, m.host_id, m.size))
}

fn by_program(program: &str, pid: i32, lines: &str) -> Result<()> {
    let output = Command::new(program).arg(pid.to_string()).args(lines.split_whitespace()).output();
    let output = output.context(|| format!("run {program} (Debian's package uidmap)"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Config(format!("{program} refuses the id mapping: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_namespace_is_told_from_others() {
        assert!(is_full_map("         0          0 4294967295\n"));
        assert!(!is_full_map("         0       1000          1\n"));
        assert!(!is_full_map("0 0 65536\n"));
    }

    #[test]
    fn maps_are_lines_of_inside_outside_count() {
        let m = |container_id, host_id, size| IdMapping { container_id, host_id, size };
        assert_eq!(lines(&[m(0, 1000, 1), m(1, 100_000, 65_535)]), "0 1000 1\n1 100000 65535\n");
    }
}
