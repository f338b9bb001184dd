//! `cargo xtask fuzz`: every fuzz target of storaged and netd for a bounded time.
//!
//! libFuzzer on a stable compiler: the coverage counters that it needs are LLVM passes which rustc can be told to run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use crate::cargo;

/// Counters of each edge, and the table of what they count.
const INSTRUMENT: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";
/// Targets, and the folder of the crate that has them.
const TARGETS: &[(&str, &str)] = &[
    ("tar", "storage/fuzz"),
    ("unpack", "storage/fuzz"),
    ("manifest", "storage/fuzz"),
    ("index", "storage/fuzz"),
    ("config", "storage/fuzz"),
    ("reference", "storage/fuzz"),
    ("ledger", "storage/fuzz"),
    ("docker_manifest", "storage/fuzz"),
    ("dns_query", "netd/fuzz"),
    ("dns_reply", "netd/fuzz"),
    ("resolv_conf", "netd/fuzz"),
    ("cni_list", "netd/fuzz"),
];

/// `cargo xtask fuzz`
#[derive(Debug, Args)]
pub struct Options {
    /// For how long each target runs
    #[arg(long, env = "DAVIT_FUZZ_SECONDS", default_value_t = 8)]
    seconds: u32,
    /// Only these targets [default: all]
    #[arg(value_name = "TARGET", value_parser = clap::builder::PossibleValuesParser::new(TARGETS.iter().map(|(name, _)| *name)))]
    targets: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        let seconds = std::env::var("DAVIT_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
        Self { seconds: seconds.unwrap_or(8), targets: Vec::new() }
    }
}

/// Builds and runs; what is found is kept, and fails the command.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let wanted = |name: &str| options.targets.is_empty() || options.targets.iter().any(|o| o == name);
    let mut failed = Vec::new();
    for folder in ["storage/fuzz", "netd/fuzz"].map(|f| cargo::root().join(f)) {
        let mine = TARGETS.iter().filter(|(name, at)| wanted(name) && folder.ends_with(at));
        let names: Vec<&str> = mine.map(|(name, _)| *name).collect();
        if names.is_empty() {
            continue;
        }
        let (program, work) = (build(&folder)?, folder.join("target/fuzz"));
        for target in names {
            if let Err(e) = one(&program, &work, target, options.seconds) {
                println!("{target}: {e:#}");
                failed.push(work.join(target).join("found").display().to_string());
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("fuzzing found something; the inputs are in {}", failed.join(", "))
}

fn build(folder: &Path) -> anyhow::Result<PathBuf> {
    let version = Command::new("rustc").arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&version.stdout).into_owned();
    let host = text.lines().find_map(|l| l.strip_prefix("host: ")).context("rustc names no host")?;
    // With --target the flags are for the program, not for build scripts and macros.
    let mut command = cargo::cargo(&["build", "--release", "--locked", "--target", host]);
    command.current_dir(folder).env("RUSTFLAGS", INSTRUMENT).env_remove("CARGO_TARGET_DIR");
    cargo::run(&mut command)?;
    Ok(folder.join("target").join(host).join("release/fuzz"))
}

fn one(program: &Path, work: &Path, target: &str, seconds: u32) -> anyhow::Result<()> {
    let (corpus, found) = (work.join(target).join("corpus"), work.join(target).join("found"));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&found)?;
    let seeds = Command::new(program)
        .env("DAVIT_FUZZ_TARGET", target)
        .env("DAVIT_FUZZ_SEEDS", &corpus)
        .output()
        .context("cannot run the fuzzer")?;
    ensure!(seeds.status.success(), "cannot write the first inputs");
    let mut command = Command::new(program);
    command
        .env("DAVIT_FUZZ_TARGET", target)
        .arg(&corpus)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .args(["-max_len=16384", "-timeout=10", "-rss_limit_mb=512", "-verbosity=0", "-print_final_stats=1"]);
    let output = command.output().context("cannot run the fuzzer")?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let tail: Vec<&str> = told.lines().rev().take(40).collect();
        bail!("{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    let runs = told.lines().find_map(|l| l.strip_prefix("stat::number_of_executed_units:")).unwrap_or(" ?");
    let inputs = fs::read_dir(&corpus)?.count();
    println!("fuzz {target}:{runs} runs, {inputs} inputs kept, nothing found");
    ensure!(inputs > 1 || target == "docker_manifest", "the fuzzer learns nothing: coverage is not counted");
    Ok(())
}
