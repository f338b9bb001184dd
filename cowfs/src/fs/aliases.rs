//! Copies of lower files that have no room for a note of their origin: symbolic links, pipes and devices in the `user.` namespace
//! (xattr(7)), and everything where file systems have no file handles.
//!
//! The kernel knows such a file by the number that the lower layer gave it. As long as it does, the copy has to be found by that number:
//! otherwise its names would be another file's, and what happens to them would be lost on it. Once it is forgotten, it is shown with the
//! number that it has in the upper layer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::types::Ino;

/// Which number is shown for which of the upper layer.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    /// There has been one: most file systems never have any.
    any: AtomicBool,
    both: Mutex<Both>,
}

#[derive(Debug, Default)]
struct Both {
    shown: HashMap<Ino, Ino>,
    raw: HashMap<Ino, Ino>,
}

impl Aliases {
    /// Notes a copy, before others can find it.
    pub(super) fn insert(&self, raw: Ino, shown: Ino) {
        let mut both = self.lock();
        both.shown.insert(raw, shown);
        if let Some(before) = both.raw.insert(shown, raw)
            && before != raw
        {
            both.shown.remove(&before); // copied again, with its data
        }
        self.any.store(true, Ordering::Release);
    }

    /// The number that is shown for one of the upper layer.
    pub(super) fn of(&self, raw: Ino) -> Ino {
        if !self.any.load(Ordering::Acquire) {
            return raw;
        }
        self.lock().shown.get(&raw).copied().unwrap_or(raw)
    }

    /// Forgets what nobody knows any more.
    pub(super) fn forget(&self, inos: &[Ino]) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut both = self.lock();
        for ino in inos {
            if let Some(raw) = both.raw.remove(ino) {
                both.shown.remove(&raw);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Both> {
        self.both.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_lasts_as_long_as_its_inode_is_known() {
        let aliases = Aliases::default();
        assert_eq!(aliases.of(50), 50);
        aliases.insert(50, 5);
        assert_eq!((aliases.of(50), aliases.of(51)), (5, 51));
        aliases.insert(51, 5);
        assert_eq!((aliases.of(50), aliases.of(51)), (50, 5));
        aliases.forget(&[4, 5, 6]);
        assert_eq!(aliases.of(51), 51);
    }
}
