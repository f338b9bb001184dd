//! One change at a time to one inode's place: copying up, unlinking, renaming. Readers and writers of data do not come here.
//!
//! Order: a file before the directories above it, two inodes by number. Nothing takes a child's turn while it holds a parent's.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::types::Ino;

/// The inodes that are being changed.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    inos: Mutex<HashSet<Ino>>,
    freed: Condvar,
}

/// The turn of some inodes, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    busy: &'a Busy,
    inos: [Ino; 2],
}

impl Busy {
    /// Waits until nobody changes `ino`, and takes it.
    pub(crate) fn turn(&self, ino: Ino) -> Turn<'_> {
        self.turns([ino, ino])
    }

    /// The same of two.
    pub(crate) fn turns(&self, mut inos: [Ino; 2]) -> Turn<'_> {
        inos.sort_unstable();
        let mut set = self.inos.lock().unwrap_or_else(PoisonError::into_inner);
        while inos.iter().any(|i| set.contains(i)) {
            set = self.freed.wait(set).unwrap_or_else(PoisonError::into_inner);
        }
        set.extend(inos);
        Turn { busy: self, inos }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut set = self.busy.inos.lock().unwrap_or_else(PoisonError::into_inner);
        for ino in &self.inos {
            set.remove(ino);
        }
        drop(set);
        self.busy.freed.notify_all();
    }
}
