//! What containers may leave behind, and daemons collect.

use std::collections::BTreeMap;

use davit_tests::{Host, eventually};

/// Open descriptors by daemon.
#[derive(Debug)]
pub struct Descriptors(BTreeMap<String, usize>);

/// Connections and caches that come and go.
const SLACK: usize = 12;

impl Descriptors {
    /// As they are now.
    pub fn of(host: &Host) -> Self {
        let script = "for p in /proc/[0-9]*; do c=$(cat $p/comm 2>/dev/null); case $c in davit-*) echo $c $(ls $p/fd | wc -l);; esac; done";
        let ran = host.sh(script).ok();
        let one = |line: &str| {
            let (name, count) = line.split_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        };
        let daemons = ran.stdout.lines().filter_map(one).filter(|(name, _)| name != "davit-test-init");
        Self(daemons.collect())
    }

    /// Waits until no daemon has notably more than then.
    pub fn have_not_grown(&self, host: &Host) {
        eventually("daemons have closed what they opened", || {
            let now = Self::of(host);
            let grown = |(name, count): &(&String, &usize)| {
                self.0.get(*name).is_some_and(|before| **count > before + SLACK)
            };
            let grown: Vec<_> = now.0.iter().filter(grown).collect();
            if grown.is_empty() { Ok(()) } else { Err(format!("{grown:?} of {self:?}")) }
        });
    }
}

/// No process of the host waits to be reaped.
pub fn no_zombies(host: &Host) {
    eventually("no zombie is left", || {
        let ran = host.sh("grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null; true").ok();
        if ran.text().is_empty() { Ok(()) } else { Err(ran.to_string()) }
    });
}

/// Processes, cgroups, directories and snapshots of containers, when there is none any more.
pub fn left_of_containers(host: &Host) -> Result<(), String> {
    let script = "find /run/davit/runtime -mindepth 1 ! -name boot; \
        find \"$DAVIT_STATE_DIR\"/runtime/containers \"$DAVIT_STATE_DIR\"/runtime/trash -mindepth 1; \
        find \"$DAVIT_STATE_DIR\"/storage/snapshots -mindepth 1 -maxdepth 1; \
        find /sys/fs/cgroup -mindepth 2 -type d -path '*/davit/*'; \
        pgrep -x davit-monitor; pgrep -x davit-runner; true";
    let left = host.sh(script).ok();
    if left.text().is_empty() { Ok(()) } else { Err(left.to_string()) }
}
