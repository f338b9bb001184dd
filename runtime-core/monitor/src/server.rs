//! The process that serves the container's root file system, where that is no mount of the kernel's own (`fuse.davit-cowfs`).
//!
//! It is the monitor's child and runs in the monitor's mount namespace and cgroup: what the container is limited to is not its limit, a
//! paused container does not pause it, and it is as safe from the OOM killer as the monitor is. It dies with the monitor.
//!
//! ```text
//! Serving ──(the program has ended, or a shutdown)──> Leaving ──> ended
//!    `──(it died)──> the container is ended: nothing of its root can be read any more
//! ```
//!
//! Leaving is unmounting: the kernel then has everything written that is still in its page cache, which takes as long as it takes, so a
//! thread of its own waits for that.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use davit_sys::mount::unmount;
use davit_sys::served::{self, ServedError};

use crate::note::note;

/// How long it may go on after its mount was taken away here: others may still have the mount, who end later.
const GRACE: Duration = Duration::from_secs(2);

/// How often the unmounting thread is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The thread only makes system calls.
const STACK: usize = 128 << 10;

/// The server of the root.
#[derive(Debug)]
pub struct Server {
    /// Its process, not waited for yet.
    pub pid: i32,
    log: File,
    leaving: Option<Leaving>,
}

#[derive(Debug)]
struct Leaving {
    since: Instant,
    unmounting: Option<JoinHandle<()>>,
    unmounted: Option<Instant>,
    killed: bool,
}

impl Server {
    /// Starts it and waits until it serves `at`; its words go to `log`.
    pub fn start(program: &Path, options: &[String], at: &Path, log: &Path) -> Result<Self, ServedError> {
        let opened = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(log);
        let log = opened.map_err(|source| ServedError::Run { program: program.to_owned(), source })?;
        let child = served::start(program, options, at, &log)?;
        // The loop's waitpid reaps it: the handle is only good for its pid.
        Ok(Self { pid: child.id() as i32, log, leaving: None })
    }

    /// Whether its end is expected.
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Takes its mount, and what is mounted in it, away without waiting for that. Once is enough.
    pub fn leave(&mut self, mounts: &mut Vec<PathBuf>) {
        if self.leaving.is_some() {
            return;
        }
        let paths = std::mem::take(mounts);
        let thread =
            Builder::new().name("unmount".into()).stack_size(STACK).spawn(move || unmount_all(paths));
        let now = Instant::now();
        let mut leaving = Leaving { since: now, unmounting: None, unmounted: None, killed: false };
        match thread {
            Ok(thread) => leaving.unmounting = Some(thread),
            Err(e) => {
                note(format_args!("no thread to unmount the root: {e}"));
                leaving.unmounted = Some(now);
            }
        }
        self.leaving = Some(leaving);
    }

    /// Whether nothing that the program wrote is waited for any more: the mount is gone here, and the server had its time to end too.
    pub fn has_let_go(&mut self) -> bool {
        self.look();
        let Some(leaving) = &self.leaving else { return false };
        leaving.killed || leaving.unmounted.is_some_and(|at| at.elapsed() >= GRACE)
    }

    /// Looks at the thread, and kills a server that does not end.
    pub fn look(&mut self) {
        let Some(leaving) = &mut self.leaving else { return };
        if leaving.unmounting.as_ref().is_some_and(JoinHandle::is_finished) {
            leaving.unmounting = None;
            leaving.unmounted = Some(Instant::now());
        }
        if !leaving.killed && leaving.since.elapsed() >= served::PATIENCE {
            note(format_args!("the server of the root does not end: killed"));
            leaving.killed = true;
            let _ = davit_sys::resident::signal_child(self.pid, 9);
        }
    }

    /// When to look again.
    pub fn patience(&self) -> Option<Duration> {
        self.leaving.is_some().then_some(LOOK)
    }

    /// The last line that it wrote.
    pub fn last_words(&self) -> Option<String> {
        served::last_words(&self.log)
    }
}

/// Unmounts the innermost first; what cannot be unmounted goes with the namespace.
pub fn unmount_all(mut mounts: Vec<PathBuf>) {
    while let Some(path) = mounts.pop() {
        // A target may have led through a symbolic link of the image: only what is really there is touched.
        let outside = path.canonicalize().is_ok_and(|real| real != path);
        if outside {
            continue;
        }
        if let Err(e) = unmount(&path) {
            let cause = std::error::Error::source(&e).map(ToString::to_string).unwrap_or_default();
            note(format_args!("{e}: {cause}"));
        }
    }
}
