//! The measuring process: alone in its namespaces, plan on standard input, one line of JSON a result on standard output.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Deserialize;

use super::engine::{self, Engine};
use super::plan::{Line, Op, Plan};
use super::work::{self, Sources};

/// One layer above the other, as `davit-fs-ops lowers` makes them.
const LOWERS: [&str; 4] = ["0", "1", "2", "3"];

/// Does what the plan says.
pub fn run(privilege: &str) -> anyhow::Result<()> {
    let plan: Plan = serde_json::from_reader(std::io::stdin().lock())?;
    nix::sys::prctl::set_child_subreaper(true)?;
    let at = plan.at.clone();
    // Nothing of this is seen outside, and the kernel takes it apart with the namespace.
    mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), Some("mode=0755,size=80%"))
        .with_context(|| format!("cannot mount a tmpfs on {}", at.display()))?;
    let stage = Stage { privilege, plan: &plan, at };
    let part = plan.part.to_string();
    stage.must(
        Command::new(&plan.program).arg("lowers").arg(stage.at.join("lower")).args(["--part", &part]),
    )?;
    stage.everywhere(&plan.ops, |engine, op| stage.operation(engine, op))?;
    stage.clear()?;
    // Other users' files cannot be made in a user namespace that has one user.
    if let (Some((rootfs, debs)), "root") = (&plan.sources, privilege) {
        let sources = Sources { rootfs, debs };
        let lower = stage.at.join("lower/0");
        fs::create_dir_all(&lower)?;
        work::prepare(&lower, &sources)?;
        stage.everywhere(&plan.works, |engine, op| {
            stage.mounted(engine, &LOWERS[..1], || {
                Ok((work::run(&op.name, &stage.at.join("merged"), &sources)?, 1))
            })
        })?;
        stage.clear()?;
    }
    // Only root of the machine can make the kernel forget.
    if plan.memory > 0 && privilege == "root" {
        let million = ["million", "--files", &plan.memory.to_string()].map(str::to_owned);
        stage.must(Command::new(&plan.program).args(million).arg(stage.at.join("lower")))?;
        for engine in plan.engines.iter().filter(|e| e.has_server()) {
            stage.memory(engine).with_context(|| format!("memory of {}", engine.name))?;
        }
    }
    Ok(())
}

/// The last CPU of a set: the first one has most of the machine's interrupts.
fn last_of(all: &CpuSet) -> anyhow::Result<CpuSet> {
    let last = (0..CpuSet::count()).rev().find(|cpu| all.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.context("this process may run nowhere")?)?;
    Ok(one)
}

struct Stage<'a> {
    privilege: &'a str,
    plan: &'a Plan,
    at: PathBuf,
}

#[derive(Deserialize)]
struct Measured {
    nanos: u64,
    units: u64,
}

impl Stage<'_> {
    /// Times each of `ops` in both placements, round by round, engine by engine.
    fn everywhere(
        &self,
        ops: &[Op],
        measure: impl Fn(&Engine, &Op) -> anyhow::Result<(u64, u64)>,
    ) -> anyhow::Result<()> {
        let all = sched_getaffinity(Pid::from_raw(0))?;
        for placement in &self.plan.placements {
            sched_setaffinity(Pid::from_raw(0), &if placement == "one" { last_of(&all)? } else { all })?;
            let engines = &self.plan.engines;
            for round in 0..self.plan.rounds {
                // Another one is the first each time: what is first may find the machine's caches colder.
                let turn = |n: usize| &engines[(n + round) % engines.len()];
                for (op, engine) in ops.iter().flat_map(|op| (0..engines.len()).map(move |n| (op, turn(n)))) {
                    let (nanos, units) =
                        measure(engine, op).with_context(|| format!("{} on {}", op.name, engine.name))?;
                    say(&Line::Sample {
                        privilege: self.privilege.into(),
                        placement: placement.clone(),
                        op: op.name.clone(),
                        engine: engine.name.clone(),
                        nanos,
                        units,
                    })?;
                }
            }
        }
        Ok(sched_setaffinity(Pid::from_raw(0), &all)?)
    }

    /// Nanoseconds and units of an operation on a fresh mount.
    fn operation(&self, engine: &Engine, op: &Op) -> anyhow::Result<(u64, u64)> {
        let mut command = Command::new(&self.plan.program);
        let part = self.plan.part.to_string();
        command.args(["run", "--part", &part, &op.name]).arg(self.at.join("merged"));
        let text = self.mounted(engine, &LOWERS, || self.must(&mut command))?;
        let Measured { nanos, units } = serde_json::from_str(&text)?;
        Ok((nanos, units))
    }

    /// Makes place for other lower layers.
    fn clear(&self) -> anyhow::Result<()> {
        remove(&self.at.join("lower"))
    }

    /// What the server holds after a walk, and what is left of it when the kernel has dropped its dentries and inodes.
    fn memory(&self, engine: &Engine) -> anyhow::Result<()> {
        self.mounted(engine, &LOWERS[..1], || {
            let mut command = Command::new(&self.plan.program);
            let files = self.must(command.arg("visit").arg(self.at.join("merged")))?.trim().parse()?;
            let walked = engine::resident()?;
            let mut forgotten = walked;
            for _ in 0..10 {
                fs::write("/proc/sys/vm/drop_caches", "2")?;
                std::thread::sleep(Duration::from_millis(500));
                forgotten = engine::resident()?;
            }
            let (privilege, engine) = (self.privilege.to_owned(), engine.name.clone());
            say(&Line::Memory { privilege, engine, files, walked, forgotten })
        })
    }

    /// Runs `work` on a fresh mount, which is gone afterwards with all that was written.
    fn mounted<T>(
        &self,
        engine: &Engine,
        lowers: &[&str],
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let [lower, upper, work_dir, merged] = ["lower", "upper", "work", "merged"].map(|d| self.at.join(d));
        for dir in [&upper, &work_dir, &merged] {
            fs::create_dir(dir)?;
        }
        let lowers: Vec<String> = lowers.iter().map(|l| lower.join(l).display().to_string()).collect();
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            lowers.join(":"),
            upper.display(),
            work_dir.display()
        );
        engine.mount(&layers, self.privilege == "userns", &merged)?;
        let done = work();
        engine.unmount(&merged)?;
        for dir in [&upper, &work_dir, &merged] {
            remove(dir)?;
        }
        done
    }

    fn must(&self, command: &mut Command) -> anyhow::Result<String> {
        let output =
            command.current_dir(&self.at).output().with_context(|| format!("cannot run {command:?}"))?;
        ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Overlayfs leaves a directory in its work directory that has no permissions; root of a user namespace may do without them as well.
fn remove(dir: &Path) -> anyhow::Result<()> {
    fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))
}

fn say(line: &Line) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(line)?);
    Ok(())
}
