//! Points at which a test lets this daemon die as by kill -9, or holds it up ([`davit_sys::failpoint`]).
//!
//! They stand behind everything that outlives the process: a record, a directory, a monitor, what a peer was asked for. Builds without
//! debug assertions have no points.

/// All points, in the order in which a container's life passes them. One that is not in the list cannot be passed; one that nothing
/// passes fails the tests.
pub const POINTS: &[&str] = &[
    // A start.
    "start.directories",
    "start.spawned",
    "start.wired",
    "start.created",
    "start.started",
    "record.saved",
    // A stop, and the end of the program.
    "stop.remembered",
    "stop.signalled",
    "exit.told",
    // A removal.
    "remove.marked",
    "remove.trashed",
    // What is undone after an end or a removal.
    "teardown.detached",
    "teardown.monitor",
    "teardown.run_dir",
    "teardown.storage",
    "teardown.done",
];

/// Passes a point.
#[cfg(debug_assertions)]
pub fn pass(name: &str) {
    debug_assert!(POINTS.contains(&name), "the point {name} is not in the list");
    davit_sys::failpoint::pass(name);
}

/// Passes a point.
#[cfg(not(debug_assertions))]
#[inline]
pub fn pass(_: &str) {}
