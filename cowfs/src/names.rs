//! File names in as little memory as they need: a length byte and the name, in slabs of a few widths.

use crate::slab::Slab;

/// The widths, length byte included. The longest name of Linux (255 bytes) fits the last.
const WIDTHS: [usize; 12] = [8, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256];

/// A name that is kept: which slab in the upper five bits, which item in the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct NameId(u32);

const ITEM_BITS: u32 = 27;

#[derive(Debug)]
pub(crate) struct Names(Vec<Slab<u8>>);

impl Names {
    pub(crate) fn new() -> Self {
        Self(WIDTHS.iter().map(|w| Slab::new(*w)).collect())
    }

    /// Keeps a name of at most 255 bytes.
    pub(crate) fn insert(&mut self, name: &[u8]) -> NameId {
        let class = WIDTHS.iter().position(|w| *w > name.len()).expect("a file name has at most 255 bytes");
        let item = self.0[class].insert();
        let room = self.0[class].get_mut(item);
        room[0] = name.len() as u8;
        room[1..=name.len()].copy_from_slice(name);
        NameId((class as u32) << ITEM_BITS | item)
    }

    pub(crate) fn get(&self, id: NameId) -> &[u8] {
        let room = self.0[(id.0 >> ITEM_BITS) as usize].get(id.0 & ((1 << ITEM_BITS) - 1));
        &room[1..=room[0] as usize]
    }

    pub(crate) fn remove(&mut self, id: NameId) {
        self.0[(id.0 >> ITEM_BITS) as usize].remove(id.0 & ((1 << ITEM_BITS) - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_lengths_come_back() {
        let mut names = Names::new();
        let all: Vec<Vec<u8>> = (0..=255usize).map(|n| vec![n as u8; n]).collect();
        let ids: Vec<NameId> = all.iter().map(|n| names.insert(n)).collect();
        for (name, id) in all.iter().zip(&ids) {
            assert_eq!(names.get(*id), name.as_slice());
        }
        for id in ids {
            names.remove(id);
        }
        assert!(names.0.iter().all(|s| s.len() == 0));
    }
}
