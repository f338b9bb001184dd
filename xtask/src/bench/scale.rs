//! `cargo xtask bench scale`: many containers, beside the engines that have a daemon or a record of them.
//!
//! ```text
//! start   N detached containers at once, each command a process of its own
//! list    `ps -a` of R running and the rest created containers
//! stats   `stats --no-stream` of the running ones
//! ready   davit: from SIGKILL of runtimed to the first answered `ps`; docker: the same of dockerd with live-restore
//! ```

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use davit_tests::Ran;
use serde::Serialize;

use super::peers::{self, Peer};
use super::report::{machine, quantile};
use crate::cargo;

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many containers are started at once
    #[arg(long, default_value_t = 100)]
    at_once: usize,
    /// How many containers run while lists, stats and returns are measured
    #[arg(long, default_value_t = 200)]
    running: usize,
    /// How many containers there are in all, most of them created only
    #[arg(long, default_value_t = 1000)]
    containers: usize,
    /// How often each command runs
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Only these: davit, podman, docker
    #[arg(long, value_delimiter = ',', default_value = "davit,podman,docker")]
    only: Vec<String>,
    /// Keep every engine's state on a tmpfs instead of on the disk
    #[arg(long)]
    tmpfs: bool,
    /// Use the debug build (for trying the benchmark itself)
    #[arg(long)]
    debug: bool,
    /// Use the programs in this directory and build nothing
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Where scale.json and scale.md go
    #[arg(long, default_value = "docs/benchmarks")]
    out: PathBuf,
}

/// One figure of one engine, milliseconds.
#[derive(Debug, Serialize)]
struct Line {
    what: String,
    engine: &'static str,
    /// The only one, or the median.
    ms: f64,
    samples: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: String,
    profile: &'static str,
    state_on: &'static str,
    versions: Vec<String>,
    lines: Vec<Line>,
    /// Of davit with all containers there.
    memory_kb: Vec<(String, u64)>,
}

/// Runs it and writes its report.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let binaries = match &options.bin_dir {
        Some(dir) => dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?,
        None => cargo::build(!options.debug)?,
    };
    davit_tests::host::use_binaries(&binaries);
    let mut report = Report {
        machine: machine(),
        profile: if options.debug { "debug" } else { "release" },
        state_on: if options.tmpfs { "tmpfs" } else { "disk" },
        versions: Vec::new(),
        lines: Vec::new(),
        memory_kb: Vec::new(),
    };
    // One engine at a time: a thousand containers of another would be in the way.
    for name in &options.only {
        for peer in peers::set_up(std::slice::from_ref(name), options.tmpfs)? {
            report.versions.push(peer.version.clone());
            one(&peer, options, &mut report).with_context(|| format!("measuring {name}"))?;
        }
    }
    let out = cargo::root().join(&options.out);
    let table = report.markdown(options);
    println!("\n{table}");
    std::fs::write(out.join("scale.md"), &table)?;
    std::fs::write(out.join("scale.json"), serde_json::to_string_pretty(&report)? + "\n")?;
    println!("written to {}", out.display());
    Ok(())
}

fn one(peer: &Peer, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let Some(detached) = &peer.detached else { return Ok(()) };
    let detached = detached.join(" ");
    let at_once = |prefix: &str, count: usize, line: &str| -> anyhow::Result<f64> {
        // Each answers for itself: a failed one is a failure of the measurement.
        let script = format!(
            "for i in $(seq {count}); do {line} {prefix}$i {} sleep 100000 >/dev/null & p=\"$p $!\"; done; for i in $p; do wait $i || exit 1; done",
            peer.image
        );
        let (took, ran) = timed(|| peer.run(&["sh".into(), "-c".into(), script], 0));
        ensure!(ran.code == 0, "{ran}");
        Ok(took)
    };
    println!("{}: {} at once", peer.name, options.at_once);
    let what = format!("{} started at once, without network", options.at_once);
    report.add(&what, peer, vec![at_once("start", options.at_once, &detached)?]);
    if let Some(bridged) = detached_on_bridge(peer) {
        let what = format!("{} started at once, on a bridge", options.at_once);
        report.add(&what, peer, vec![at_once("wired", options.at_once, &bridged)?]);
    }
    let mut there = 2 * options.at_once;
    while there < options.running {
        let batch = (options.running - there).min(20);
        at_once(&format!("more{there}-"), batch, &detached)?;
        there += batch;
    }
    let create = detached.replacen(" run -d ", " create ", 1);
    while there < options.containers {
        let batch = (options.containers - there).min(20);
        at_once(&format!("made{there}-"), batch, &create)?;
        there += batch;
    }
    println!("{}: {there} containers", peer.name);
    for (argv, what) in [
        (&peer.list, format!("`ps -a` of {there}")),
        (&peer.stats, format!("`stats --no-stream` of {}", options.running)),
    ] {
        let Some(argv) = argv else { continue };
        let mut samples = Vec::new();
        for round in 0..=options.rounds {
            let (took, ran) = timed(|| peer.run(argv, round));
            ensure!(ran.code == 0, "{ran}");
            if round > 0 {
                samples.push(took);
            }
        }
        report.add(&what, peer, samples);
    }
    if peer.name == "davit" {
        ready_again(peer, options, report)?;
    }
    Ok(())
}

