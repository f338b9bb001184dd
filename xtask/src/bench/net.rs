//! `cargo xtask bench net`: what a network costs, in private network namespaces: netd beside netavark, the CNI plugins
//! bridge and portmap, and a bridge made by hand.
//!
//! ```text
//! latency     attach and detach with 1, 100 and 1,000 endpoints there, and with 1,000 ports published
//! names       queries a second and latency, beside dnsmasq and aardvark-dns
//! throughput  container to container, to a published port, out through NAT
//! memory      netd with 1,000 endpoints
//! ```

mod dns;
mod engines;
mod latency;
mod space;
mod throughput;

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;

use super::report::machine;
use crate::cargo;

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How often each attach and detach is measured
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Seconds that each load of names lasts, in each of nine turns; a stream of the throughput flows for six times as long
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// The most endpoints that are there already
    #[arg(long, default_value_t = 1000)]
    crowd: usize,
    /// Only these parts: latency, names, throughput
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Use the debug build (for trying the benchmark itself)
    #[arg(long)]
    debug: bool,
    /// Use the programs in this directory and build nothing
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Where net.json and net.md go
    #[arg(long, default_value = "docs/benchmarks")]
    out: PathBuf,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
struct Report {
    machine: String,
    profile: &'static str,
    rounds: usize,
    versions: Vec<String>,
    latency: Vec<latency::Line>,
    names: Vec<dns::Line>,
    throughput: Vec<throughput::Line>,
    memory: Option<latency::Memory>,
}

/// Runs the benchmark and writes its report.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let binaries = match &options.bin_dir {
        Some(dir) => dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?,
        None => cargo::build(!options.debug)?,
    };
    let wanted = |part: &str| options.only.is_empty() || options.only.iter().any(|o| o == part);
    let mut report = Report {
        machine: machine(),
        profile: if options.debug { "debug" } else { "release" },
        rounds: options.rounds,
        versions: [engines::versions(&binaries), dns::versions()].concat(),
        latency: Vec::new(),
        names: Vec::new(),
        throughput: Vec::new(),
        memory: None,
    };
    if wanted("latency") {
        (report.latency, report.memory) = latency::measure(&binaries, options.rounds, options.crowd)?;
    }
    if wanted("names") {
        report.names = dns::measure(&binaries, options.seconds)?;
    }
    if wanted("throughput") {
        report.throughput = throughput::measure(&binaries, options.seconds)?;
    }
    let table = markdown(&report);
    println!("\n{table}");
    let out = cargo::root().join(&options.out);
    std::fs::create_dir_all(&out)?;
    std::fs::write(out.join("net.md"), &table)?;
    std::fs::write(out.join("net.json"), serde_json::to_string_pretty(&report)? + "\n")
        .with_context(|| format!("cannot write {}", out.display()))?;
    println!("written to {}", out.display());
    Ok(())
}

fn markdown(report: &Report) -> String {
    let mut text = "# Networks: attach, detach, names, throughput, memory\n\n".to_owned();
    let _ = writeln!(
        text,
        "Made by `cargo xtask bench net`: {} rounds, engines in turn, {} build, {}. {}.",
        report.rounds,
        report.profile,
        report.machine,
        report.versions.join(" · ")
    );
    if !report.latency.is_empty() {
        text += &latency::table(&report.latency);
    }
    if let Some(memory) = &report.memory {
        let _ = writeln!(
            text,
            "\nnetd with {} endpoints: {:.1} MB resident (idle: {:.1} MB). `davit net check` of them: {:.0} ms.",
            memory.endpoints, memory.megabytes, memory.idle_megabytes, memory.check
        );
    }
    if !report.names.is_empty() {
        text += &dns::table(&report.names);
    }
    if !report.throughput.is_empty() {
        text += &throughput::table(&report.throughput);
    }
    text
}
