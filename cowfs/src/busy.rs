//! One change at a time to one inode's place: copying up, unlinking, renaming. Readers and writers of data do not come here.
//!
//! Order: a file before the directories above it, two inodes by number. Nothing takes a child's turn while it holds a parent's.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::types::Ino;

/// The inodes that are being changed.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    inner: Mutex<Inner>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    inos: HashSet<Ino>,
    /// Who waits: waking nobody costs a system call too.
    waiting: usize,
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
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        while inos.iter().any(|i| inner.inos.contains(i)) {
            inner.waiting += 1;
            inner = self.freed.wait(inner).unwrap_or_else(PoisonError::into_inner);
            inner.waiting -= 1;
        }
        inner.inos.extend(inos);
        Turn { busy: self, inos }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut inner = self.busy.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for ino in &self.inos {
            inner.inos.remove(ino);
        }
        let waiting = inner.waiting > 0;
        drop(inner);
        if waiting {
            self.busy.freed.notify_all();
        }
    }
}
