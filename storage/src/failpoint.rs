//! Points at which a test lets this daemon die as by a power cut, or holds it up.
//!
//! - `DAVIT_FAILPOINT=name` or `name:n` (the n-th time that it is passed) in the environment ends the process with SIGKILL
//!   right there; `any:n` at the n-th point of whatever name.
//! - `DAVIT_STALLPOINT=name=/path`: whoever passes the point waits for as long as the file `/path` exists, and makes
//!   `/path.reached`, so that a test knows that it is there.
//!
//! Builds without debug assertions have no points. [`POINTS`] is the list that the tests go through: a point that is not in it
//! cannot be passed, one that nothing passes fails the tests.

/// All points, by the operation that passes them.
pub const POINTS: &[&str] = &[
    // The daemon's start.
    "open.database",
    "open.swept",
    // Layers coming in by whatever way.
    "layer.staged",
    "layer.kept",
    "layer.unpacked",
    "layer.ready",
    // Images before they are committed.
    "pull.manifest",
    "pull.config",
    "load.planned",
    "image.whole",
    // The commit of images.
    "commit.begun",
    "commit.layer",
    "commit.blob",
    "commit.published",
    "commit.synced",
    "commit.recorded",
    "commit.done",
    // Names.
    "tag.found",
    "tag.recorded",
    // Removals.
    "remove.begun",
    "remove.untagged",
    "prune.begun",
    "collect.chosen",
    "collect.recorded",
    "collect.layer",
    "collect.blob",
    "collect.done",
    "trash.moved",
    "trash.deleting",
    "trash.deleted",
    // Snapshots.
    "snapshot.staged",
    "snapshot.filled",
    "snapshot.named",
    "snapshot.removed",
    // Volumes.
    "volume.staged",
    "volume.recorded",
    "volume.named",
    "volume.made",
    "volume.populated",
    "volume.used",
    "volume.released",
    "volume.removing",
    "volume.removed",
];

/// Points whose tests are not the storms that go through all of [`POINTS`].
pub const OTHER_POINTS: &[&str] = &["volume.filled", "check.repair"];

/// Passes a point.
#[cfg(debug_assertions)]
pub fn pass(name: &str) {
    debug_assert!(
        POINTS.contains(&name) || OTHER_POINTS.contains(&name),
        "the point {name} is not in the list"
    );
    debug::die(name);
    debug::stall(name);
}

/// Passes a point.
#[cfg(not(debug_assertions))]
#[inline]
pub fn pass(_: &str) {}

#[cfg(debug_assertions)]
mod debug {
    use std::path::Path;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    pub(super) fn die(name: &str) {
        static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
        static PASSED: AtomicU64 = AtomicU64::new(0);
        let wanted = WANTED.get_or_init(|| {
            let text = std::env::var("DAVIT_FAILPOINT").ok()?;
            Some(match text.rsplit_once(':') {
                Some((name, n)) if n.parse::<u64>().is_ok() => (name.to_owned(), n.parse().unwrap_or(1)),
                _ => (text, 1),
            })
        });
        if let Some((wanted, n)) = wanted
            && (wanted == name || wanted == "any")
            && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *n
        {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            // The signal is on its way: nothing more happens on this thread.
            std::thread::sleep(Duration::from_secs(60));
        }
    }

    pub(super) fn stall(name: &str) {
        static WANTED: OnceLock<Option<(String, String)>> = OnceLock::new();
        let wanted = WANTED.get_or_init(|| {
            let text = std::env::var("DAVIT_STALLPOINT").ok()?;
            text.split_once('=').map(|(name, path)| (name.to_owned(), path.to_owned()))
        });
        let Some((wanted, path)) = wanted else { return };
        if wanted != name || !Path::new(path).exists() {
            return;
        }
        let _ = std::fs::write(format!("{path}.reached"), name);
        while Path::new(path).exists() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
