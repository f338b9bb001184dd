//! Points at which tests let a file system die in the middle of a change, or hold it up (see [`davit_sys::failpoint`]).

/// All points, by what passes them.
pub const POINTS: &[&str] = &[
    // Copying a file up.
    "copyup.made",
    "copyup.copied",
    "copyup.indexed",
    "copyup.placed",
    // Copying a directory up.
    "copydir.made",
    "copydir.marked",
    "copydir.placed",
    // Making something over a whiteout.
    "create.made",
    "create.placed",
    // Removing a name.
    "remove.whiteout",
    "remove.swapped",
    "remove.done",
    // Renaming.
    "rename.marked",
    "rename.cleared",
    "rename.moved",
    "rename.exchanged",
];

/// Passes a point.
#[cfg(debug_assertions)]
pub(crate) fn pass(name: &str) {
    debug_assert!(POINTS.contains(&name), "the point {name} is not in the list");
    davit_sys::failpoint::pass(name);
}

/// Passes a point.
#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn pass(_: &str) {}
