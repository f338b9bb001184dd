//! Plugins that run now, so that a netd that comes after a killed one finds them and ends them before it runs others for
//! the same container.
//!
//! One file a run in run/network/plugins, named after the process and its start time. It is made before the plugin is given
//! its configuration, without which none of them can begin, and removed after it has ended. A process that leaves its
//! process group (a daemon) is the plugin's business.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use davit_sys::process::{ProcessError, ProcessRef};
use tokio::time::{Instant, sleep};

/// A mark in the environment of each run: it tells members of a group whose leader has ended from others' processes.
pub const MARK: &str = "DAVIT_PLUGIN_RUN";
/// How long ended processes may take to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// The folder of records.
#[derive(Debug, Clone)]
pub struct Running {
    folder: Arc<Path>,
}

/// Why a run could not be recorded or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunningError {
    /// A record.
    #[error("cannot {operation} {path}")]
    File {
        /// "make", "write", "read", "remove".
        operation: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It does not end.
    #[error("plugin process {0} of an earlier netd does not end")]
    Stuck(i32),
}

fn failed<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> RunningError + 'a {
    move |source| RunningError::File { operation, path: path.to_path_buf(), source }
}

/// A run that is on record.
#[derive(Debug)]
#[must_use = "its record is removed when it has ended"]
pub struct Recorded {
    path: PathBuf,
}

impl Recorded {
    /// The group has ended. Without this call the record stays, for the next start.
    pub fn ended(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the record of a plugin that has ended is left");
        }
    }
}

impl Running {
    /// Opens or makes the folder.
    pub fn open(folder: PathBuf) -> Result<Self, RunningError> {
        fs::create_dir_all(&folder).map_err(failed("make", &folder))?;
        Ok(Self { folder: folder.into() })
    }

    /// Records the leader of a group that was just made, and its mark.
    pub fn record(&self, pid: i32, mark: &str) -> Result<Recorded, RunningError> {
        let leader = ProcessRef::of(pid)?;
        let name = format!("{}-{}", leader.pid, leader.start_time);
        let (path, draft) = (self.folder.join(&name), self.folder.join(format!(".{name}")));
        fs::write(&draft, mark).map_err(failed("write", &draft))?;
        fs::rename(&draft, &path).map_err(failed("write", &path))?;
        Ok(Recorded { path })
    }

    /// Ends all that is on record, and waits until it has ended. Goes on after errors.
    pub async fn end_all(&self) -> Result<(), RunningError> {
        let mut first = Ok(());
        for entry in fs::read_dir(&self.folder).map_err(failed("read", &self.folder))? {
            let path = entry.map_err(failed("read", &self.folder))?.path();
            let ended =
                end(&path).await.and_then(|()| fs::remove_file(&path).map_err(failed("remove", &path)));
            first = first.and(ended);
        }
        first
    }
}

async fn end(path: &Path) -> Result<(), RunningError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let parsed = name.split_once('-').and_then(|(p, s)| Some((p.parse().ok()?, s.parse().ok()?)));
    // What is no record is a draft.
    let Some((pid, start_time)) = parsed else { return Ok(()) };
    let mark = fs::read_to_string(path).map_err(failed("read", path))?;
    let until = Instant::now() + PATIENCE;
    loop {
        let members = members(ProcessRef { pid, start_time }, &mark)?;
        if members.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(RunningError::Stuck(members[0].pid));
        }
        for member in members {
            tracing::info!(pid = member.pid, "ending a plugin that an earlier netd ran");
            member.kill()?;
        }
        // One may have made another before it ended.
        sleep(Duration::from_millis(5)).await;
    }
}

/// The group's living members. Its number is not given to another as long as its leader is there, also when that is a
/// zombie; after that the mark tells.
fn members(leader: ProcessRef, mark: &str) -> Result<Vec<ProcessRef>, RunningError> {
    let mut members = ProcessRef::group(leader.pid)?;
    if ProcessRef::of(leader.pid).is_ok_and(|now| now == leader) {
        return Ok(members);
    }
    let line = format!("{MARK}={mark}");
    members.retain(|member| {
        let environment = fs::read(format!("/proc/{}/environ", member.pid)).unwrap_or_default();
        environment.split(|b| *b == 0).any(|variable| variable == line.as_bytes())
    });
    Ok(members)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn sh(script: &str, mark: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).env(MARK, mark).stdin(Stdio::piped()).stdout(Stdio::null());
        command.process_group(0).spawn().unwrap()
    }

    #[tokio::test]
    async fn groups_end_with_and_without_their_leader_and_others_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::open(dir.path().join("plugins")).unwrap();
        let mut whole = sh("sleep 1000 & sleep 1000", "a");
        let mut orphaned = sh("sleep 1000 & read line", "b");
        let group = orphaned.id() as i32;
        for (child, mark) in [(&whole, "a"), (&orphaned, "b")] {
            let _ = running.record(child.id() as i32, mark).unwrap();
        }
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while ProcessRef::group(group).unwrap().len() < 2 {
            assert!(std::time::Instant::now() < until);
        }
        drop(orphaned.stdin.take());
        orphaned.wait().unwrap();
        // A group whose number is on record, but not with this leader and not with this mark.
        let mut other = sh("sleep 1000", "c");
        fs::write(running.folder.join(format!("{}-1", other.id())), "d").unwrap();
        running.end_all().await.unwrap();
        whole.wait().unwrap();
        assert!(ProcessRef::group(whole.id() as i32).unwrap().is_empty());
        assert!(ProcessRef::group(group).unwrap().is_empty());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(fs::read_dir(&running.folder).unwrap().count(), 0);
    }
}
