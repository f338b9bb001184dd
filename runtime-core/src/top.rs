//! Processes of a container as /proc shows them.

use std::fs;
use std::path::Path;

use davit_contracts::runtime::{StringList, TopResponse};

use crate::error::RuntimeError;

const TITLES: [&str; 8] = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
/// Clock ticks a second in /proc, on every Linux architecture that davit runs on.
const TICKS: u64 = 100;

struct Process {
    pid: i32,
    parent: i32,
    tty: bool,
    ticks: u64,
}

/// The processes in the pid namespace of `init`; where it shares ours, those descending from it.
pub fn of(init: i32) -> Result<TopResponse, RuntimeError> {
    Ok(TopResponse {
        titles: TITLES.iter().map(ToString::to_string).collect(),
        processes: processes(init)?.iter().map(row).collect(),
    })
}

/// The same as the host's ps(1) shows them with these options, which must leave its PID column in.
pub async fn by_ps(init: i32, options: &[String]) -> Result<TopResponse, RuntimeError> {
    let failed = |why: String| RuntimeError::Invalid(format!("ps {}: {why}", options.join(" ")));
    let output =
        tokio::process::Command::new("ps").args(options).stdin(std::process::Stdio::null()).output().await;
    let output = output.map_err(|e| failed(format!("{e}: options of ps need the host's ps(1)")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(failed(
            said.lines().find(|l| !l.trim().is_empty()).unwrap_or("it failed").trim().to_owned(),
        ));
    }
    let pids: Vec<i32> = processes(init)?.iter().map(|p| p.pid).collect();
    select(&String::from_utf8_lossy(&output.stdout), &pids)
        .ok_or_else(|| RuntimeError::Invalid("Couldn't find PID field in ps output".into()))
}

/// The lines of these processes; the last column has whatever is left of a line.
fn select(listed: &str, pids: &[i32]) -> Option<TopResponse> {
    let mut lines = listed.lines();
    let titles: Vec<String> = lines.next()?.split_whitespace().map(str::to_owned).collect();
    let pid = titles.iter().position(|t| t == "PID")?;
    let mut processes = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !words.get(pid).and_then(|p| p.parse().ok()).is_some_and(|p| pids.contains(&p)) {
            continue;
        }
        let cut = (titles.len() - 1).min(words.len());
        let mut values: Vec<String> = words[..cut].iter().map(ToString::to_string).collect();
        values.push(words[cut..].join(" "));
        processes.push(StringList { values });
    }
    Some(TopResponse { titles, processes })
}

fn processes(init: i32) -> Result<Vec<Process>, RuntimeError> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let theirs = namespace(&init.to_string())
        .ok_or_else(|| RuntimeError::WrongState("the container's processes have just ended".into()))?;
    let shared = namespace("self").as_ref() == Some(&theirs);
    let entries = fs::read_dir("/proc").map_err(crate::error::io_error("read", Path::new("/proc")))?;
    let mut all: Vec<Process> = entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| shared || namespace(&pid.to_string()).as_ref() == Some(&theirs))
        .filter_map(read)
        .collect();
    all.sort_by_key(|p| p.pid);
    if shared {
        all = descendants(all, init);
    }
    Ok(all)
}

fn descendants(all: Vec<Process>, init: i32) -> Vec<Process> {
    let mut tree = vec![init];
    loop {
        let more: Vec<i32> = all
            .iter()
            .filter(|p| tree.contains(&p.parent) && !tree.contains(&p.pid))
            .map(|p| p.pid)
            .collect();
        if more.is_empty() {
            break;
        }
        tree.extend(more);
    }
    all.into_iter().filter(|p| tree.contains(&p.pid)).collect()
}

fn read(pid: i32) -> Option<Process> {
    parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// proc_pid_stat(5); the name in brackets may hold anything.
fn parse(pid: i32, stat: &str) -> Option<Process> {
    let rest: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split(' ').collect();
    let number = |n: usize| rest.get(n)?.trim().parse::<i64>().ok();
    Some(Process {
        pid,
        parent: number(1)? as i32,
        tty: number(4)? != 0,
        ticks: (number(11)? + number(12)?) as u64,
    })
}

fn row(p: &Process) -> StringList {
    let status = fs::read_to_string(format!("/proc/{}/status", p.pid)).unwrap_or_default();
    let uid = status
        .lines()
        .find_map(|l| l.strip_prefix("Uid:"))
        .and_then(|l| l.split_whitespace().nth(1))
        .unwrap_or("?");
    let command = fs::read(format!("/proc/{}/cmdline", p.pid)).unwrap_or_default();
    let command: Vec<String> = command
        .split(|b| *b == 0)
        .filter(|a| !a.is_empty())
        .map(|a| String::from_utf8_lossy(a).into_owned())
        .collect();
    let started = fs::metadata(format!("/proc/{}", p.pid)).and_then(|m| m.modified()).ok();
    let started = started
        .map(time::OffsetDateTime::from)
        .map_or_else(String::new, |t| format!("{:02}:{:02}", t.hour(), t.minute()));
    let seconds = p.ticks / TICKS;
    let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    StringList {
        values: vec![
            uid.to_owned(),
            p.pid.to_string(),
            p.parent.to_string(),
            "0".to_owned(),
            started,
            if p.tty { "pts".to_owned() } else { "?".to_owned() },
            time,
            command.join(" "),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ps_lists_is_cut_down_to_the_container() {
        let listed = "  PID USER COMMAND\n    1 root /sbin/init splash\n   42 web  nginx: worker  process\n";
        let top = select(listed, &[42]).unwrap();
        assert_eq!(top.titles, ["PID", "USER", "COMMAND"]);
        assert_eq!(top.processes.len(), 1);
        assert_eq!(top.processes[0].values, ["42", "web", "nginx: worker process"]);
        assert!(select("USER COMMAND\nroot init\n", &[1]).is_none());
    }

    #[test]
    fn stat_lines_with_any_name() {
        let p = parse(7, "7 (a) b (c) S 1 7 7 34816 0 0 0 0 0 0 150 50 0 0 20").unwrap();
        assert_eq!((p.parent, p.tty, p.ticks), (1, true, 200));
        assert!(parse(7, "7 (x").is_none());
    }

    #[test]
    fn our_own_descendants_are_found_in_a_shared_namespace() {
        let me = std::process::id() as i32;
        let top = of(me).unwrap();
        assert!(top.processes.iter().any(|p| p.values[1] == me.to_string()));
        assert!(!top.processes.iter().any(|p| p.values[1] == "1" && me != 1));
    }
}
