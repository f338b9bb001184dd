//! state, list, ps, spec: what only looks.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use super::print;
use crate::error::{Context, Error, Result};
use crate::spec::template;
use crate::state::{State, StateDir, Status, ids};

fn json(value: &impl Serialize, pretty: bool) -> Result<String> {
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    text.map_err(|source| Error::Json { path: "the output".into(), source })
}

fn visible_pid(state: &State, status: Status) -> i32 {
    if status == Status::Stopped { 0 } else { state.pid }
}

/// Prints the specification's state.
pub fn state(root: &Path, id: &str) -> Result<()> {
    let dir = StateDir::at(root, id);
    let state = dir.load()?;
    let status = dir.status(&state);
    print(&(json(&state.oci(status.as_str(), visible_pid(&state, status)), true)? + "\n"))
}

/// Prints all containers.
pub fn list(root: &Path, as_json: bool, quiet: bool) -> Result<()> {
    let mut found = Vec::new();
    for id in ids(root)? {
        let dir = StateDir::at(root, &id);
        // One that is being created or deleted right now is not there.
        if let Ok(state) = dir.load() {
            let status = dir.status(&state);
            found.push((state, status));
        }
    }
    if quiet {
        return found.iter().try_for_each(|(s, _)| print(&format!("{}\n", s.id)));
    }
    let states: Vec<_> =
        found.iter().map(|(s, status)| s.oci(status.as_str(), visible_pid(s, *status))).collect();
    if as_json {
        return print(&(json(&states, false)? + "\n"));
    }
    let titles = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows = found.iter().map(|(s, status)| {
        let pid = visible_pid(s, *status).to_string();
        let bundle = s.bundle.display().to_string();
        [s.id.clone(), pid, status.as_str().to_owned(), bundle, s.created.clone(), s.owner_name()]
    });
    print(&table(&std::iter::once(titles).chain(rows).collect::<Vec<_>>()))
}

/// runc's table: columns at least 12 wide, three blanks after the longest word.
fn table(rows: &[[String; 6]]) -> String {
    let mut text = String::new();
    let width = |n: usize| rows.iter().map(|r| r[n].len() + 3).max().unwrap_or(0).max(12);
    let widths: Vec<usize> = (0..6).map(width).collect();
    for row in rows {
        let line = row
            .iter()
            .zip(&widths)
            .fold(String::new(), |line, (word, width)| line + &format!("{word:<width$}"));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Prints the container's processes.
pub fn ps(root: &Path, id: &str, as_json: bool, args: &[String]) -> Result<()> {
    let state = StateDir::at(root, id).load()?;
    let pids = state.cgroups.pids();
    if as_json {
        return print(&(json(&pids, false)? + "\n"));
    }
    let default = ["-ef".to_owned()];
    let args = if args.is_empty() { &default[..] } else { args };
    let output = Command::new("ps").args(args).output().context(|| "run ps(1)")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let header = text.lines().next().unwrap_or_default();
    let column = header.split_whitespace().position(|w| w == "PID");
    let column = column.ok_or_else(|| Error::Usage("ps: the output has no PID column".into()))?;
    let belongs = |line: &&str| {
        line.split_whitespace()
            .nth(column)
            .and_then(|p| p.parse().ok())
            .is_some_and(|p: i32| pids.contains(&p))
    };
    let lines: Vec<&str> = std::iter::once(header).chain(text.lines().skip(1).filter(belongs)).collect();
    print(&(lines.join("\n") + "\n"))
}

/// Writes a template; an existing file stays.
pub fn spec(bundle: &Path, rootless: bool) -> Result<()> {
    let path = bundle.join("config.json");
    let text = json(&template::spec(rootless), true)? + "\n";
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file =
        file.context(|| format!("write {} (a config.json that is there already is kept)", path.display()))?;
    std::io::Write::write_all(&mut file, text.as_bytes()).context(|| format!("write {}", path.display()))
}
