//! `cargo xtask bench fs`: davit-cowfs against the kernel's overlayfs and fuse-overlayfs, on the same layers.
//!
//! Everything happens on a tmpfs in a mount namespace (and for half of the tables a user namespace) that ends with the measurement. Each
//! operation of each round has a fresh mount with an empty upper layer; the engines take turns operation by operation, so that whatever
//! else the machine does meets all of them alike. `davit-fs-ops` does the work and holds the clock.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use crate::cargo;

mod engine;
mod inside;
mod plan;
mod report;
mod work;

pub use inside::run as run_inside;

use engine::Engine;
use plan::{Line, Op, PRIVILEGES, Plan};
use report::Report;

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How often each operation runs on each engine
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A tenth of each operation, two rounds, no real work, no look at memory
    #[arg(long)]
    quick: bool,
    /// Leave out real work (untar, dpkg, ...) and the look at memory
    #[arg(long)]
    operations: bool,
    /// Only these operations (see `davit-fs-ops list`) and real work (untar, dpkg, git-clone, ...)
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these engines: kernel, 1.10, 2.0, cowfs
    #[arg(long, value_delimiter = ',')]
    engine: Vec<String>,
    /// Another davit-cowfs with these mount options added, as NAME=OPTIONS, for comparing settings
    #[arg(long, value_name = "NAME=OPTIONS")]
    also: Vec<String>,
    /// Only these: root, userns
    #[arg(long, value_delimiter = ',')]
    privilege: Vec<String>,
    /// Only these: one (all of it on one CPU), free
    #[arg(long, value_delimiter = ',')]
    placement: Vec<String>,
    /// Files to walk for the look at memory; 0 for none
    #[arg(long, default_value_t = 1_000_000)]
    memory: usize,
    /// Use the programs in this directory and build nothing
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Write fs.md and fs.json into this directory
    #[arg(long, value_name = "DIRECTORY", num_args = 0..=1, default_missing_value = "docs/benchmarks")]
    write: Option<PathBuf>,
}

/// Measures, then prints or writes the report.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let binaries = match &options.bin_dir {
        Some(dir) => dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?,
        None => build()?,
    };
    let at = tempfile::tempdir()?;
    davit_tests::host::use_binaries(&binaries);
    let plan = plan(options, &binaries, at.path())?;
    let mut lines = Vec::new();
    for privilege in PRIVILEGES.into_iter().filter(|p| wanted(&options.privilege, p)) {
        measure(&plan, privilege, &mut lines)?;
    }
    let report = Report::new(&plan, lines);
    let json = serde_json::to_string_pretty(&report)? + "\n";
    if options.json {
        print!("{json}");
    } else {
        println!("\n{}", report.markdown());
    }
    if let Some(out) = options.write.as_ref().map(|dir| cargo::root().join(dir)) {
        fs::create_dir_all(&out)?;
        fs::write(out.join("fs.md"), report.markdown())?;
        fs::write(out.join("fs.json"), json).with_context(|| format!("cannot write {}", out.display()))?;
    }
    Ok(())
}

fn build() -> anyhow::Result<PathBuf> {
    let packages = ["-p", "davit-fs-ops", "-p", "davit-cowfs-fuse", "-p", "davit-tests"];
    cargo::run(cargo::cargo(&["build", "--release", "--bins"]).args(packages))?;
    Ok(cargo::target_directory()?.join("release"))
}

fn wanted(list: &[String], name: &str) -> bool {
    list.is_empty() || list.iter().any(|n| n == name)
}

fn plan(options: &Options, binaries: &Path, at: &Path) -> anyhow::Result<Plan> {
    let program = binaries.join("davit-fs-ops");
    let listed = Command::new(&program).arg("list").output().context("cannot run davit-fs-ops")?;
    let all: Vec<Op> =
        serde_json::Deserializer::from_slice(&listed.stdout).into_iter().collect::<Result<_, _>>()?;
    let works = work::all();
    if let Some(unknown) = options.only.iter().find(|o| !all.iter().chain(&works).any(|op| op.name == **o)) {
        bail!("{unknown} is no operation; see {} list", program.display());
    }
    let asked = |op: &Op| {
        if options.quick || options.operations {
            options.only.contains(&op.name)
        } else {
            wanted(&options.only, &op.name)
        }
    };
    let works: Vec<Op> = works.into_iter().filter(asked).collect();
    let sources = (!works.is_empty())
        .then(|| (davit_tests::fixture::debian().rootfs_tar(), davit_tests::fixture::packages().debs()));
    let mut engines = engine::installed(binaries, |name| wanted(&options.engine, name))?;
    for also in &options.also {
        let (name, more) = also.split_once('=').context("--also takes NAME=OPTIONS")?;
        engines.push(Engine::cowfs(&format!("cowfs {name}"), binaries, Some(more)));
    }
    ensure!(!engines.is_empty(), "no engine is left to measure");
    let placements = ["one", "free"].into_iter().filter(|p| wanted(&options.placement, p));
    Ok(Plan {
        ops: all.into_iter().filter(|op| wanted(&options.only, &op.name)).collect(),
        works,
        sources,
        engines,
        placements: placements.map(str::to_owned).collect(),
        rounds: if options.quick { options.rounds.min(2) } else { options.rounds },
        part: if options.quick { 10 } else { 1 },
        memory: if options.quick || options.operations { 0 } else { options.memory },
        program,
        at: at.to_owned(),
    })
}

/// Runs this program again in namespaces of its own and collects what it prints.
fn measure(plan: &Plan, privilege: &str, lines: &mut Vec<Line>) -> anyhow::Result<()> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if privilege == "userns" {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg(std::env::current_exe()?).args(["bench", "fs-inside", privilege]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot run unshare")?;
    serde_json::to_writer(child.stdin.take().context("a pipe was asked for")?, plan)?;
    for line in BufReader::new(child.stdout.take().context("a pipe was asked for")?).lines() {
        let line: Line = serde_json::from_str(&line?)?;
        eprintln!("{line}");
        lines.push(line);
    }
    ensure!(child.wait()?.success(), "the measurement ({privilege}) failed");
    Ok(())
}
