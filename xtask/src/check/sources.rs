//! Rules about source files: who may be unsafe, who may know tonic and fuser, how long a file may be.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::cargo;

/// A file that is longer gets a warning.
const LONG: usize = 400;

/// The outcome of looking at every source file.
#[derive(Debug, Default)]
pub struct Findings {
    /// Broken rules.
    pub broken: Vec<String>,
    /// Files that are long.
    pub long: Vec<String>,
}

/// Looks at every Rust file that git knows.
pub fn check() -> anyhow::Result<Findings> {
    let mut list = Command::new("git");
    list.args(["ls-files", "-co", "--exclude-standard", "*.rs"]).current_dir(cargo::root());
    let output = list.output().context("cannot run git")?;
    ensure!(output.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
    let mut findings = Findings::default();
    for path in String::from_utf8_lossy(&output.stdout).lines() {
        if let Ok(text) = fs::read_to_string(cargo::root().join(path)) {
            look(path, &text, &mut findings);
        }
    }
    Ok(findings)
}

fn look(path: &str, text: &str, findings: &mut Findings) {
    let lines = text.lines().count();
    if lines > LONG {
        findings.long.push(format!("{path} has {lines} lines (more than {LONG} need a reason)"));
    }
    if !path.starts_with("sys/") && code(text).any(|l| l.starts_with('#') && l.contains("allow(unsafe_code)"))
    {
        findings.broken.push(format!("{path}: unsafe code belongs into sys"));
    }
    if path.ends_with("/mod.rs") && !path.contains("/tests/") {
        findings.broken.push(format!("{path}: foo.rs beside foo/, not mod.rs"));
    }
    let daemons = ["storage/src/", "netd/src/", "runtime-core/src/"];
    if daemons.iter().any(|d| path.starts_with(d)) && !is_boundary(path) && names(text, "tonic") {
        findings.broken.push(format!("{path}: domain code knows no tonic; only server, peers and main do"));
    }
    if path.starts_with("cowfs/src/")
        && !path.contains("fuse")
        && !path.contains("/bin/")
        && names(text, "fuser")
    {
        findings.broken.push(format!("{path}: the core of the file system knows no fuser"));
    }
}

/// Code that talks to other processes: a daemon's server, its clients of other daemons, and `main`.
fn is_boundary(path: &str) -> bool {
    let parts: Vec<&str> = Path::new(path).iter().filter_map(|p| p.to_str()).collect();
    parts.iter().any(|p| ["server", "server.rs", "bin", "main.rs", "peers", "peers.rs"].contains(p))
}

fn names(text: &str, crate_name: &str) -> bool {
    code(text).any(|l| l.contains(&format!("{crate_name}::")) || l.contains(&format!("use {crate_name};")))
}

/// Lines that are no comments, up to the file's unit tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).take_while(|l| *l != "#[cfg(test)]").filter(|l| !l.starts_with("//"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(path: &str, text: &str) -> usize {
        let mut findings = Findings::default();
        look(path, text, &mut findings);
        findings.broken.len()
    }

    #[test]
    fn tonic_stays_at_the_boundary() {
        assert_eq!(broken("netd/src/ipam.rs", "use tonic::Status;"), 1);
        assert_eq!(broken("netd/src/server/networks.rs", "use tonic::Status;"), 0);
        assert_eq!(broken("netd/src/ipam.rs", "// tonic::Status is not for us"), 0);
    }

    #[test]
    fn unsafe_stays_in_sys() {
        assert_eq!(broken("cli/src/main.rs", "#![allow(unsafe_code)]"), 1);
        assert_eq!(broken("sys/src/lib.rs", "#![allow(unsafe_code)]"), 0);
    }
}
