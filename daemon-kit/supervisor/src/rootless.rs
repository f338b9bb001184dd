//! A plain user's instance: the namespaces that its daemons live in, kept by the holder process over our own death.
//!
//! ```text
//! holder        user + mount + network namespace; ends with `down` when no container is left
//! storaged      holder's user and mount namespace, the host's network
//! runtimed      the same
//! netd          the same, and the holder's network namespace: its "host"
//! ```

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use davit_layout::Layout;
use davit_sys::process::ProcessRef;
use davit_sys::userns;
use nix::unistd::{User, getegid, geteuid};
use rustix::process::{Pid, Signal, kill_process};

use crate::idmap;

/// Where a rootless instance lives; empty for root's.
#[derive(Debug, Default)]
pub struct Space {
    /// netd's.
    pub netns: Option<OwnedFd>,
    /// What will not work here and why, one line each.
    pub limits: Vec<String>,
    holder: Option<ProcessRef>,
}

impl Space {
    /// Ends the holder, unless a container still lives in its namespaces.
    pub fn close(&mut self, layout: &Layout) {
        let Some(holder) = self.holder.take() else { return };
        if monitors_live(&layout.runtime_run()) || !holder.is_alive() {
            return;
        }
        if let Some(pid) = Pid::from_raw(holder.pid) {
            let _ = kill_process(pid, Signal::KILL);
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(holder.pid), None);
        }
        let _ = fs::remove_file(record(layout));
    }
}

fn record(layout: &Layout) -> PathBuf {
    layout.run.join("holder.pid")
}

/// Joins the namespaces of the instance's holder, which is made when there is none.
pub fn enter(layout: &Layout) -> Result<Space> {
    let mut limits = Vec::new();
    let path = record(layout);
    let kept = read_process(&path).filter(ProcessRef::is_alive);
    let holder = kept.map_or_else(|| make_holder(&path, &mut limits), Ok)?;
    if limits.is_empty() && !whole_map(holder) {
        limits.push(SINGLE.to_owned());
    }
    limits.push(NO_UPLINK.to_owned());
    let netns = holder.namespace("net").context("cannot open the holder's network namespace")?;
    userns::join(holder).context("cannot join the holder's namespaces")?;
    Ok(Space { netns: Some(netns), limits, holder: Some(holder) })
}

fn make_holder(record: &Path, limits: &mut Vec<String>) -> Result<ProcessRef> {
    let holder = userns::spawn_holder().context("cannot make the namespaces of a rootless instance")?;
    let made = map_ids(holder, limits).and_then(|()| write_process(record, holder));
    if made.is_err() {
        end(holder);
    }
    made.map(|()| holder)
}

/// The private network namespace ends at itself.
const NO_UPLINK: &str = "networks have no way out yet, and published ports answer only inside the instance (--net host has the \
     host's network)";

const SINGLE: &str = "only your own user id is mapped: programs in containers run as root only, and images whose files have other owners \
     are unpacked with yours (install newuidmap, package uidmap, and have a range in /etc/subuid and /etc/subgid)";

fn map_ids(holder: ProcessRef, limits: &mut Vec<String>) -> Result<()> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let name = User::from_uid(geteuid()).ok().flatten().map(|u| u.name).unwrap_or_default();
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let uids = idmap::ranges(&read("/etc/subuid"), &name, uid);
    let gids = idmap::ranges(&read("/etc/subgid"), &name, uid);
    if !uids.is_empty() && !gids.is_empty() {
        let mapped = run("newuidmap", &idmap::arguments(holder.pid, uid, &uids))
            .and_then(|()| run("newgidmap", &idmap::arguments(holder.pid, gid, &gids)));
        match mapped {
            Ok(()) => return Ok(()),
            // uid_map can be written once: a half-done mapping must not go on.
            Err(e) if whole_map(holder) => return Err(e),
            Err(e) => limits.push(format!("{SINGLE}: {e:#}")),
        }
    } else {
        limits.push(SINGLE.to_owned());
    }
    let write = |file: &str, text: String| {
        let path = format!("/proc/{}/{file}", holder.pid);
        fs::write(&path, text).with_context(|| format!("cannot write {path}"))
    };
    write("uid_map", format!("0 {uid} 1\n"))?;
    // user_namespaces(7): without privilege gid_map may be written only after setgroups(2) was given up.
    write("setgroups", "deny".to_owned())?;
    write("gid_map", format!("0 {gid} 1\n"))
}

fn whole_map(holder: ProcessRef) -> bool {
    fs::read_to_string(format!("/proc/{}/uid_map", holder.pid)).is_ok_and(|text| text.lines().count() > 1)
}

fn run(program: &str, args: &[String]) -> Result<()> {
    let output =
        Command::new(program).args(args).output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn end(holder: ProcessRef) {
    if let Some(pid) = Pid::from_raw(holder.pid) {
        let _ = kill_process(pid, Signal::KILL);
        let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(holder.pid), None);
    }
}

/// `PID START_TIME` of a process, as monitors and we write it.
fn read_process(path: &Path) -> Option<ProcessRef> {
    let text = fs::read_to_string(path).ok()?;
    let mut words = text.split_ascii_whitespace();
    Some(ProcessRef { pid: words.next()?.parse().ok()?, start_time: words.next()?.parse().ok()? })
}

fn write_process(path: &Path, process: ProcessRef) -> Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, format!("{} {}\n", process.pid, process.start_time))
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn monitors_live(run: &Path) -> bool {
    let Ok(entries) = fs::read_dir(run) else { return false };
    entries
        .flatten()
        .any(|entry| read_process(&entry.path().join("monitor.pid")).is_some_and(|p| p.is_alive()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_record_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let me = ProcessRef::this().unwrap();
        write_process(&dir.path().join("holder.pid"), me).unwrap();
        assert_eq!(read_process(&dir.path().join("holder.pid")), Some(me));
        assert_eq!(read_process(&dir.path().join("none")), None);
    }

    #[test]
    fn a_live_monitor_is_found_and_a_dead_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let one = dir.path().join("0123");
        fs::create_dir(&one).unwrap();
        assert!(!monitors_live(dir.path()));
        let me = ProcessRef::this().unwrap();
        write_process(&one.join("monitor.pid"), me).unwrap();
        assert!(monitors_live(dir.path()));
        write_process(&one.join("monitor.pid"), ProcessRef { start_time: me.start_time + 1, ..me }).unwrap();
        assert!(!monitors_live(dir.path()));
    }
}
