//! Open descriptors, kept for the next request and closed least recently used first: an inode has no descriptor of its own, because a
//! million inodes would need a million.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::table::{Fd, LayerNo};
use crate::types::Ino;

/// What is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A directory of a layer.
    Dir(Ino, LayerNo),
    /// A file's data, for reading at least.
    File(Ino),
}

#[derive(Debug)]
struct Entry {
    key: Key,
    fd: Fd,
    writable: bool,
    used: bool,
}

/// A cache with the clock's approximation of least recently used.
#[derive(Debug)]
pub(crate) struct Fds {
    inner: Mutex<Clock>,
}

#[derive(Debug)]
struct Clock {
    at: HashMap<Key, usize>,
    ring: Vec<Entry>,
    hand: usize,
    room: usize,
}

impl Fds {
    pub(crate) fn new(room: usize) -> Self {
        let clock = Clock { at: HashMap::new(), ring: Vec::new(), hand: 0, room: room.max(16) };
        Self { inner: Mutex::new(clock) }
    }

    fn lock(&self) -> MutexGuard<'_, Clock> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A descriptor, for writing if `write`.
    pub(crate) fn get(&self, key: Key, write: bool) -> Option<Fd> {
        let mut clock = self.lock();
        let at = *clock.at.get(&key)?;
        let entry = &mut clock.ring[at];
        if write && !entry.writable {
            return None;
        }
        entry.used = true;
        Some(Arc::clone(&entry.fd))
    }

    /// Keeps a descriptor. Answers the one that it displaces, to be closed when no lock is held.
    pub(crate) fn put(&self, key: Key, fd: Fd, writable: bool) -> Option<Fd> {
        let displaced = {
            let mut clock = self.lock();
            let entry = Entry { key, fd, writable, used: true };
            if let Some(at) = clock.at.get(&key).copied() {
                Some(std::mem::replace(&mut clock.ring[at], entry))
            } else if clock.ring.len() < clock.room {
                let at = clock.ring.len();
                clock.at.insert(key, at);
                clock.ring.push(entry);
                None
            } else {
                let at = clock.victim();
                let old = std::mem::replace(&mut clock.ring[at], entry);
                clock.at.remove(&old.key);
                clock.at.insert(key, at);
                Some(old)
            }
        };
        displaced.map(|entry| entry.fd)
    }

    /// Closes what is open under these keys.
    pub(crate) fn remove(&self, keys: impl IntoIterator<Item = Key>) {
        let mut closed = Vec::new();
        let mut clock = self.lock();
        closed.extend(keys.into_iter().filter_map(|key| clock.remove(key)));
        drop(clock);
    }

    /// Closes the directories of these inodes in all layers.
    pub(crate) fn remove_dirs(&self, inos: &[Ino]) {
        let keys: Vec<Key> = {
            let clock = self.lock();
            clock.at.keys().filter(|k| matches!(k, Key::Dir(i, _) if inos.contains(i))).copied().collect()
        };
        self.remove(keys);
    }

    /// Closes half of all, because the process or the system has run out.
    pub(crate) fn halve(&self) {
        let mut closed = Vec::new();
        let mut clock = self.lock();
        for _ in 0..clock.ring.len().div_ceil(2) {
            let at = clock.victim();
            let key = clock.ring[at].key;
            closed.extend(clock.remove(key));
        }
        drop(clock);
    }
}

impl Clock {
    fn victim(&mut self) -> usize {
        loop {
            self.hand = (self.hand + 1) % self.ring.len();
            if !std::mem::take(&mut self.ring[self.hand].used) {
                return self.hand;
            }
        }
    }

    fn remove(&mut self, key: Key) -> Option<Entry> {
        let at = self.at.remove(&key)?;
        let entry = self.ring.swap_remove(at);
        if let Some(moved) = self.ring.get(at) {
            self.at.insert(moved.key, at);
        }
        if self.ring.is_empty() {
            self.at.shrink_to_fit();
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd() -> Fd {
        Arc::new(std::fs::File::open("/dev/null").unwrap().into())
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let fds = Fds::new(16);
        for ino in 0..16 {
            fds.put(Key::File(ino), fd(), false);
        }
        fds.put(Key::File(100), fd(), false); // the hand goes round once: all marks are gone
        let kept = (0..16).find(|i| fds.get(Key::File(*i), false).is_some()).unwrap();
        for ino in 200..214 {
            fds.put(Key::File(ino), fd(), false);
        }
        assert!(fds.get(Key::File(kept), false).is_some(), "it was used meanwhile");
        assert!(fds.get(Key::File(213), true).is_none(), "not open for writing");
        fds.halve();
        assert_eq!(fds.lock().ring.len(), 8);
        fds.remove((0..300).map(Key::File));
        assert!(fds.lock().at.is_empty());
    }
}
