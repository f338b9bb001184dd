//! Points at which a test lets a process die as by a power cut, or holds it up.
//!
//! - `DAVIT_FAILPOINT=name` or `name:n` (the n-th time that it is passed) in the environment ends the process with SIGKILL
//!   right there; `any:n` at the n-th point of whatever name.
//! - `DAVIT_STALLPOINT=name=/path`: whoever passes the point waits for as long as the file `/path` exists, and makes
//!   `/path.reached`, so that a test knows that it is there.
//!
//! For builds with debug assertions: callers leave the calls out of others.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Passes a point.
pub fn pass(name: &str) {
    die(name);
    stall(name);
}

fn die(name: &str) {
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

fn stall(name: &str) {
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
