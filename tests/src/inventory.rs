//! What a machine has at a moment: processes, mounts, links, network namespaces, firewall rules, cgroups.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// One line for each thing, such as `process 12 davit-netd` or `link dv-0123`; two of them are compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    things: BTreeSet<String>,
}

impl Inventory {
    /// Looks at the machine (or private host) that the caller runs on.
    pub fn take() -> io::Result<Self> {
        let mut things = BTreeSet::new();
        processes(&mut things)?;
        for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            if let (Some(target), Some(dash)) = (words.get(4), words.iter().position(|w| *w == "-")) {
                things.insert(format!("mount {target} {}", words.get(dash + 1).unwrap_or(&"?")));
            }
        }
        for line in fs::read_to_string("/proc/net/dev")?.lines() {
            if let Some((link, _)) = line.split_once(':') {
                things.insert(format!("link {}", link.trim()));
            }
        }
        for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            things.insert(format!("netns /run/netns/{}", entry.file_name().to_string_lossy()));
        }
        rules(&mut things);
        cgroups(Path::new("/sys/fs/cgroup"), &mut things);
        for file in ["route", "ipv6_route"] {
            for line in fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default().lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                if let (Some(first), Some(last)) = (words.first(), words.last()) {
                    let (link, to) = if file == "route" { (*first, words[1]) } else { (*last, *first) };
                    things.insert(format!("route {to} {link}"));
                }
            }
        }
        Ok(Self { things })
    }

    /// What `self` has and `before` had not, one line each.
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        self.things.difference(&before.things).cloned().collect()
    }

    /// What `before` had and `self` has not any more.
    pub fn lost(&self, before: &Self) -> Vec<String> {
        before.beyond(self)
    }

    /// All lines that contain `part`.
    pub fn matching(&self, part: &str) -> Vec<String> {
        self.things.iter().filter(|t| t.contains(part)).cloned().collect()
    }
}

/// Processes other than the caller, and the network namespaces they live in. Zombies count: somebody forgot them.
fn processes(things: &mut BTreeSet<String>) -> io::Result<()> {
    let own = fs::read_link("/proc/self/ns/net")?;
    let mut namespaces = HashSet::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(command) = fs::read(entry.path().join("cmdline")) else { continue };
        let status = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let kernel = status.rsplit(") ").next().and_then(|s| s.split(' ').nth(1)) == Some("2");
        if pid == std::process::id() || pid == 2 || kernel {
            continue;
        }
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let name = if command.is_empty() { status.split(' ').nth(1).unwrap_or("?") } else { command.trim() };
        things.insert(format!("process {pid} {name}"));
        if let Ok(netns) = fs::read_link(entry.path().join("ns/net"))
            && netns != own
            && namespaces.insert(netns.clone())
        {
            things.insert(format!("netns {} of process {pid}", netns.display()));
        }
    }
    Ok(())
}

/// nftables and iptables, without counters; nothing when the caller may not read them. Without the table that keeps strangers
/// out: it stays for as long as the host forwards, which it goes on to do.
fn rules(things: &mut BTreeSet<String>) {
    let mut add = |program: &str, args: &[&str]| {
        let Ok(output) = Command::new(program).args(args).output() else { return };
        let mut table = String::new();
        for line in String::from_utf8_lossy(&output.stdout).lines().map(str::trim) {
            if line.starts_with("table ") {
                line.trim_end_matches(" {").clone_into(&mut table);
            }
            let stays = table.starts_with("table inet davit") && table.ends_with("-guard");
            if !stays && !line.is_empty() && line != "}" && !line.starts_with('#') {
                things.insert(format!("rule {program}: {table}: {line}"));
            }
        }
    };
    add("nft", &["--stateless", "list", "ruleset"]);
}

fn cgroups(dir: &Path, things: &mut BTreeSet<String>) {
    const TMPFS: i64 = 0x0102_1994;
    // What lies over a hierarchy to hide it has no groups.
    if dir.ends_with("unified") && rustix::fs::statfs(dir).is_ok_and(|s| s.f_type == TMPFS) {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            things.insert(format!("cgroup {}", entry.path().display()));
            cgroups(&entry.path(), things);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_process_is_noticed_and_a_gone_one_too() {
        let before = Inventory::take().unwrap();
        let mut child = Command::new("sleep").arg("98765").spawn().unwrap();
        let during = Inventory::take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(during.beyond(&before).iter().any(|t| t.ends_with("sleep 98765")));
        assert!(Inventory::take().unwrap().lost(&during).iter().any(|t| t.ends_with("sleep 98765")));
    }
}
