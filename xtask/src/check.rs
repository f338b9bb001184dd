//! `cargo xtask check`: formatting, lints, and the rules of ARCHITECTURE.md that no compiler knows.

use std::process::Command;

use anyhow::bail;

use crate::cargo;

mod edges;
mod sources;

/// Runs all checks; fails with every broken rule named.
pub fn run() -> anyhow::Result<()> {
    ensure_components()?;
    cargo::run(&mut cargo::cargo(&["fmt", "--all", "--check"]))?;
    let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    cargo::run(&mut cargo::cargo(&lints))?;
    let mut broken = edges::broken(&cargo::metadata()?);
    let findings = sources::check()?;
    findings.long.iter().for_each(|line| println!("warning: {line}"));
    broken.extend(findings.broken);
    if broken.is_empty() {
        println!("dependency edges and sources: in order");
        return Ok(());
    }
    bail!("{} rules broken:\n  {}", broken.len(), broken.join("\n  "))
}

/// A minimal toolchain lacks rustfmt and clippy.
fn ensure_components() -> anyhow::Result<()> {
    let missing: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .iter()
        .filter(|(sub, _)| !cargo::has(sub))
        .map(|(_, c)| *c)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    cargo::run(Command::new("rustup").args(["component", "add"]).args(missing))
}
