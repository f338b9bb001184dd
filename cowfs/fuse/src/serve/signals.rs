//! SIGTERM, SIGINT and SIGHUP end the mount.

use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use crate::mount::Place;

/// How long users of the mount may go on with what they have open.
const GRACE: Duration = Duration::from_secs(2);

/// The signals, kept back from the serving threads.
pub(super) struct Stop {
    set: SigSet,
}

impl Stop {
    /// Keeps them back in this thread and all that it starts.
    pub(super) fn block() -> Self {
        let set = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
        set.thread_block().expect("blocking signals takes valid arguments only");
        Self { set }
    }

    /// Waits for one on a thread of its own, then unmounts. What is cached is written while the mount is still served; with its last user the
    /// mount ends and with it the process. Users that stay are cut off.
    pub(super) fn watch(self, place: Place) {
        let wait = move || {
            let _ = self.set.wait();
            place.flush();
            if let Err(e) = place.detach() {
                tracing::debug!(error = &e as &dyn std::error::Error, "unmounted by somebody else");
            }
            std::thread::sleep(GRACE);
            std::process::exit(0);
        };
        // Without it the signals do nothing, and umount(8) still works.
        if let Err(e) = std::thread::Builder::new().name("signals".into()).spawn(wait) {
            tracing::warn!(error = %e, "signals will not unmount");
        }
    }
}
