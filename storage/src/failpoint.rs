//! Points at which a test lets this daemon die as by a power cut: `DAVIT_FAILPOINT=name` or `name:n` (the n-th time it is
//! passed) in the environment ends the process with SIGKILL right there. Builds without debug assertions have none.

/// Passes a point.
#[cfg(debug_assertions)]
pub fn pass(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
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
        && wanted == name
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *n
    {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Passes a point.
#[cfg(not(debug_assertions))]
#[inline]
pub fn pass(_: &str) {}
