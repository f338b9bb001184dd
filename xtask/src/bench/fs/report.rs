//! The report: for each privilege and placement a table of ratios.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::plan::{Line, Op, Plan};
use crate::bench::report::{machine, quantile};

/// Placement and privilege with the budget for the geometric mean, in times the kernel's.
const BUDGETS: [(&str, &str, f64); 4] =
    [("root", "one", 2.0), ("userns", "one", 2.3), ("root", "free", 3.3), ("userns", "free", 3.5)];
/// How much faster than each peer.
const FASTER: [(&str, f64); 2] = [("2.0", 2.2), ("1.10", 3.5)];

/// All that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: String,
    load: String,
    rounds: usize,
    part: usize,
    versions: BTreeMap<String, String>,
    ops: Vec<Op>,
    works: Vec<Op>,
    engines: Vec<String>,
    times: Vec<Time>,
    memory: Vec<Line>,
}

/// One operation on one engine; nanoseconds a unit.
#[derive(Debug, Serialize)]
struct Time {
    privilege: String,
    placement: String,
    op: String,
    engine: String,
    median: f64,
    min: f64,
    samples: Vec<f64>,
}

/// Which of a time's figures to compare.
type Figure = fn(&Time) -> f64;

impl Report {
    /// Orders what was measured.
    pub fn new(plan: &Plan, lines: Vec<Line>) -> Self {
        let mut samples: BTreeMap<[String; 4], Vec<f64>> = BTreeMap::new();
        let mut memory = Vec::new();
        for line in lines {
            match line {
                Line::Sample { privilege, placement, op, engine, nanos, units } => {
                    #[allow(clippy::cast_precision_loss, reason = "times of seconds and counts of thousands")]
                    let each = nanos as f64 / units as f64;
                    samples.entry([privilege, placement, op, engine]).or_default().push(each);
                }
                Line::Memory { .. } => memory.push(line),
            }
        }
        let times = samples.into_iter().map(|([privilege, placement, op, engine], mut samples)| {
            samples.sort_by(f64::total_cmp);
            let (median, min) = (quantile(&samples, 0.5), samples[0]);
            Time { privilege, placement, op, engine, median, min, samples }
        });
        Self {
            machine: machine(),
            load: std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned(),
            rounds: plan.rounds,
            part: plan.part,
            versions: plan.engines.iter().map(|e| (e.name.clone(), e.version.clone())).collect(),
            ops: plan.ops.clone(),
            works: plan.works.clone(),
            engines: plan.engines.iter().map(|e| e.name.clone()).collect(),
            times: times.collect(),
            memory,
        }
    }

    /// Tables for people.
    pub fn markdown(&self) -> String {
        let mut text = "# The copy-on-write file system against its peers\n\n".to_owned();
        let part = if self.part > 1 { format!(" (1/{} of the work)", self.part) } else { String::new() };
        let _ = writeln!(
            text,
            "Made by `cargo xtask bench fs`: {} rounds{part}, medians, engines in turn, release build, four lower layers and a fresh \
             upper on tmpfs, {}, load {}.",
            self.rounds, self.machine, self.load
        );
        let versions = self.versions.iter().map(|(name, v)| format!("{name}: {v}"));
        let _ = writeln!(text, "{}.\n", versions.collect::<Vec<_>>().join(" · "));
        text += "Every engine has the options that podman starts it with: layers and nothing else (and userxattr for the kernel's in a user \
                 namespace). A figure is the time in multiples of the kernel's own overlayfs; below 1 is faster than it. *One CPU*: \
                 program and server share one. *Free*: the scheduler places them.\n";
        for (privilege, placement, budget) in BUDGETS {
            let title = format!("As {}, {}", spelled(privilege), spelled(placement));
            self.table(&mut text, privilege, placement, &title, &self.ops, Some(budget));
        }
        for placement in ["one", "free"] {
            let title = format!("Real work, as root, {}", spelled(placement));
            self.table(&mut text, "root", placement, &title, &self.works, None);
        }
        self.memory(&mut text);
        text += "\n## What the operations are\n\n| operation | a unit | what |\n|---|---|---|\n";
        for op in self.ops.iter().chain(&self.works) {
            let _ = writeln!(text, "| {} | {} | {} |", op.name, op.unit, op.about);
        }
        text
    }

    fn table(
        &self,
        text: &mut String,
        privilege: &str,
        placement: &str,
        title: &str,
        ops: &[Op],
        budget: Option<f64>,
    ) {
        let here = |t: &&Time| t.privilege == privilege && t.placement == placement;
        let times: Vec<&Time> =
            self.times.iter().filter(here).filter(|t| ops.iter().any(|o| o.name == t.op)).collect();
        if times.is_empty() {
            return;
        }
        let table = Table { times: &times, ops, engines: &self.engines };
        let _ = writeln!(text, "\n## {title}\n");
        table.rows(text);
        table.verdict(text, budget);
    }

