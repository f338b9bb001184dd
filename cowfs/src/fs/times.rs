//! Directories' times, while names come and go in them.
//!
//! Copying a file up gives its directory in the upper a name that the directory has had all along: its time is put back.
//! ```text
//! copying up            turn ─ time? ─ rename ─ time put back ─ turn over
//! names, utimensat(2)                                            turn ─ change ─ turn over
//! stat(2)                              asked in between: again, in turn
//! ```
//! So a time that is set is not put back over, nor one that a new name has moved; and nobody takes the time in between for the directory's,
//! which the kernel would keep for ever. Whoever has such a turn waits for nothing else, so that it may be taken with any other in hand.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use rustix::fs::{Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::CowFs;
use super::attributes::UTIME_OMIT;
use super::find::is_dir;
use crate::at::At;
use crate::busy::{Busy, Turn};
use crate::table::Fd;
use crate::types::Ino;

/// Whose times are being changed.
#[derive(Debug, Default)]
pub(super) struct Times {
    turns: Busy,
    /// How often a time was about to move,
    begun: AtomicU64,
    /// and how often it had been put back.
    ended: AtomicU64,
}

/// A time that will be put back.
struct Moved<'a>(&'a Times);

impl<'a> Moved<'a> {
    fn new(times: &'a Times) -> Self {
        times.begun.fetch_add(1, Ordering::SeqCst);
        Self(times)
    }
}

impl Drop for Moved<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// A moment, for those who ask whether a time was being put back since then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment(u64);

impl CowFs {
    /// The turn of those who change names in these directories or the directories' times. Its holder waits for nothing else.
    pub(super) fn times_turn(&self, dirs: [Ino; 2]) -> Turn<'_> {
        self.times.turns.turns(dirs)
    }

    /// Makes a name in a directory of the upper where one is seen already: its time stays.
    pub(super) fn unseen(
        &self,
        (dir, fd): (Ino, &Fd),
        make: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let _turn = self.times_turn([dir; 2]);
        let before = rustix::fs::fstat(fd)?;
        let _moved = Moved::new(&self.times);
        make()?;
        let modified = Timespec { tv_sec: before.st_mtime, tv_nsec: before.st_mtime_nsec as i64 };
        let accessed = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: accessed, last_modification: modified };
        let _ = At::Fd(Fd::clone(fd)).utimens(&times);
        Ok(())
    }

    /// Now.
    pub(super) fn moment(&self) -> Moment {
        Moment(self.times.ended.load(Ordering::SeqCst))
    }

    /// Whether some directory's time was not its own at any time since.
    pub(super) fn times_moved_since(&self, then: Moment) -> bool {
        fence(Ordering::SeqCst); // what was asked since was asked before this
        self.times.begun.load(Ordering::SeqCst) != then.0
    }

    /// Asks for the attributes of an inode's object; of a directory again in its turn, if its time may have been about to be put back. The
    /// caller has no such turn.
    pub(super) fn stat_settled(&self, ino: Ino, at: &At) -> Result<Stat, Errno> {
        let then = self.moment();
        let stat = at.stat()?;
        if !is_dir(&stat) || !self.times_moved_since(then) {
            return Ok(stat);
        }
        let _turn = self.times_turn([ino; 2]);
        at.stat()
    }
}
