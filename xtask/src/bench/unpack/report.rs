//! The report on unpacking.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::Serialize;

use super::image::Size;
use crate::bench::report::{machine, quantile};

/// One run.
#[derive(Debug, Serialize)]
pub struct Sample {
    /// `load` or `pull`.
    pub what: &'static str,
    /// Which engine.
    pub engine: &'static str,
    /// With an empty page cache.
    pub cold: bool,
    /// Until it said that it was done.
    pub seconds: f64,
    /// What a `sync` took then.
    pub sync: f64,
    /// storaged's largest resident size meanwhile.
    pub peak_kilobytes: Option<u64>,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cache = if self.cold { "cold" } else { "warm" };
        write!(f, "{} {} ({cache}): {:.2} s, sync {:.2} s", self.engine, self.what, self.seconds, self.sync)?;
        match self.peak_kilobytes {
            Some(peak) => write!(f, ", peak {} MB", peak / 1024),
            None => Ok(()),
        }
    }
}

/// All runs.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: String,
    rounds: usize,
    files: u64,
    bytes: u64,
    versions: BTreeMap<&'static str, String>,
    samples: Vec<Sample>,
}

impl Report {
    /// Takes what was measured.
    pub fn new(
        rounds: usize,
        size: Size,
        versions: BTreeMap<&'static str, String>,
        samples: Vec<Sample>,
    ) -> Self {
        Self { machine: machine(), rounds, files: size.files, bytes: size.bytes, versions, samples }
    }

    /// Tables for people.
    pub fn markdown(&self) -> String {
        let mut text = "# Load and pull of a large image\n\n".to_owned();
        let _ = writeln!(
            text,
            "Made by `cargo xtask bench unpack`: 10 layers, {} files, {} bytes; {} rounds, engines in turn, release build, state on \
             disk, {}. The pull is from docker-registry on loopback (gzip layers), the load from a docker-archive (plain layers).",
            self.files, self.bytes, self.rounds, self.machine
        );
        let versions: Vec<_> = self.versions.values().map(String::as_str).collect();
        let _ = writeln!(text, "{}.\n", versions.join(" · "));
        text += "*Done* is when the command returns; davit's includes its fsyncs. *Then sync* is what a `sync` takes after it: what the \
                 engine had left in memory.\n";
        for what in ["load", "pull"] {
            for cold in [true, false] {
                self.table(&mut text, what, cold);
            }
        }
        if let Some(peak) = self.samples.iter().filter_map(|s| s.peak_kilobytes).max() {
            let _ = writeln!(
                text,
                "\nstoraged's largest resident size (VmHWM) in all runs: {} MB (budget 64).",
                peak / 1024
            );
        }
        text
    }

    fn table(&self, text: &mut String, what: &str, cold: bool) {
        let mut engines: BTreeMap<&str, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
        for s in self.samples.iter().filter(|s| s.what == what && s.cold == cold) {
            let (seconds, sync) = engines.entry(s.engine).or_default();
            seconds.push(s.seconds);
            sync.push(s.sync);
        }
        let mut rows: Vec<(&str, f64, f64, f64, f64)> = engines
            .into_iter()
            .map(|(engine, (mut seconds, mut sync))| {
                seconds.sort_by(f64::total_cmp);
                sync.sort_by(f64::total_cmp);
                (
                    engine,
                    quantile(&seconds, 0.5),
                    seconds[0],
                    seconds[seconds.len() - 1],
                    quantile(&sync, 0.5),
                )
            })
            .collect();
        rows.sort_by(|a, b| a.1.total_cmp(&b.1));
        let Some(davit) = rows.iter().find(|r| r.0 == "davit").map(|r| r.1) else { return };
        let cache = if cold { "cold page cache" } else { "warm page cache" };
        let _ = writeln!(
            text,
            "\n## {what}, {cache}\n\n| engine | done, median s | min .. max | then sync, s | times davit's |"
        );
        *text += "|---|---:|---:|---:|---:|\n";
        for (engine, median, min, max, sync) in &rows {
            let _ = writeln!(
                text,
                "| {engine} | {median:.2} | {min:.2} .. {max:.2} | {sync:.2} | {:.2} |",
                median / davit
            );
        }
        if let Some(best) = rows.iter().filter(|r| r.0 != "davit").map(|r| r.1).min_by(f64::total_cmp) {
            let met = if davit <= best / 2.0 { "met" } else { "not met" };
            let _ = writeln!(text, "\nBudget: half of the best peer's, {:.2} s: {met}.", best / 2.0);
        }
    }
}
