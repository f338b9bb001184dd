//! Running cargo on this workspace.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// The workspace's root directory.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// A cargo command in the workspace.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(args);
    command
}

/// Prints a command and runs it; a failure is an error.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let program =
        Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let words = command.get_args().map(|a| a.to_string_lossy().into_owned());
    let line = std::iter::once(program).chain(words).collect::<Vec<_>>().join(" ");
    println!("$ {line}");
    let status = command.status().with_context(|| format!("cannot run `{line}`"))?;
    ensure!(status.success(), "`{line}` failed ({status})");
    Ok(())
}

/// Whether cargo has this subcommand, such as `nextest`.
pub fn has(subcommand: &str) -> bool {
    cargo(&[subcommand, "--version"]).output().is_ok_and(|o| o.status.success())
}

/// Builds every program of the workspace; answers the directory they are in.
pub fn build(release: bool) -> anyhow::Result<PathBuf> {
    let mut command = cargo(&["build", "--workspace", "--bins"]);
    if release {
        command.arg("--release");
    }
    run(&mut command)?;
    Ok(target_directory()?.join(if release { "release" } else { "debug" }))
}

/// `cargo metadata` of the workspace's own packages.
pub fn metadata() -> anyhow::Result<serde_json::Value> {
    let output = cargo(&["metadata", "--format-version", "1", "--no-deps"]).output()?;
    ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Where cargo puts what it builds.
pub fn target_directory() -> anyhow::Result<PathBuf> {
    let metadata = metadata()?;
    metadata["target_directory"]
        .as_str()
        .map(PathBuf::from)
        .context("cargo metadata names no target directory")
}
