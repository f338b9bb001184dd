//! Points at which a test lets this daemon die as by a power cut, or holds it up ([`davit_sys::failpoint`]).
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
    "snapshot.copied",
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
    davit_sys::failpoint::pass(name);
}

/// Passes a point.
#[cfg(not(debug_assertions))]
#[inline]
pub fn pass(_: &str) {}
