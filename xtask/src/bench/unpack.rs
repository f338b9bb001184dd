//! `cargo xtask bench unpack`: load and pull of a large image, every engine in turn on the same disk.
//!
//! Before each run the engine's image is removed and the disk is quiet (sync); before a cold run the page cache is dropped as
//! well. davit's time includes its fsyncs; what the others have not written when they say "done" is not counted against
//! them, but shown: the time that a `sync` takes afterwards.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

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

/// One engine's commands for one thing.
struct Job {
    what: &'static str,
    engine: usize,
    /// The name in the report: podman's host also runs skopeo.
    name: &'static str,
    run: String,
    /// Removes the image and all its layers.
    clear: String,
}

/// Measures and writes the report.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let binaries = match &options.bin_dir {
        Some(dir) => dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?,
        None => cargo::build(true)?,
    };
    davit_tests::host::use_binaries(&binaries);
    let fixtures = binaries.parent().context("a profile directory has a parent")?.join("fixtures");
    let image = Image::make(options.size, &fixtures)?;
    let mut only = options.only.clone();
    if only.iter().any(|o| o == "skopeo") {
        only.push("podman".into());
    }
    if only.is_empty() {
        only.extend(["davit", "podman", "docker", "ctr"].map(str::to_owned));
    }
    let peers = peers::set_up(&only, false)?;
    let registries: Vec<Registry> =
        peers.iter().map(|p| Registry::writable(&p.host, &image.storage())).collect();
    let name = registries.first().context("no engine is installed")?.image("bench/unpack:1");
    let jobs: Vec<Job> = jobs(&peers, &image, &name)
        .into_iter()
        .filter(|j| options.only.is_empty() || options.only.iter().any(|o| o == j.name))
        .filter(|j| options.what.is_empty() || options.what.iter().any(|w| w == j.what))
        .collect();
    let mut samples = Vec::new();
    for round in 1..=options.rounds {
        for cold in [true, false] {
            for job in &jobs {
                let sample = measure(&peers[job.engine], job, cold)?;
                println!("round {round}: {sample}");
                samples.push(sample);
            }
        }
    }
    let report = Report::new(options.rounds, options.size, &peers, samples);
    let out = cargo::root().join(&options.out);
    fs::create_dir_all(&out)?;
    println!("\n{}", report.markdown());
    fs::write(out.join("unpack.md"), report.markdown())?;
    fs::write(out.join("unpack.json"), serde_json::to_string_pretty(&report)? + "\n")?;
    Ok(())
}

fn jobs(peers: &[Peer], image: &Image, name: &str) -> Vec<Job> {
    let archive = image.archive();
    let mut jobs = Vec::new();
    for (engine, peer) in peers.iter().enumerate() {
        let mut job = |what, name, run: String, clear: &str| {
            jobs.push(Job { what, engine, name, run, clear: clear.to_owned() });
        };
        match peer.name {
            "davit" => {
                let clear = format!("davit rmi -f bench/unpack:1 {name}");
                job("load", "davit", format!("davit load -q -i {archive}"), &clear);
                job("pull", "davit", format!("davit pull -q {name}"), &clear);
            }
            "docker" => {
                let clear = "docker image prune -af";
                job("load", "docker", format!("docker load -q -i {archive}"), clear);
                job("pull", "docker", format!("docker pull -q {name}"), clear);
            }
            "podman" => {
                let clear = "podman image prune -af";
                job("load", "podman", format!("podman load -q -i {archive}"), clear);
                job("pull", "podman", format!("podman pull -q --tls-verify=false {name}"), clear);
                let skopeo = "skopeo --insecure-policy copy -q --src-tls-verify=false";
                let to = "containers-storage:localhost/bench/unpack:1";
                job("load", "skopeo", format!("{skopeo} docker-archive:{archive} {to}"), clear);
                job("pull", "skopeo", format!("{skopeo} docker://{name} {to}"), clear);
            }
            "ctr" => {
                let clear = format!("ctr image rm --sync {name} docker.io/bench/unpack:1");
                job("load", "ctr", format!("ctr image import {archive}"), &clear);
                job("pull", "ctr", format!("ctr image pull --plain-http {name}"), &clear);
            }
            _ => {}
        }
    }
    jobs
}

fn measure(peer: &Peer, job: &Job, cold: bool) -> anyhow::Result<Sample> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    // It fails where there is nothing to remove.
    peer.run(&words(&job.clear), 0);
    quiet(peer);
    // In both cases the source is read once before, so that cold means just that: out of the page cache.
    if cold {
        fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the page cache")?;
    }
    let peak = peer.host.sh("for p in /proc/[0-9]*; do grep -q davit-storaged $p/comm && echo 5 > $p/clear_refs; done 2>/dev/null; true");
    ensure!(peak.code == 0, "{peak}");
    let begin = Instant::now();
    let ran = peer.run(&words(&job.run), 0);
    let seconds = begin.elapsed().as_secs_f64();
    ensure!(ran.code == 0, "{}: {ran}", peer.name);
    let begin = Instant::now();
    rustix::fs::sync();
    let sync = begin.elapsed().as_secs_f64();
    let script = "for p in /proc/[0-9]*; do grep -qx davit-storaged $p/comm 2>/dev/null && grep ^VmHWM $p/status; done; true";
    let peak = peer.host.sh(script);
    let peak_kilobytes = peak.stdout.split_whitespace().nth(1).and_then(|n| n.parse().ok());
    peer.run(&words(&job.clear), 0);
    Ok(Sample { what: job.what, engine: job.name, cold, seconds, sync, peak_kilobytes })
}

/// Waits until what the last engine removed is gone and written.
fn quiet(peer: &Peer) {
    if peer.name == "davit" {
        let emptied = "i=0; while [ -n \"$(ls -A \"$DAVIT_STATE_DIR/storage/trash\" 2>/dev/null)\" ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done";
        peer.host.sh(emptied);
    }
    rustix::fs::sync();
}
