//! Who was killed: from the kernel's log, with the number that it had inside.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// More processes than this are not looked at.
const MOST: usize = 4096;

/// A process of the cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resident {
    pid: i32,
    /// In the innermost pid namespace that it is in.
    inside: i32,
    name: String,
}

/// Who is in the cgroup.
pub fn residents(procs: &Path) -> Vec<Resident> {
    let pids = fs::read_to_string(procs).unwrap_or_default();
    let pids = pids.lines().filter_map(|l| l.parse().ok()).take(MOST);
    pids.filter_map(|pid: i32| parse(pid, &fs::read_to_string(format!("/proc/{pid}/status")).ok()?)).collect()
}

/// From /proc/PID/status (proc_pid_status(5)).
fn parse(pid: i32, status: &str) -> Option<Resident> {
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name));
    let inside = field("NSpid:")?.split_whitespace().last()?.parse().ok()?;
    Some(Resident { pid, inside, name: field("Name:")?.trim().to_owned() })
}

/// Adds newcomers, for a killer that strikes several times.
pub fn merge(known: &mut Vec<Resident>, now: Vec<Resident>) {
    known.retain(|k| now.iter().all(|n| n.pid != k.pid));
    known.extend(now);
}

/// "pid 7 python3", or as much as is known.
pub fn find(container_id: &str, residents: &[Resident]) -> Option<String> {
    let log = kernel_log().unwrap_or_default();
    let named = last_kill(&log, container_id);
    if let Some((pid, name)) = named {
        return Some(match resident(residents, pid, &name) {
            Some(r) => format!("pid {} {name}", r.inside),
            None => name,
        });
    }
    // Without the log: who of them is gone, if it is only one.
    let mut gone = residents.iter().filter(|r| is_dead(r.pid));
    match (gone.next(), gone.next()) {
        (Some(r), None) => Some(format!("pid {} {}", r.inside, r.name)),
        _ => None,
    }
}

/// The kernel counts processes in its own namespace, which may not be ours: then the name must be enough.
fn resident<'a>(residents: &'a [Resident], pid: i32, name: &str) -> Option<&'a Resident> {
    let mut named = residents.iter().filter(|r| r.name == name);
    if let Some(same) = residents.iter().find(|r| r.pid == pid && r.name == name) {
        return Some(same);
    }
    let mut dead = named.clone().filter(|r| is_dead(r.pid));
    match (dead.next(), dead.next()) {
        (Some(r), None) => Some(r),
        (None, _) => named.next().filter(|_| named.next().is_none()),
        _ => None,
    }
}

fn is_dead(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    matches!(state, None | Some("Z" | "X"))
}

/// Everything in /dev/kmsg, where it may be read.
fn kernel_log() -> io::Result<String> {
    let mut file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/kmsg")?;
    let mut text = String::new();
    let mut record = vec![0; 8192];
    loop {
        match file.read(&mut record) {
            Ok(0) => return Ok(text),
            // Only what is looked for is kept.
            Ok(n) if record[..n].windows(9).any(|w| w == b"oom-kill:") => {
                text.push_str(&String::from_utf8_lossy(&record[..n]));
                text.push('\n');
            }
            Ok(_) => {}
            // EPIPE: records were overwritten meanwhile.
            Err(e) if e.raw_os_error() == Some(libc::EPIPE) || e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(text),
        }
    }
}

/// Process and name of the last one that was killed in this container.
fn last_kill(log: &str, container_id: &str) -> Option<(i32, String)> {
    let line = log.lines().rfind(|l| l.contains("oom-kill:") && l.contains(container_id))?;
    let (rest, pid) = line.rsplit_once(",pid=")?;
    let (_, name) = rest.rsplit_once(",task=")?;
    let pid = pid.split(',').next()?.parse().ok()?;
    Some((pid, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_line_names_the_victim() {
        let line = "3,1,2,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/davit/abc,task_memcg=/davit/abc,task=my, prog,pid=123,uid=0";
        let older = line.replace("123", "99");
        let other = line.replace("abc", "def");
        let log = [older.as_str(), line, &other].join("\n");
        assert_eq!(last_kill(&log, "abc"), Some((123, "my, prog".into())));
        assert_eq!(last_kill(&log, "xyz"), None);
    }

    #[test]
    fn numbers_inside_come_from_who_was_there() {
        let status = "Name:\tpython3\nUmask:\t0022\nNSpid:\t4000\t7\n";
        let seven = parse(4000, status).unwrap();
        assert_eq!(seven, Resident { pid: 4000, inside: 7, name: "python3".into() });
        let gone = Resident { pid: i32::MAX, inside: 9, name: "python3".into() };
        let me = Resident { pid: std::process::id() as i32, inside: 3, name: "python3".into() };
        let all = [seven.clone(), me.clone()];
        assert_eq!(resident(&all, 4000, "python3").unwrap().inside, 7);
        assert_eq!(resident(&[gone.clone(), me], 1234, "python3").unwrap().inside, 9, "the one that is dead");
        let (mut known, again) = (vec![seven.clone(), gone.clone()], vec![seven.clone()]);
        merge(&mut known, again);
        assert_eq!(known, [gone, seven]);
    }
}