    fn memory(&self, text: &mut String) {
        let megabytes = |kilobytes: u64| kilobytes.div_ceil(1024);
        if self.memory.is_empty() {
            return;
        }
        *text += "\n## Memory\n\nResident size of the server after a walk with lstat, and when the kernel has dropped what it cached. The \
                  budget is 64 MB and 16 MB.\n\n| engine | files | walked, MB | forgotten, MB |\n|---|---:|---:|---:|\n";
        for line in &self.memory {
            if let Line::Memory { engine, files, walked, forgotten, .. } = line {
                let _ = writeln!(
                    text,
                    "| {engine} | {files} | {} | {} |",
                    megabytes(*walked),
                    megabytes(*forgotten)
                );
            }
        }
    }
}

/// One privilege and placement.
struct Table<'a> {
    times: &'a [&'a Time],
    ops: &'a [Op],
    engines: &'a [String],
}

impl Table<'_> {
    fn get(&self, op: &str, engine: &str, figure: Figure) -> Option<f64> {
        self.times.iter().find(|t| t.op == op && t.engine == engine).map(|t| figure(t))
    }

    fn ratio(&self, op: &str, engine: &str, to: &str, figure: Figure) -> Option<f64> {
        Some(self.get(op, engine, figure)? / self.get(op, to, figure)?)
    }

    /// The geometric mean of `engine`'s ratios to `to` over all operations that both did.
    fn mean(&self, engine: &str, to: &str, figure: Figure) -> Option<f64> {
        let ratios: Vec<f64> =
            self.ops.iter().filter_map(|op| self.ratio(&op.name, engine, to, figure)).collect();
        geometric_mean(&ratios)
    }

    fn others(&self) -> impl Iterator<Item = &String> {
        self.engines.iter().filter(|e| *e != "kernel")
    }

    fn rows(&self, text: &mut String) {
        let heads: Vec<&str> = self.others().map(String::as_str).collect();
        let _ =
            writeln!(text, "| operation | kernel, us | {} | 2.0 : cowfs | 1.10 : cowfs |", heads.join(" | "));
        let _ = writeln!(text, "|---|---:|{}---:|---:|", "---:|".repeat(heads.len()));
        let cell = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |r| format!("{r:.2}"));
        for op in self.ops {
            let kernel = self.get(&op.name, "kernel", median).map(|n| n / 1000.0);
            let _ = write!(text, "| {} | {} |", op.name, cell(kernel));
            for engine in self.others() {
                let _ = write!(text, " {} |", cell(self.ratio(&op.name, engine, "kernel", median)));
            }
            for (peer, _) in FASTER {
                let _ = write!(text, " {} |", cell(self.ratio(&op.name, peer, "cowfs", median)));
            }
            *text += "\n";
        }
        for (name, figure) in [("geometric mean", median as Figure), ("of the fastest rounds", fastest)] {
            let _ = write!(text, "| **{name}** | 1 |");
            for engine in self.others() {
                let _ = write!(text, " **{}** |", cell(self.mean(engine, "kernel", figure)));
            }
            for (peer, _) in FASTER {
                let _ = write!(text, " **{}** |", cell(self.mean(peer, "cowfs", figure)));
            }
            *text += "\n";
        }
    }

    fn verdict(&self, text: &mut String, budget: Option<f64>) {
        let met = |yes: bool| if yes { "met" } else { "**not met**" };
        if let (Some(mean), Some(budget)) = (self.mean("cowfs", "kernel", median), budget) {
            let _ = writeln!(
                text,
                "\nBudget: at most {budget:.1} times the kernel's: {mean:.2}, {}.",
                met(mean <= budget)
            );
        }
        for (peer, factor) in FASTER {
            if let Some(mean) = self.mean(peer, "cowfs", median) {
                let _ = writeln!(
                    text,
                    "At least {factor} times faster than fuse-overlayfs {peer}: {mean:.2}, {}.",
                    met(mean >= factor)
                );
            }
        }
        for (peer, _) in FASTER {
            let ratios = self.ops.iter().filter_map(|op| {
                let ratio = self.ratio(&op.name, peer, "cowfs", median)?;
                Some((ratio, format!("{} ({ratio:.2} of its speed)", op.name)))
            });
            let ratios: Vec<(f64, String)> = ratios.collect();
            let slower: Vec<String> = ratios.iter().filter(|r| r.0 < 1.0).map(|r| r.1.clone()).collect();
            if !ratios.is_empty() {
                let list = if slower.is_empty() { "none, met".to_owned() } else { slower.join(", ") };
                let _ = writeln!(text, "Slower than on fuse-overlayfs {peer}: {list}.");
            }
        }
    }
}

fn spelled(word: &str) -> &str {
    match word {
        "userns" => "root of a user namespace",
        "one" => "one CPU",
        other => other,
    }
}

fn median(time: &Time) -> f64 {
    time.median
}

fn fastest(time: &Time) -> f64 {
    time.min
}

#[allow(clippy::cast_precision_loss, reason = "a few dozen operations")]
fn geometric_mean(ratios: &[f64]) -> Option<f64> {
    (!ratios.is_empty()).then(|| (ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_of_a_half_and_two_is_one() {
        assert!((geometric_mean(&[0.5, 2.0]).unwrap() - 1.0).abs() < 1e-9);
        assert_eq!(geometric_mean(&[]), None);
    }
}
