//! `cargo xtask bench`: davit against the engines that are installed, in turn, on private hosts.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;

use crate::cargo;

mod fs;
mod images;
mod measure;
mod memory;
mod net;
mod peers;
mod report;
mod scale;
mod unpack;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum What {
    /// `davit run --rm IMG true`, with and without network, `exec`, and what the daemons and monitors hold in memory
    Run(Options),
    /// Load and pull of an image of 10 layers, 1 GB and 60,000 files
    Unpack(unpack::Options),
    /// `davit image ls` and its like with ten thousand images
    Images(images::Options),
    /// davit-cowfs, both versions of fuse-overlayfs and the kernel's overlayfs, operation by operation
    Fs(fs::Options),
    /// Attach and detach, names, throughput and memory of netd, beside netavark, CNI plugins and a bridge made by hand
    Net(net::Options),
    /// Many containers: starting them at once, listing and watching them, and a runtimed that comes back
    Scale(scale::Options),
    /// What `fs` runs inside of its namespaces
    #[command(hide = true)]
    FsInside {
        /// root or userns
        privilege: String,
    },
}

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How often each command runs
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// How many containers share the memory measurement
    #[arg(long, default_value_t = 20)]
    containers: usize,
    /// Only these: davit, podman, docker, ctr, crun, runc
    #[arg(long, value_delimiter = ',')]
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
    /// Where run.json and run.md go
    #[arg(long, default_value = "docs/benchmarks")]
    out: PathBuf,
}

/// Runs one benchmark and writes its report.
pub fn run(what: &What) -> anyhow::Result<()> {
    let options = match what {
        What::Run(options) => options,
        What::Unpack(options) => return unpack::run(options),
        What::Images(options) => return images::run(options),
        What::Fs(options) => return fs::run(options),
        What::Net(options) => return net::run(options),
        What::Scale(options) => return scale::run(options),
        What::FsInside { privilege } => return fs::run_inside(privilege),
    };
    let binaries = match &options.bin_dir {
        Some(dir) => dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?,
        None => cargo::build(!options.debug)?,
    };
    davit_tests::host::use_binaries(&binaries);
    let mut peers = peers::set_up(&options.only, options.tmpfs)?;
    let mut samples = measure::interleaved(&peers, options.rounds)?;
    measure::execs(&peers, options.rounds, &mut samples)?;
    let stages = measure::stages(&peers);
    let memory = memory::measure(&mut peers, options.containers);
    let report = report::Report::new(options, &peers, samples, stages, memory);
    let out = cargo::root().join(&options.out);
    std::fs::create_dir_all(&out)?;
    let table = report.markdown();
    println!("\n{table}");
    std::fs::write(out.join("run.md"), &table)?;
    std::fs::write(out.join("run.json"), serde_json::to_string_pretty(&report)? + "\n")
        .with_context(|| format!("cannot write {}", out.display()))?;
    println!("written to {}", out.display());
    Ok(())
}
