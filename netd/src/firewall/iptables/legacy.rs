//! iptables-legacy on a host whose rules we write by nf_tables. Its tables are the kernel's older ones, which nf_tables does
//! not tell of; a FORWARD that drops there stops our packets all the same.

use std::fs;

use super::command::Tool;
use crate::firewall::{FirewallError, Mark};

/// The accepts that let our networks' packets pass.
fn rules(mark: &Mark) -> [String; 2] {
    ["--src-group", "--dst-group"].map(|which| {
        format!("-m devgroup {which} {:#x} -m comment --comment '{}' -j ACCEPT", mark.group, mark.comment())
    })
}

/// The IP versions whose legacy table "filter" is in use, with their commands. None on most hosts, at the cost of
/// reading two files.
fn in_use() -> impl Iterator<Item = Tool> {
    [("ip_tables_names", false), ("ip6_tables_names", true)].into_iter().filter_map(|(file, ipv6)| {
        let names = fs::read_to_string(format!("/proc/thread-self/net/{file}")).ok()?;
        names.lines().any(|l| l == "filter").then(|| Tool::legacy(ipv6).ok())?
    })
}

/// Makes sure that a FORWARD that drops lets our networks' packets through.
pub fn ensure(mark: &Mark) -> Result<(), FirewallError> {
    for tool in in_use() {
        if !tool.drops("filter", "FORWARD")? {
            continue;
        }
        for rule in rules(mark) {
            tool.ensure("filter", "FORWARD", &rule)?;
        }
    }
    Ok(())
}

/// Takes our rules out.
pub fn remove(mark: &Mark) -> Result<(), FirewallError> {
    for tool in in_use() {
        for rule in rules(mark) {
            tool.drop_all("filter", "FORWARD", &rule)?;
        }
    }
    Ok(())
}
