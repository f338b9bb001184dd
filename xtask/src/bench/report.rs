//! The benchmark's report, as a table for people and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::Options;
use super::measure::{EXEC, Samples};
use super::memory::{Memory, WITH_EXEC, WITHOUT_EXEC};
use super::peers::Peer;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: String,
    profile: &'static str,
    state_on: &'static str,
    rounds: usize,
    versions: BTreeMap<&'static str, String>,
    times: Vec<Time>,
    stages: BTreeMap<&'static str, Vec<String>>,
    memory: Vec<Memory>,
}

/// One engine on one network; milliseconds.
#[derive(Debug, Serialize)]
struct Time {
    network: &'static str,
    engine: &'static str,
    median: f64,
    tenth: f64,
    ninetieth: f64,
    min: f64,
    max: f64,
    samples: Vec<f64>,
}

impl Time {
    fn new((network, engine): (&'static str, &'static str), samples: Vec<f64>) -> Self {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| quantile(&sorted, part);
        Self {
            network,
            engine,
            median: at(0.5),
            tenth: at(0.1),
            ninetieth: at(0.9),
            min: at(0.0),
            max: at(1.0),
            samples,
        }
    }
}

/// Linear between the two nearest samples; `sorted` must not be empty.
#[allow(clippy::cast_precision_loss, reason = "far fewer samples than an f64 can count")]
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

impl Report {
    /// Orders what was measured.
    pub fn new(
        options: &Options,
        peers: &[Peer],
        samples: Samples,
        stages: BTreeMap<&'static str, Vec<String>>,
        memory: Vec<Memory>,
    ) -> Self {
        let mut times: Vec<Time> =
            samples.into_iter().map(|(key, samples)| Time::new(key, samples)).collect();
        times.sort_by(|a, b| a.network.cmp(b.network).then(a.median.total_cmp(&b.median)));
        Self {
            machine: machine(),
            profile: if options.debug { "debug" } else { "release" },
            state_on: if options.tmpfs { "tmpfs" } else { "disk" },
            rounds: options.rounds,
            versions: peers.iter().map(|p| (p.name, p.version.clone())).collect(),
            times,
            stages,
            memory,
        }
    }

    /// The tables.
    pub fn markdown(&self) -> String {
        let mut text = "# `run --rm busybox true`, `exec`, and what stays in memory\n\n".to_owned();
        let _ = writeln!(
            text,
            "Made by `cargo xtask bench run`: {} rounds, engines in turn, {} build, state on {}, {}.",
            self.rounds, self.profile, self.state_on, self.machine
        );
        let versions: Vec<_> = self.versions.values().map(String::as_str).collect();
        let _ = writeln!(text, "{}.", versions.join(" · "));
        for (network, title) in
            [("bridge", "On a bridge network"), ("none", "Without network"), (EXEC, "`exec CONTAINER true`")]
        {
            self.times_of(&mut text, network, title);
        }
        self.against_budget(&mut text);
        for (network, lines) in &self.stages {
            let _ =
                writeln!(text, "\n## Where davit's time goes ({network})\n\n```\n{}\n```", lines.join("\n"));
        }
        text += "\n## Memory\n\n| engine | process | what | MB |\n|---|---|---|---:|\n";
        for m in &self.memory {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {:.2} |",
                m.engine,
                m.process,
                m.what,
                megabytes(m.kilobytes)
            );
        }
        text
    }

    /// The design's budget, each line with what this run reached; a line whose peer is not installed is left out.
    fn against_budget(&self, text: &mut String) {
        let median = |network: &str, engine: &str| {
            self.times.iter().find(|t| t.network == network && t.engine == engine).map(|t| t.median)
        };
        let size = |process: &str, when: &str| {
            let found = self.memory.iter().find(|m| m.process == process && m.what.ends_with(when))?;
            Some(megabytes(found.kilobytes))
        };
        let daemons = ["davit-storaged", "davit-netd", "davit-runtimed"].map(|d| size(d, ""));
        let idle = daemons.into_iter().sum::<Option<f64>>();
        let lines = [
            (
                "on a bridge, ms",
                "a tenth of docker's",
                median("bridge", "davit"),
                median("bridge", "docker").map(|d| d / 10.0),
            ),
            (
                "without network, ms",
                "twice bare crun's",
                median("none", "davit"),
                median("none", "crun").map(|c| c * 2.0),
            ),
            (
                "exec, ms",
                "a tenth of docker's",
                median(EXEC, "davit"),
                median(EXEC, "docker").map(|d| d / 10.0),
            ),
            ("three daemons idle, MB", "25", idle, Some(25.0)),
            (
                "a monitor after an exec, MB",
                "below conmon's without one",
                size("davit-monitor", WITH_EXEC),
                size("conmon", WITHOUT_EXEC),
            ),
        ];
        *text +=
            "\n## Against the budget\n\n| what | budget | here | reached | met |\n|---|---|---:|---:|---|\n";
        for (what, budget, reached, limit) in lines {
            if let (Some(reached), Some(limit)) = (reached, limit) {
                let met = if reached <= limit { "yes" } else { "no" };
                let _ = writeln!(text, "| {what} | {budget} | {limit:.2} | {reached:.2} | {met} |");
            }
        }
    }

    fn times_of(&self, text: &mut String, network: &str, title: &str) {
        let times: Vec<&Time> = self.times.iter().filter(|t| t.network == network).collect();
        let davit = times.iter().find(|t| t.engine == "davit").map(|t| t.median);
        let _ = writeln!(
            text,
            "\n## {title}\n\n| engine | median ms | 10 % .. 90 % | min .. max | times davit's |"
        );
        *text += "|---|---:|---:|---:|---:|\n";
        for t in times {
            let ratio = davit.map_or_else(String::new, |d| format!("{:.2}", t.median / d));
            let _ = writeln!(
                text,
                "| {} | {:.1} | {:.1} .. {:.1} | {:.1} .. {:.1} | {ratio} |",
                t.engine, t.median, t.tenth, t.ninetieth, t.min, t.max
            );
        }
    }
}

fn megabytes(kilobytes: u64) -> f64 {
    f64::from(u32::try_from(kilobytes).unwrap_or(u32::MAX)) / 1024.0
}

/// CPUs and kernel.
pub fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cpus} CPUs, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_samples() {
        let sorted = [1.0, 2.0, 3.0, 10.0];
        assert!((quantile(&sorted, 0.5) - 2.5).abs() < 1e-9);
        assert!((quantile(&sorted, 1.0) - 10.0).abs() < 1e-9);
        assert!((quantile(&[7.0], 0.9) - 7.0).abs() < 1e-9);
    }
}
