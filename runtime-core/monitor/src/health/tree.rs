//! Killing a program with everything that it has started.

use std::collections::{HashMap, HashSet};
use std::fs;

/// A process as /proc/PID/stat has it (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Process {
    parent: i32,
    session: i32,
}

/// Sends SIGKILL to a child of ours, its descendants, and what is in a session of one of them: what the OCI runtime starts is the
/// leader of a session, so that a process is found also when its parent has gone.
pub fn kill(root: i32) {
    let mut killed = HashSet::new();
    // Whoever forked while it was being looked for is found in the next round.
    for _ in 0..10 {
        let fresh: Vec<i32> =
            members(root, &processes()).into_iter().filter(|p| !killed.contains(p)).collect();
        if fresh.is_empty() {
            return;
        }
        for pid in fresh {
            let _ = davit_sys::resident::signal_child(pid, 9);
            killed.insert(pid);
        }
    }
}

fn processes() -> HashMap<i32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)))
        .collect()
}

fn parse(stat: &str) -> Option<Process> {
    // The name may hold anything but ends with the last parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Process { parent, session })
}

fn members(root: i32, all: &HashMap<i32, Process>) -> HashSet<i32> {
    let leads = all.get(&root).is_none_or(|p| p.session == root);
    let mut found: HashSet<i32> = [root].into();
    loop {
        let more: Vec<i32> = all
            .iter()
            .filter(|(pid, p)| {
                let with_it = found.contains(&p.parent) || (leads && p.session == root);
                with_it && !found.contains(pid)
            })
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_and_those_of_the_session_are_members() {
        assert_eq!(parse("7 (a) b) S 3 7 5 0 -1"), Some(Process { parent: 3, session: 5 }));
        let process = |parent, session| Process { parent, session };
        let all = HashMap::from([
            (10, process(1, 10)),
            (11, process(10, 10)),
            (12, process(11, 12)),
            (13, process(1, 10)),
            (20, process(1, 20)),
            (21, process(20, 20)),
        ]);
        assert_eq!(members(10, &all), [10, 11, 12, 13].into());
        assert_eq!(members(11, &all), [11, 12].into(), "it leads no session");
    }
}
