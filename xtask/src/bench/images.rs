//! `cargo xtask bench images`: how long `davit image ls` takes with many images, from the start of the client to its end.
//!
//! The images come as docker-archives of a thousand each that `davit load` reads, so that the records are those of real use. Only storaged
//! runs, on directories of its own.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::cargo;

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many images
    #[arg(long, default_value_t = 10_000)]
    count: usize,
    /// How often each command runs
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// Use the debug build (for trying the benchmark itself)
    #[arg(long)]
    debug: bool,
    /// Use the programs in this directory and build nothing
    #[arg(long)]
    bin_dir: Option<PathBuf>,
}

const BATCH: usize = 1000;

/// A storaged of its own.
struct Daemon {
    bin: PathBuf,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Daemon {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        for (key, name) in
            [("DAVIT_STATE_DIR", "state"), ("DAVIT_RUN_DIR", "run"), ("DAVIT_CONFIG_DIR", "config")]
        {
            command.env(key, self.dir.path().join(name));
        }
        command.env("DAVIT_NO_AUTOSTART", "1").env_remove("NOTIFY_SOCKET").env_remove("LISTEN_FDS");
        command.stdin(Stdio::null());
        command
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log"))?;
        self.child =
            Some(self.command("davit-storaged").stderr(log).spawn().context("cannot start storaged")?);
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.davit(&["image", "ls", "-q", "--filter", "label=none"]).is_err() {
            ensure!(Instant::now() < deadline, "storaged does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Runs `davit` and answers its output and how long it took.
    fn davit(&self, args: &[&str]) -> anyhow::Result<(String, Duration)> {
        let since = Instant::now();
        let output = self.command("davit").args(args).output()?;
        let took = since.elapsed();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "davit {}: {errors}", args.join(" "));
        Ok((String::from_utf8_lossy(&output.stdout).into_owned(), took))
    }

    fn memory_kib(&self) -> u64 {
        let pid = self.child.as_ref().map_or(0, Child::id);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs it and prints a table.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let bin = match &options.bin_dir {
        Some(dir) => dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?,
        None => cargo::build(!options.debug)?,
    };
    let mut daemon = Daemon { bin, dir: tempfile::tempdir()?, child: None };
    daemon.start()?;
    let idle = daemon.memory_kib();
    for first in (0..options.count).step_by(BATCH) {
        let archive = archive(daemon.dir.path(), first, BATCH.min(options.count - first))?;
        let (_, took) = daemon.davit(&["load", "-q", "-i", &archive.to_string_lossy()])?;
        println!("loaded from {first} on in {} ms", took.as_millis());
    }
    let (ids, _) = daemon.davit(&["image", "ls", "-q", "--no-trunc"])?;
    ensure!(ids.lines().count() == options.count, "{} images are listed", ids.lines().count());
    let middle = ids.lines().nth(options.count / 2).unwrap_or_default()["sha256:".len()..][..12].to_owned();
    println!("\n| command, {} images | first after a start, ms | median, ms | 95th, ms |", options.count);
    println!("|---|---|---|---|");
    for (title, args) in [
        ("image ls", &["image", "ls"][..]),
        ("image ls -q", &["image", "ls", "-q"]),
        ("image ls --format json", &["image", "ls", "--format", "json"]),
        ("image ls --filter label=n=77", &["image", "ls", "--filter", "label=n=77"]),
        ("image inspect PREFIX", &["image", "inspect", &middle]),
    ] {
        daemon.stop();
        daemon.start()?;
        let (_, cold) = daemon.davit(args)?;
        let mut warm = Vec::new();
        for _ in 0..options.rounds {
            warm.push(daemon.davit(args)?.1);
        }
        warm.sort_unstable();
        let at = |share: usize| ms(warm[(warm.len() * share / 100).min(warm.len() - 1)]);
        println!("| {title} | {:.1} | {:.1} | {:.1} |", ms(cold), at(50), at(95));
    }
    let (_, removed) = daemon.davit(&["image", "rm", &middle])?;
    println!("| image rm PREFIX | | {:.1} | |", ms(removed));
    println!("\nstoraged: {idle} KiB idle and empty, {} KiB after all of it", daemon.memory_kib());
    Ok(())
}

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

/// A docker-archive of images that share one layer.
fn archive(dir: &Path, first: usize, count: usize) -> anyhow::Result<PathBuf> {
    let made = dir.join("made");
    fs::create_dir_all(made.join("layer"))?;
    fs::write(made.join("layer/file"), "content\n")?;
    let reproducible = "--sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner";
    sh(&made, &format!("tar {reproducible} -cf layer.tar -C layer ."))?;
    let diff_id = sh(&made, "sha256sum layer.tar | cut -d ' ' -f 1")?;
    let mut manifest = String::from("[");
    for n in first..first + count {
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","created":"2026-01-01T00:{:02}:{:02}Z","config":{{"Env":["PATH=/usr/bin:/bin","N={n}"],"Cmd":["/bin/sh"],"Labels":{{"n":"{n}","org.opencontainers.image.title":"image {n}"}}}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}},"history":[{{"created_by":"bench image {n}"}}]}}"#,
            n / 60 % 60,
            n % 60,
            diff_id.trim()
        );
        fs::write(made.join(format!("{n}.json")), config)?;
        let comma = if n > first { "," } else { "" };
        write!(
            manifest,
            r#"{comma}{{"Config":"{n}.json","RepoTags":["registry.example/team/image-{n:05}:1"],"Layers":["layer.tar"]}}"#
        )?;
    }
    fs::write(made.join("manifest.json"), manifest + "]")?;
    let archive = dir.join("archive.tar");
    sh(&made, &format!("tar -cf {} --exclude=./layer .", archive.display()))?;
    fs::remove_dir_all(&made)?;
    Ok(archive)
}

fn sh(dir: &Path, script: &str) -> anyhow::Result<String> {
    let output = Command::new("sh").args(["-ec", script]).current_dir(dir).output()?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
