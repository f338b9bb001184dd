//! Threads that have the engine mend its rules when somebody else took some away.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use davit_sys::xtables;

use super::{Engine, Job};
use crate::firewall::Firewall;
use crate::firewall::watch::Watch;

/// Between two glances at tables that tell of no changes.
const GLANCE: Duration = Duration::from_millis(400);

/// Starts what the backend needs. Without nf_tables there is nothing to hear.
pub(super) fn start(firewall: &Firewall, jobs: &mpsc::Sender<Job>) -> std::io::Result<()> {
    match firewall.watch() {
        Ok(watch) => spawn("netd-rules", hear(watch, jobs.clone()))?,
        Err(error) => {
            tracing::warn!(%error, "flushed firewall rules come back only with the next change");
        }
    }
    if let Some(touched) = firewall.glances() {
        spawn("netd-glances", glance(touched, jobs.clone()))?;
    }
    Ok(())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().name(name.into()).stack_size(128 << 10).spawn(work).map(drop)
}

fn hear(mut watch: Watch, jobs: mpsc::Sender<Job>) -> impl FnOnce() + Send {
    move || {
        loop {
            if let Err(error) = watch.next_loss() {
                tracing::warn!(%error, "flushed firewall rules come back only with the next change");
                return;
            }
            if jobs.send(Box::new(Engine::mend_rules)).is_err() {
                return;
            }
        }
    }
}

/// Compares the sizes of the tables in use: a rule more or less changes them.
fn glance(touched: Arc<AtomicBool>, jobs: mpsc::Sender<Job>) -> impl FnOnce() + Send {
    move || {
        let mut before = sizes();
        loop {
            thread::sleep(GLANCE);
            let now = sizes();
            let look = now != before || touched.swap(false, Ordering::Relaxed);
            if look && jobs.send(Box::new(Engine::mend_rules)).is_err() {
                return;
            }
            before = now;
        }
    }
}

fn sizes() -> Vec<Option<(u32, u32)>> {
    let mut all = Vec::new();
    for (file, ipv6) in [("ip_tables_names", false), ("ip6_tables_names", true)] {
        let names = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        for table in ["filter", "nat", "raw"] {
            let used = names.lines().any(|l| l == table);
            all.push(used.then(|| xtables::size(table, ipv6).ok()).flatten());
        }
    }
    all
}
