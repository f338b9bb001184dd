//! One contract for all snapshot drivers, and one for all snapshotters that speak containerd's snapshots service, ours among them.
//!
//! A driver is one line in [`drivers!`] below, a snapshotter one in [`snapshotters!`]. Trees are mounted in a mount namespace of the test's
//! own thread, as the monitor does it, and looked at there.
#![allow(clippy::unwrap_used)]

#[path = "host/private.rs"]
mod host;

#[path = "drivers/change.rs"]
mod change;
#[path = "drivers/clones.rs"]
mod clones;
#[path = "drivers/containerd.rs"]
mod containerd;
#[path = "drivers/contract.rs"]
mod contract;
#[path = "drivers/ctr.rs"]
mod ctr;
#[path = "drivers/image.rs"]
mod image;
#[path = "drivers/service.rs"]
mod service;
#[path = "drivers/subject.rs"]
mod subject;
#[path = "drivers/tree.rs"]
mod tree;

use subject::{Driver, Snapshots};

macro_rules! suite {
    ($suite:ident, $($name:ident = $subject:expr;)* => $tests:tt) => {
        $(mod $name {
            use super::*;
            suite!(@tests $suite, $subject, $tests);
        })*
    };
    (@tests $suite:ident, $subject:expr, { $($test:ident)* }) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            $suite::$test($subject.await).await;
        })*
    };
}

suite! { contract,
    overlay = Driver::local("overlay");
    fuse = Driver::local("fuse");
    copy = Driver::local("copy");
    proxy_native = Driver::of_containerd("native");
    proxy_overlayfs = Driver::of_containerd("overlayfs");
    proxy_davit = Driver::of_davit("overlay");
    proxy_davit_fuse = Driver::of_davit("fuse");
    => {
        a_snapshot_lives_from_prepare_to_remove
        whiteouts_and_opaque_directories_hide_what_is_below
        everything_that_a_file_has_is_there
        an_image_of_128_layers_is_one_tree
        concurrent_prepares_do_not_disturb_one_another
        a_view_is_read_only
        a_kill_in_the_middle_leaves_nothing
        a_clone_begins_as_its_source_and_goes_its_own_way
        images_go_with_what_was_made_for_them
    }
}

suite! { service,
    containerd_native = Snapshots::of_containerd("native");
    containerd_overlayfs = Snapshots::of_containerd("overlayfs");
    served_overlay = Snapshots::of_davit("overlay");
    served_fuse = Snapshots::of_davit("fuse");
    served_copy = Snapshots::of_davit("copy");
    => {
        kinds_follow_one_another
        what_is_deleted_above_is_there_below
        a_chain_of_128_is_one_tree
        removal_with_children_is_refused
        labels_are_kept_changed_and_found
        wrong_calls_have_the_codes_that_containerd_knows
        concurrent_prepares_of_one_key_have_one_winner
        everything_survives_a_restart
        everything_that_a_file_has_is_inherited
    }
}
