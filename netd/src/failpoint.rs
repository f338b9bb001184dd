//! Points at which a test lets this daemon die as by kill -9, or holds it up ([`davit_sys::failpoint`]).
//!
//! They stand before and after everything that outlives the process: a record, a commit, a change of the kernel, a kernel
//! setting, a bound port. Between two of them nothing is made or undone, so dying at each in turn is dying everywhere.
//! Builds without debug assertions have no points.

/// All points. One that is not in the list cannot be passed; one that nothing passes fails the tests.
pub const POINTS: &[&str] = &[
    // A sandbox's record.
    "journal.drafted",
    "journal.written",
    "journal.removing",
    "journal.removed",
    // A network's record.
    "store.committing",
    "store.committed",
    // Whatever the kernel is asked to change: links, addresses, routes, rules.
    "netlink.sending",
    "netlink.sent",
    // Whose forwarding is ours.
    "forwarding.noted",
    // Settings of the host.
    "sysctl.set",
    // Reservations.
    "port.bound",
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

/// Whether a test wants the kernel taken for one without a feature: no machine of ours lacks nf_tables.
pub fn lacks(feature: &str) -> bool {
    cfg!(debug_assertions) && davit_sys::failpoint::lacks(feature)
}