/// Where the engine's default network is one.
fn detached_on_bridge(peer: &Peer) -> Option<String> {
    peer.bridged.as_ref()?;
    Some(peer.detached.as_ref()?.join(" ").replace("--net none ", "").replace("--network none ", ""))
}

/// From the death of runtimed to an answer that names every running container.
fn ready_again(peer: &Peer, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let running = options.running.max(2 * options.at_once);
    let mut samples = Vec::new();
    for round in 0..5 {
        // A daemon that died a moment ago is started again with a pause.
        std::thread::sleep(std::time::Duration::from_secs(12));
        peer.run(&words("pkill -9 -x davit-runtimed"), round).ok();
        let (took, ran) = timed(|| peer.run(&words("davit ps -q"), round));
        ensure!(ran.code == 0 && ran.stdout.lines().count() == running, "{ran}");
        samples.push(took);
    }
    report.add(&format!("runtimed killed, `ps` of {running} answered"), peer, samples);
    let script = "for p in /proc/[0-9]*; do c=$(cat $p/comm 2>/dev/null); case $c in davit-storaged|davit-netd|davit-runtimed) echo $c $(grep VmRSS $p/status);; esac; done";
    for line in peer.host.sh(script).ok().stdout.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let [name, _, size, ..] = fields[..] {
            report.memory_kb.push((name.to_owned(), size.parse().unwrap_or(0)));
        }
    }
    Ok(())
}

fn timed(run: impl FnOnce() -> Ran) -> (f64, Ran) {
    let begin = Instant::now();
    let ran = run();
    (begin.elapsed().as_secs_f64() * 1000.0, ran)
}

impl Report {
    fn add(&mut self, what: &str, peer: &Peer, samples: Vec<f64>) {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let ms = quantile(&sorted, 0.5);
        println!("{}: {what}: {ms:.1} ms", peer.name);
        self.lines.push(Line { what: what.to_owned(), engine: peer.name, ms, samples });
    }

    fn markdown(&self, options: &Options) -> String {
        let mut text = "# Many containers\n\n".to_owned();
        let _ = writeln!(
            text,
            "Made by `cargo xtask bench scale`: {} rounds, one engine after the other, {} build, state on {}, {}.\n{}.\n",
            options.rounds,
            self.profile,
            self.state_on,
            self.machine,
            self.versions.join(" · ")
        );
        let mut whats: Vec<&str> = Vec::new();
        for line in &self.lines {
            if !whats.contains(&line.what.as_str()) {
                whats.push(&line.what);
            }
        }
        let engines: Vec<&str> = options.only.iter().map(String::as_str).collect();
        let _ =
            writeln!(text, "| what, ms | {} |\n|---|{}", engines.join(" | "), "---:|".repeat(engines.len()));
        for what in whats {
            let of = |engine: &&str| {
                let line = self.lines.iter().find(|l| l.what == what && l.engine == *engine);
                line.map_or("-".to_owned(), |l| format!("{:.1}", l.ms))
            };
            let _ = writeln!(text, "| {what} | {} |", engines.iter().map(of).collect::<Vec<_>>().join(" | "));
        }
        let sizes: Vec<String> = self
            .memory_kb
            .iter()
            .map(|(name, kb)| {
                format!("{name} {:.1}", f64::from(u32::try_from(*kb).unwrap_or(u32::MAX)) / 1024.0)
            })
            .collect();
        let _ = writeln!(text, "\nRSS of davit's daemons with all of them, MB: {}.", sizes.join(", "));
        text
    }
}
