//! `cargo xtask bench unpack`: load and pull of a large image, every engine in turn on the same disk.
//!
//! Every run has an engine of its own with an empty state, so that nothing is deleted between runs: ext4 passes over inodes that
//! were deleted in the last minute when it looks for free ones, and after the removal of 60,000 files every engine's time is
//! ruled by that search. What a round has made is removed at its end, and [`PAUSE`] waited. Before each run the disk is quiet
//! (sync) and the page cache dropped; before a warm run the source is read again. davit's time includes its fsyncs; what the
//! others have not written when they say "done" is not counted against them, but shown: the time that a `sync` takes afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use davit_tests::Registry;

use super::peers::{self, Peer};
use crate::cargo;

mod image;
mod registry;
mod report;

use image::{Image, Size};
use report::{Report, Sample};

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How often each engine does each thing
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How large the image is
    #[command(flatten)]
    size: Size,
    /// Only these: davit, podman, docker, ctr, skopeo
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these: load, pull
    #[arg(long, value_delimiter = ',')]
    what: Vec<String>,
    /// Use the programs in this directory and build nothing
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Where unpack.json and unpack.md go
    #[arg(long, default_value = "docs/benchmarks")]
    out: PathBuf,
}

/// After a round's files are deleted, until ext4 takes their inodes as free.
const PAUSE: Duration = Duration::from_secs(65);
/// Engine, whose host and daemons it needs, and what it is called in the report.
const ENGINES: [(&str, &str); 5] =
    [("davit", "davit"), ("podman", "podman"), ("podman", "skopeo"), ("docker", "docker"), ("ctr", "ctr")];

/// Measures and writes the report.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let binaries = match &options.bin_dir {
        Some(dir) => dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?,
        None => cargo::build(true)?,
    };
    davit_tests::host::use_binaries(&binaries);
    let fixtures = binaries.parent().context("a profile directory has a parent")?.join("fixtures");
    let image = Image::make(options.size, &fixtures)?;
    let wanted = |list: &[String], name: &str| list.is_empty() || list.iter().any(|n| n == name);
    let mut samples = Vec::new();
    let mut versions = BTreeMap::new();
    for round in 1..=options.rounds {
        // Kept to the end of the round.
        let mut used: Vec<(Peer, Option<Registry>)> = Vec::new();
        for (cold, what) in [(true, "load"), (true, "pull"), (false, "load"), (false, "pull")] {
            for (engine, name) in ENGINES.into_iter().filter(|(_, name)| wanted(&options.only, name)) {
                if !wanted(&options.what, what) {
                    continue;
                }
                let Some(peer) = peers::set_up(&[engine.to_owned()], false)?.pop() else { continue };
                let registry = (what == "pull").then(|| Registry::writable(&peer.host, &image.storage()));
                let reference = registry.as_ref().map(|r| r.image("bench/unpack:1")).unwrap_or_default();
                let command = command(name, what, &image, &reference);
                let source: PathBuf = if what == "load" { image.archive().into() } else { image.storage() };
                let sample = measure(&peer, what, name, &command, (!cold).then_some(source.as_path()))?;
                println!("round {round}: {sample}");
                samples.push(sample);
                versions.insert(peer.name, peer.version.clone());
                used.push((peer, registry));
            }
        }
        drop(used);
        rustix::fs::sync();
        if round < options.rounds {
            std::thread::sleep(PAUSE);
        }
    }
    let report = Report::new(options.rounds, options.size, versions, samples);
    let out = cargo::root().join(&options.out);
    fs::create_dir_all(&out)?;
    println!("\n{}", report.markdown());
    fs::write(out.join("unpack.md"), report.markdown())?;
    fs::write(out.join("unpack.json"), serde_json::to_string_pretty(&report)? + "\n")?;
    Ok(())
}

fn command(name: &str, what: &str, image: &Image, reference: &str) -> String {
    let archive = image.archive();
    let skopeo = "skopeo --insecure-policy copy -q --src-tls-verify=false";
    let to = "containers-storage:localhost/bench/unpack:1";
    match (name, what) {
        ("davit" | "docker" | "podman", "load") => format!("{name} load -q -i {archive}"),
        ("davit" | "docker", _) => format!("{name} pull -q {reference}"),
        ("podman", _) => format!("podman pull -q --tls-verify=false {reference}"),
        ("skopeo", "load") => format!("{skopeo} docker-archive:{archive} {to}"),
        ("skopeo", _) => format!("{skopeo} docker://{reference} {to}"),
        (_, "load") => format!("ctr image import {archive}"),
        _ => format!("ctr image pull --plain-http {reference}"),
    }
}

fn measure(
    peer: &Peer,
    what: &'static str,
    name: &'static str,
    command: &str,
    read_before: Option<&Path>,
) -> anyhow::Result<Sample> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the page cache")?;
    if let Some(source) = read_before {
        read_through(source).with_context(|| format!("cannot read {}", source.display()))?;
    }
    let reset = "for p in /proc/[0-9]*; do grep -q davit-storaged $p/comm && echo 5 > $p/clear_refs; done 2>/dev/null; true";
    peer.host.sh(reset);
    let begin = Instant::now();
    let ran = peer.run(&words(command), 0);
    let seconds = begin.elapsed().as_secs_f64();
    ensure!(ran.code == 0, "{}: {ran}", peer.name);
    let begin = Instant::now();
    rustix::fs::sync();
    let sync = begin.elapsed().as_secs_f64();
    let script = "for p in /proc/[0-9]*; do grep -qx davit-storaged $p/comm 2>/dev/null && grep ^VmHWM $p/status; done; true";
    let peak = peer.host.sh(script);
    let peak_kilobytes = peak.stdout.split_whitespace().nth(1).and_then(|n| n.parse().ok());
    Ok(Sample { what, engine: name, cold: read_before.is_none(), seconds, sync, peak_kilobytes })
}

/// Reads a file, or all files below a directory.
fn read_through(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return fs::read_dir(path)?.try_for_each(|entry| read_through(&entry?.path()));
    }
    std::io::copy(&mut fs::File::open(path)?, &mut std::io::sink()).map(drop)
}
