//! update: new limits for a running container.

use std::io::Read;
use std::path::Path;

use crate::cli;
use crate::error::{Context, Error, Result};
use crate::spec::Resources;
use crate::spec::resources::{BlockIo, Cpu, Memory, Pids};
use crate::state::{StateDir, Status};

/// Applies them.
pub fn update(root: &Path, update: &cli::Update) -> Result<()> {
    let dir = StateDir::at(root, &update.id);
    let mut state = dir.load()?;
    if dir.status(&state) == Status::Stopped {
        return Err(Error::Status { operation: "update", id: update.id.clone(), status: "stopped" });
    }
    // As runc: a file is all of it, single options count without one.
    let resources = match &update.resources {
        Some(path) => read(path)?,
        None => from_options(&update.limits)?,
    };
    let before = state.cgroups.clone();
    let path = crate::launch::load_spec(&state.bundle).map(|s| s.linux.cgroups_path).unwrap_or_default();
    state.cgroups.extend(&path, &update.id, &resources)?;
    if state.cgroups != before {
        dir.save(&state)?;
    }
    state.cgroups.apply(&resources)?;
    state.cgroups.change_devices(&resources)
}

fn read(path: &Path) -> Result<Resources> {
    let mut text = Vec::new();
    let done = if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut text).map(drop)
    } else {
        std::fs::read(path).map(|t| text = t)
    };
    done.context(|| format!("read {}", path.display()))?;
    crate::error::parse_json(path, &text)
}

fn from_options(limits: &[(&'static str, String)]) -> Result<Resources> {
    let (mut memory, mut cpu, mut r) = (Memory::default(), Cpu::default(), Resources::default());
    for (name, value) in limits {
        match *name {
            "memory" => memory.limit = Some(bytes(name, value)?),
            "memory-reservation" => memory.reservation = Some(bytes(name, value)?),
            "memory-swap" => memory.swap = Some(bytes(name, value)?),
            "cpu-period" => cpu.period = Some(cli::options::number(name, value)?),
            "cpu-quota" => cpu.quota = Some(cli::options::number(name, value)?),
            "cpu-share" => cpu.shares = Some(cli::options::number(name, value)?),
            "cpu-burst" => cpu.burst = Some(cli::options::number(name, value)?),
            "cpu-idle" => cpu.idle = Some(cli::options::number(name, value)?),
            "cpu-rt-period" => cpu.realtime_period = Some(cli::options::number(name, value)?),
            "cpu-rt-runtime" => cpu.realtime_runtime = Some(cli::options::number(name, value)?),
            "cpuset-cpus" => cpu.cpus.clone_from(value),
            "cpuset-mems" => cpu.mems.clone_from(value),
            "pids-limit" => r.pids = Some(Pids { limit: cli::options::number(name, value)? }),
            "blkio-weight" => {
                r.block_io =
                    Some(BlockIo { weight: Some(cli::options::number(name, value)?), ..BlockIo::default() });
            }
            other => return Err(Error::Usage(format!("--{other} cannot be changed"))),
        }
    }
    r.memory = Some(memory);
    r.cpu = Some(cpu);
    Ok(r)
}

/// `64m`, `1g`, `-1`.
fn bytes(name: &str, text: &str) -> Result<i64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match lower[digits.len()..].trim_end_matches(['b', 'i']) {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1i64 << 40,
        _ => return Err(Error::Usage(format!("--{name} {text}: a size such as 64m is needed"))),
    };
    let number: i64 = cli::options::number(name, digits)?;
    number.checked_mul(scale).ok_or_else(|| Error::Usage(format!("--{name} {text}: too large")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_suffixes() {
        for (text, number) in [("64m", 64 << 20), ("1GiB", 1 << 30), ("5", 5), ("-1", -1), ("2kb", 2048)] {
            assert_eq!(bytes("memory", text).unwrap(), number, "{text}");
        }
        for text in ["x", "5q", "", "9999999999t"] {
            bytes("memory", text).unwrap_err();
        }
    }
}
