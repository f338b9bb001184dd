//! How long an attach and a detach take, from the caller's side.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::engines::{Engine, Netavark, Netd, Plugins, host};
use super::space::Space;
use crate::bench::report::quantile;

/// One engine in one situation; milliseconds.
#[derive(Debug, Serialize)]
pub struct Line {
    situation: String,
    engine: &'static str,
    attach: f64,
    detach: f64,
    attach_samples: Vec<f64>,
    detach_samples: Vec<f64>,
    /// Of davit's attach, as netd tells them; medians.
    stages: BTreeMap<String, f64>,
}

/// What netd holds.
#[derive(Debug, Serialize)]
pub struct Memory {
    /// How many are attached.
    pub endpoints: usize,
    /// Resident with them.
    pub megabytes: f64,
    /// Resident before.
    pub idle_megabytes: f64,
    /// Milliseconds that `davit net check` of them takes.
    pub check: f64,
}

/// Ports of the crowd that has many.
const FIRST_PORT: u16 = 20_000;
const MANY_PORTS: u16 = 1000;

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Measures all engines in turn, each attach on a namespace of its own.
pub fn measure(binaries: &Path, rounds: usize, crowd: usize) -> anyhow::Result<(Vec<Line>, Option<Memory>)> {
    let mut lines = Vec::new();
    let worlds = [Space::new(false, "")?, Space::new(false, "")?, Space::new(false, "")?];
    let mut netd = Netd::start(binaries, host(&worlds[0])?, None)?;
    let idle = netd.resident()?;
    let mut others: Vec<Box<dyn Engine>> = Vec::new();
    match host(&worlds[1]).and_then(Netavark::start) {
        Ok(engine) => others.push(Box::new(engine)),
        Err(error) => println!("netavark: {error:#}"),
    }
    match host(&worlds[2]).and_then(Plugins::start) {
        Ok(engine) => others.push(Box::new(engine)),
        Err(error) => println!("CNI plugins: {error:#}"),
    }
    let mut spaces: Vec<Space> = Vec::new();
    let mut memory = None;
    for there in [1, 100, 1000].into_iter().filter(|n| *n <= crowd.max(1)) {
        println!("{there} endpoints");
        let first = spaces.len();
        for n in first..there {
            spaces.push(Space::new(false, "")?);
            // One namespace can be wired by one engine only: the others get their own at the same number.
            netd.attach(n, &spaces[n], &[])?;
        }
        for engine in &mut others {
            grow(engine.as_mut(), first, there)?;
        }
        if there > 1 {
            memory = Some(Memory {
                endpoints: there,
                megabytes: megabytes(netd.resident()?),
                idle_megabytes: megabytes(idle),
                check: netd.check()?,
            });
        }
        let mut all: Vec<&mut dyn Engine> = vec![&mut netd];
        all.extend(others.iter_mut().map(|e| e.as_mut() as &mut dyn Engine));
        lines.extend(in_turn(&mut all, &format!("{there} endpoints"), rounds, &[])?);
    }
    let many: Vec<(u16, u16)> = (0..MANY_PORTS).map(|n| (FIRST_PORT + n, 80)).collect();
    println!("{MANY_PORTS} published ports");
    let holders = [Space::new(false, "")?, Space::new(false, "")?, Space::new(false, "")?];
    let mut all: Vec<&mut dyn Engine> = vec![&mut netd];
    all.extend(others.iter_mut().map(|e| e.as_mut() as &mut dyn Engine));
    for (engine, holder) in all.iter_mut().zip(&holders) {
        engine.attach(50_000, holder, &many)?;
    }
    let situation = format!("{} endpoints, {MANY_PORTS} ports, one more port", spaces.len());
    lines.extend(in_turn(&mut all, &situation, rounds, &[(9090, 80)])?);
    drop(all);
    KEPT.with_borrow_mut(Vec::clear);
    Ok((lines, memory))
}

thread_local! {
    /// Namespaces of the other engines' crowds.
    static KEPT: std::cell::RefCell<Vec<Space>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn grow(engine: &mut dyn Engine, first: usize, there: usize) -> anyhow::Result<()> {
    for n in first..there {
        let space = Space::new(false, "")?;
        engine.attach(n, &space, &[])?;
        KEPT.with_borrow_mut(|kept| kept.push(space));
    }
    Ok(())
}

fn in_turn(
    engines: &mut [&mut dyn Engine],
    situation: &str,
    rounds: usize,
    ports: &[(u16, u16)],
) -> anyhow::Result<Vec<Line>> {
    let mut samples: Vec<Samples> = engines.iter().map(|_| Samples::default()).collect();
    for round in 0..rounds {
        for turn in 0..engines.len() {
            let which = (round + turn) % engines.len();
            let (engine, id) = (&mut engines[which], 60_000 + round);
            let space = Space::new(false, "")?;
            let since = Instant::now();
            engine.attach(id, &space, ports)?;
            samples[which].attach.push(milliseconds(since));
            let since = Instant::now();
            engine.detach(id, &space, ports)?;
            samples[which].detach.push(milliseconds(since));
            for (stage, us) in engine.stages() {
                samples[which].stages.entry(stage).or_default().push(f64::from(us) / 1e3);
            }
        }
    }
    let line = |(engine, samples): (&&mut dyn Engine, Samples)| Line {
        situation: situation.to_owned(),
        engine: engine.name(),
        attach: median(&samples.attach),
        detach: median(&samples.detach),
        attach_samples: samples.attach,
        detach_samples: samples.detach,
        stages: samples.stages.iter().map(|(stage, took)| (stage.clone(), median(took))).collect(),
    };
    Ok(engines.iter().zip(samples).map(line).collect())
}

/// Of one engine in one situation; milliseconds.
#[derive(Default)]
struct Samples {
    attach: Vec<f64>,
    detach: Vec<f64>,
    stages: BTreeMap<String, Vec<f64>>,
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

fn megabytes(kilobytes: u64) -> f64 {
    f64::from(u32::try_from(kilobytes).unwrap_or(u32::MAX)) / 1024.0
}

/// For people.
pub fn table(lines: &[Line]) -> String {
    let mut text = "\n## Attach and detach\n\nMedians in milliseconds; netd is called over its socket, the others are programs that are started for each \
                    call, as their callers do. What each keeps of its endpoints is in memory (tmpfs), as /run is. In brackets: times netd's.\n\n| there already | engine | attach | detach |\n|---|---|---:|---:|\n"
        .to_owned();
    for line in lines {
        let base = lines.iter().find(|l| l.situation == line.situation && l.engine == "davit");
        let ratio = |own: f64, of: fn(&Line) -> f64| match base {
            Some(base) if line.engine != "davit" => format!("{own:.1} ({:.1})", own / of(base)),
            _ => format!("{own:.1}"),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            line.situation,
            line.engine,
            ratio(line.attach, |l| l.attach),
            ratio(line.detach, |l| l.detach)
        );
    }
    let _ = write!(text, "\nWhere davit's attach goes, in milliseconds (the rest is the call):\n\n");
    for line in lines.iter().filter(|l| !l.stages.is_empty()) {
        let stages: Vec<_> = line.stages.iter().map(|(stage, took)| format!("{stage} {took:.2}")).collect();
        let _ = writeln!(text, "- {}: {}", line.situation, stages.join(", "));
    }
    text
}
