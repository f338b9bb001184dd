//! One change at a time to one inode's place: copying up, unlinking, renaming. Readers and writers of data do not come here.
//!
//! Order: a file before the directories above it, two inodes by number. Nothing takes a child's turn while it holds a parent's. Turns of
//! directories' times (`fs/times.rs`) are others, and come last.

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
    /// Few: no more than two a thread.
    inos: Vec<Ino>,
    /// Those whose names are not where the table says, or soon will not be.
    moving: Vec<Ino>,
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
        let both = if inos[0] == inos[1] { &inos[..1] } else { &inos[..] };
        inner.inos.extend_from_slice(both);
        Turn { busy: self, inos }
    }
}

/// Inodes whose names change, until it is dropped.
#[derive(Debug)]
pub(crate) struct Moving<'a> {
    busy: &'a Busy,
    inos: [Ino; 2],
}

impl Busy {
    /// Marks inodes from before a change of their names on the disk until after it is in the table. The caller has their turn.
    pub(crate) fn moving(&self, inos: [Ino; 2]) -> Moving<'_> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).moving.extend(inos);
        Moving { busy: self, inos }
    }

    /// Waits while the names of an inode change. Answers whether they did: what one of them led to just now may have been another file.
    pub(crate) fn has_moved(&self, ino: Ino) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut moved = false;
        while inner.moving.contains(&ino) {
            moved = true;
            inner.waiting += 1;
            inner = self.freed.wait(inner).unwrap_or_else(PoisonError::into_inner);
            inner.waiting -= 1;
        }
        moved
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        let mut inner = self.busy.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for ino in &self.inos {
            if let Some(at) = inner.moving.iter().position(|i| i == ino) {
                inner.moving.swap_remove(at);
            }
        }
        let waiting = inner.waiting > 0;
        drop(inner);
        if waiting {
            self.busy.freed.notify_all();
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut inner = self.busy.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for ino in &self.inos {
            if let Some(at) = inner.inos.iter().position(|i| i == ino) {
                inner.inos.swap_remove(at);
            }
        }
        let waiting = inner.waiting > 0;
        drop(inner);
        if waiting {
            self.busy.freed.notify_all();
        }
    }
}
