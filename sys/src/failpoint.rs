//! Points at which a test lets a process die as by a power cut, or holds it up.
//!
//! - `DAVIT_FAILPOINT=name` or `name:n` (the n-th time that it is passed) in the environment ends the process with SIGKILL
//!   right there; `any:n` at the n-th point of whatever name. With `@/path` behind it, points count only while that file
//!   exists, and whoever dies takes the file away first: of a test that removes it and a process that dies, one alone does.
//! - `DAVIT_STALLPOINT=name=/path`: whoever passes the point waits for as long as the file `/path` exists, and makes
//!   `/path.reached`, so that a test knows that it is there.
//! - `DAVIT_KERNEL_LACKS=name`: the process takes the kernel for one without that feature.
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

/// Whether the kernel is to be taken for one without a feature.
pub fn lacks(feature: &str) -> bool {
    static WANTED: OnceLock<Option<String>> = OnceLock::new();
    WANTED.get_or_init(|| std::env::var("DAVIT_KERNEL_LACKS").ok()).as_deref() == Some(feature)
}

fn die(name: &str) {
    static WANTED: OnceLock<Option<(String, u64, Option<String>)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("DAVIT_FAILPOINT").ok()?;
        let (text, armed) = match text.split_once('@') {
            Some((text, path)) => (text.to_owned(), Some(path.to_owned())),
            None => (text, None),
        };
        Some(match text.rsplit_once(':') {
            Some((name, n)) if n.parse::<u64>().is_ok() => (name.to_owned(), n.parse().unwrap_or(1), armed),
            _ => (text, 1, armed),
        })
    });
    if let Some((wanted, n, armed)) = wanted
        && (wanted == name || wanted == "any")
        && armed.as_ref().is_none_or(|path| Path::new(path).exists())
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *n
        && armed.as_ref().is_none_or(|path| std::fs::remove_file(path).is_ok())
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
