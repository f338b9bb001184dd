//! One change at a time to one inode's place: copying up, unlinking, renaming. Readers and writers of data do not come here.
//!
//! Order: a file before the directories above it, two inodes by number. Nothing takes a child's turn while it holds a parent's. Turns of
//! directories' times (`fs/times.rs`) are others, and come last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::types::Ino;

/// The inodes that are being changed.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    inner: Mutex<Inner>,
    freed: Condvar,
    /// How many inodes were marked as moving, and how many of the marks have been taken away. Written with `inner` held.
    marked: AtomicU64,
    unmarked: AtomicU64,
}

/// Inodes that have moved are remembered for so many.
const REMEMBERED: usize = 64;

#[derive(Debug, Default)]
struct Inner {
    /// Few: no more than two a thread.
    inos: Vec<Ino>,
    /// Those whose names are not where the table says, or soon will not be.
    moving: Vec<Ino>,
    /// Those that moved last: the `n`th at `n % REMEMBERED`.
    moved: Vec<Ino>,
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
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.moving.extend(inos);
        self.marked.fetch_add(inos.len() as u64, Ordering::SeqCst);
        Moving { busy: self, inos }
    }

    /// Now, for [`Self::has_moved_since`].
    pub(crate) fn moment(&self) -> u64 {
        self.unmarked.load(Ordering::SeqCst)
    }

    /// Whether any inode's names may have changed since then, or are changing.
    pub(crate) fn any_moved_since(&self, then: u64) -> bool {
        self.marked.load(Ordering::SeqCst) != then
    }

    /// Whether an inode's names may have changed since then, or are changing.
    pub(crate) fn has_moved_since(&self, ino: Ino, then: u64) -> bool {
        if !self.any_moved_since(then) {
            return false;
        }
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.moment();
        inner.moving.contains(&ino)
            || now - then > REMEMBERED as u64
            || (then..now).any(|n| inner.moved[n as usize % REMEMBERED] == ino)
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
            let number = self.busy.unmarked.fetch_add(1, Ordering::SeqCst) as usize % REMEMBERED;
            match inner.moved.get_mut(number) {
                Some(place) => *place = *ino,
                None => inner.moved.push(*ino),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_moved_since_a_moment_is_known() {
        let busy = Busy::default();
        let start = busy.moment();
        assert!(!busy.any_moved_since(start));
        let mark = busy.moving([7, 8]);
        let meanwhile = busy.moment();
        assert!(busy.has_moved_since(7, start) && busy.has_moved_since(8, meanwhile));
        assert!(busy.any_moved_since(start) && !busy.has_moved_since(9, start));
        drop(mark);
        let after = busy.moment();
        assert!(busy.has_moved_since(7, meanwhile) && !busy.has_moved_since(7, after));
        assert!(!busy.any_moved_since(after));
        for ino in 100..200 {
            drop(busy.moving([ino; 2]));
            assert!(busy.has_moved_since(7, start));
            assert!(busy.has_moved_since(ino, after));
        }
        let then = busy.moment();
        drop(busy.moving([300; 2]));
        assert!(busy.has_moved_since(300, then) && !busy.has_moved_since(199, then));
    }
}
