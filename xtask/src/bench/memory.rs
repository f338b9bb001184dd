//! What engines hold in memory: resident size of idle daemons, proportional size of what they keep for each container.

use serde::Serialize;

use super::peers::Peer;

/// One line of the report; kilobytes.
#[derive(Debug, Serialize)]
pub struct Memory {
    /// The engine.
    pub engine: &'static str,
    /// The process.
    pub process: String,
    /// `RSS, idle` or `PSS, mean of N`.
    pub what: String,
    /// How much.
    pub kilobytes: u64,
}

/// Before anything was run inside.
pub const WITHOUT_EXEC: &str = "none has had an exec";
/// After one command was run inside of each.
pub const WITH_EXEC: &str = "each after an exec";

/// Measures idle daemons first, then `containers` containers before and after each has had one exec.
pub fn measure(peers: &mut [Peer], containers: usize) -> Vec<Memory> {
    let mut found = Vec::new();
    for peer in peers.iter_mut() {
        for daemon in peer.daemons {
            let sizes = sizes(peer, daemon, "status", "VmRSS:");
            if let Some(kilobytes) = sizes.first() {
                let what = "RSS, idle after the runs above".to_owned();
                found.push(Memory {
                    engine: peer.name,
                    process: (*daemon).to_owned(),
                    what,
                    kilobytes: *kilobytes,
                });
            }
        }
        if let (Some(detached), Some(exec), Some(monitor)) = (&peer.detached, &peer.exec, peer.monitor) {
            let name = |n: usize| format!("resident{n}");
            let mut mean = |when: &str| {
                let sizes = sizes(peer, monitor, "smaps_rollup", "Pss:");
                let count = sizes.len().max(1) as u64;
                let what = format!("PSS, mean of {count}, {when}");
                let kilobytes = sizes.iter().sum::<u64>() / count;
                found.push(Memory { engine: peer.name, process: monitor.to_owned(), what, kilobytes });
            };
            for n in 0..containers {
                let more = [&name(n), &peer.image, "sleep", "100000"].map(str::to_owned);
                peer.run(&[detached.as_slice(), &more].concat(), n).ok();
            }
            mean(WITHOUT_EXEC);
            for n in 0..containers {
                peer.run(&[exec.as_slice(), &[name(n), "true".to_owned()]].concat(), n).ok();
            }
            mean(WITH_EXEC);
        }
    }
    found
}

/// One number for each process of this name: a field of a file below /proc/PID.
fn sizes(peer: &Peer, process: &str, file: &str, field: &str) -> Vec<u64> {
    // comm is cut at 15 bytes.
    let comm = &process[..process.len().min(15)];
    let script = format!(
        "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = {comm} ] && grep -m1 ^{field} $p/{file}; done; true"
    );
    let ran = peer.host.sh(&script).ok();
    ran.stdout.lines().filter_map(|l| l.split_whitespace().nth(1)?.parse().ok()).collect()
}
