//! The engines: how each is mounted.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::mount::{MsFlags, mount, umount};
use nix::sys::wait::{WaitPidFlag, waitpid};
use serde::{Deserialize, Serialize};

use crate::cargo;
use crate::packages::which;

/// A server ends when its mount does; one that has not after this long hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// One file system.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Engine {
    /// In the report.
    pub name: String,
    /// As it says itself.
    pub version: String,
    /// The server; none for the kernel's overlayfs.
    program: Option<PathBuf>,
    /// Mount options besides the layers.
    options: Option<String>,
}

/// The kernel's, both versions of fuse-overlayfs, and davit-cowfs, as far as they are wanted and there.
pub fn installed(binaries: &Path, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Engine>> {
    let mut engines = Vec::new();
    if wanted("kernel") {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let version = format!("Linux {} overlayfs", release.trim());
        engines.push(Engine { name: "kernel".into(), version, program: None, options: None });
    }
    if wanted("1.10") {
        if which("fuse-overlayfs") {
            engines.push(Engine::server("1.10", "fuse-overlayfs".into(), None));
        } else {
            eprintln!("fuse-overlayfs 1.10 is left out: not installed");
        }
    }
    if wanted("2.0") {
        engines.push(Engine::server("2.0", second_version()?, None));
    }
    if wanted("cowfs") {
        engines.push(Engine::cowfs("cowfs", binaries, None));
    }
    Ok(engines)
}

/// fuse-overlayfs 2 from crates.io, built once.
fn second_version() -> anyhow::Result<PathBuf> {
    let root = cargo::target_directory()?.join("peers");
    let program = root.join("bin/fuse-overlayfs");
    if !program.exists() {
        let mut install =
            cargo::cargo(&["install", "--locked", "fuse-overlayfs", "--version", "^2", "--root"]);
        cargo::run(install.arg(&root))?;
    }
    Ok(program)
}

impl Engine {
    /// davit's own, with more options if one compares settings.
    pub fn cowfs(name: &str, binaries: &Path, options: Option<&str>) -> Self {
        Self::server(name, binaries.join("davit-cowfs"), options)
    }

    fn server(name: &str, program: PathBuf, options: Option<&str>) -> Self {
        let answer = Command::new(&program).arg("--version").output();
        let text = answer.map(|a| String::from_utf8_lossy(&a.stdout).into_owned()).unwrap_or_default();
        // 1.10 lets libfuse speak first.
        let version = text
            .lines()
            .find(|l| l.contains("version") && !l.contains("usermount"))
            .unwrap_or(name)
            .to_owned();
        Self { name: name.into(), version, program: Some(program), options: options.map(str::to_owned) }
    }

    /// Whether a process of its own serves it.
    pub fn has_server(&self) -> bool {
        self.program.is_some()
    }

    /// Mounts on `at`, with the options that podman starts it with: layers and nothing else.
    pub fn mount(&self, layers: &str, userns: bool, at: &Path) -> anyhow::Result<()> {
        let Some(program) = &self.program else {
            let options = format!("{layers}{}", if userns { ",userxattr" } else { "" });
            return mount(Some("overlay"), at, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
                .with_context(|| format!("cannot mount overlayfs with {options}"));
        };
        let options = self.options.iter().fold(layers.to_owned(), |all, more| format!("{all},{more}"));
        let mut command = Command::new(program);
        command.arg("-o").arg(&options).arg(at).stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.status().with_context(|| format!("cannot run {}", program.display()))?;
        ensure!(status.success(), "{} -o {options}: {status}", program.display());
        ensure!(is_mounted(at)?, "{} -o {options} has mounted nothing", program.display());
        Ok(())
    }

    /// Unmounts and waits until the server is gone.
    pub fn unmount(&self, at: &Path) -> anyhow::Result<()> {
        umount(at).with_context(|| format!("{}: cannot unmount", self.name))?;
        let begin = Instant::now();
        // Servers that went into the background are ours to wait for: this process is their subreaper.
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(nix::errno::Errno::ECHILD) => return Ok(()),
                Err(error) => return Err(error.into()),
                Ok(_) if begin.elapsed() > PATIENCE => bail!("{}: the server has not ended", self.name),
                Ok(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

/// The resident size of this process's children, in kilobytes: of the server that is mounted.
pub fn resident() -> anyhow::Result<u64> {
    let me = std::process::id();
    let children = fs::read_to_string(format!("/proc/{me}/task/{me}/children"))?;
    let sizes = children.split_whitespace().map(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()?)
    });
    sizes.sum()
}

fn is_mounted(at: &Path) -> anyhow::Result<bool> {
    let at = OsString::from(at).into_string().ok().context("the path of a mount is text")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mounts.lines().any(|l| l.split(' ').nth(4) == Some(at.as_str())))
}
