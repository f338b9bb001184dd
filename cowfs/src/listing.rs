//! Which of its lower layers hold a name of a directory.
//!
//! Every layer is another system call for each name that is looked up, and most have not got it. Once a directory has been asked for
//! several names, the names that its lower layers have are read: those layers do not change. Only hashes are kept: a name that shares one
//! with another is looked for where it is not, and nothing is missed.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::table::{LayerNo, UPPER};

/// Layers that may have a name. Those from 63 on are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layers(u64);

impl Layers {
    /// Nothing is known of the name.
    pub(crate) const ANY: Self = Self(u64::MAX);

    fn one(layer: LayerNo) -> u64 {
        1 << layer.min(63)
    }

    /// Of the upper, nothing is ever known: it changes.
    pub(crate) fn may_have(self, layer: LayerNo) -> bool {
        layer == UPPER || self.0 & Self::one(layer) != 0
    }
}

/// Hashes names.
#[derive(Debug, Default)]
pub(crate) struct Hasher(RandomState);

/// A name's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NameHash(u64);

impl Hasher {
    pub(crate) fn hash(&self, name: &[u8]) -> NameHash {
        NameHash(self.0.hash_one(name))
    }
}

/// What the lower layers of a directory hold.
#[derive(Debug, Default)]
pub(crate) struct Listing(HashTable<(NameHash, u64)>);

impl Listing {
    /// Notes that a layer has a name.
    pub(crate) fn add(&mut self, name: NameHash, layer: LayerNo) {
        let bit = Layers::one(layer);
        match self.0.entry(name.0, |(known, _)| *known == name, |(known, _)| known.0) {
            Entry::Occupied(mut known) => known.get_mut().1 |= bit,
            Entry::Vacant(free) => {
                free.insert((name, bit));
            }
        }
    }

    /// Names, or as good as.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn layers(&self, name: NameHash) -> Layers {
        Layers(self.0.find(name.0, |(known, _)| *known == name).map_or(0, |(_, layers)| *layers))
    }

    pub(crate) fn shrink(&mut self) {
        self.0.shrink_to_fit(|(known, _)| known.0);
    }
}

/// How often a directory's lower layers were asked, and what that has led to.
#[derive(Debug, Default, Clone)]
pub(crate) struct Asked {
    times: u32,
    listing: Option<Arc<Listing>>,
}

impl Asked {
    /// The layers that may have a name; and of how many names at most the layers are to be read now. Each time it would be more, so that
    /// reading costs about as much as asking has cost.
    pub(crate) fn ask(&mut self, name: NameHash, lowers: usize) -> (Layers, Option<usize>) {
        const AT: [u32; 3] = [16, 256, 4096];
        if let Some(listing) = &self.listing {
            return (listing.layers(name), None);
        }
        let before = self.times;
        self.times = before.saturating_add(lowers as u32);
        let due = AT.into_iter().find(|at| before < *at && *at <= self.times);
        (Layers::ANY, due.map(|at| 16 * at as usize))
    }

    /// Answers how many names were listed before.
    pub(crate) fn answer(&mut self, listing: Listing) -> usize {
        self.listing.replace(Arc::new(listing)).map_or(0, |l| l.len())
    }

    /// Answers how many names were listed.
    pub(crate) fn forget(&mut self) -> usize {
        std::mem::take(self).listing.map_or(0, |l| l.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_where_it_was_seen_and_nowhere_else() {
        let hasher = Hasher::default();
        let (a, b) = (hasher.hash(b"a"), hasher.hash(b"b"));
        let mut listing = Listing::default();
        listing.add(a, 2);
        listing.add(a, 400);
        listing.shrink();
        let layers = listing.layers(a);
        let has = |l| layers.may_have(l);
        assert_eq!(
            [0, 1, 2, 3, 62, 63, 64, 400].map(has),
            [true, false, true, false, false, true, true, true]
        );
        assert!(!listing.layers(b).may_have(2));
        assert!(listing.layers(b).may_have(UPPER));
    }

    #[test]
    fn the_more_a_directory_is_asked_the_more_of_it_is_read() {
        let name = Hasher::default().hash(b"n");
        let mut asked = Asked::default();
        let due: Vec<usize> = (0..2000).filter_map(|_| asked.ask(name, 3).1).collect();
        assert_eq!(due, [256, 4096, 65536]);
        asked.answer(Listing::default());
        assert!(!asked.ask(name, 3).0.may_have(1));
    }
}
