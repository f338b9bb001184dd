//! A slab of equal items in chunks that are given back when empty: a million inodes must leave nothing behind once the kernel forgets
//! them, whatever order it forgets them in.

/// Items of a chunk.
const PER: usize = 4096;

/// Items of `width` values of `T` each, named by a number.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    width: usize,
    chunks: Vec<Option<Chunk<T>>>,
    /// Chunks with room, the next to use last. May name chunks that have been given back.
    roomy: Vec<u32>,
    /// Chunk numbers without a chunk.
    absent: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct Chunk<T> {
    items: Box<[T]>,
    free: [u64; PER / 64],
    used: u32,
    listed: bool,
}

impl<T: Copy + Default> Slab<T> {
    pub(crate) fn new(width: usize) -> Self {
        Self { width, chunks: Vec::new(), roomy: Vec::new(), absent: Vec::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A new item, all default values.
    pub(crate) fn insert(&mut self) -> u32 {
        let number = loop {
            let Some(number) = self.roomy.last().copied() else { break self.new_chunk() };
            if self.chunks[number as usize].is_some() {
                break number;
            }
            self.roomy.pop();
        };
        let chunk = self.chunks[number as usize].as_mut().expect("a roomy chunk is there");
        let word = chunk.free.iter().position(|w| *w != 0).expect("a listed chunk has room");
        let bit = chunk.free[word].trailing_zeros() as usize;
        chunk.free[word] &= !(1 << bit);
        chunk.used += 1;
        if chunk.used as usize == PER {
            chunk.listed = false;
            self.roomy.pop();
        }
        self.len += 1;
        number * PER as u32 + (word * 64 + bit) as u32
    }

    fn new_chunk(&mut self) -> u32 {
        let chunk = Chunk {
            items: vec![T::default(); PER * self.width].into_boxed_slice(),
            free: [u64::MAX; PER / 64],
            used: 0,
            listed: true,
        };
        let number = if let Some(number) = self.absent.pop() {
            self.chunks[number as usize] = Some(chunk);
            number
        } else {
            self.chunks.push(Some(chunk));
            (self.chunks.len() - 1) as u32
        };
        self.roomy.push(number);
        number
    }

    pub(crate) fn remove(&mut self, item: u32) {
        let (number, at) = (item / PER as u32, item as usize % PER);
        let chunk = self.chunks[number as usize].as_mut().expect("the item is there");
        debug_assert!(chunk.free[at / 64] & (1 << (at % 64)) == 0, "removed twice");
        chunk.free[at / 64] |= 1 << (at % 64);
        chunk.used -= 1;
        self.len -= 1;
        if chunk.used == 0 {
            if chunk.listed {
                self.roomy.retain(|n| *n != number);
            }
            self.chunks[number as usize] = None;
            self.absent.push(number);
        } else if !chunk.listed {
            chunk.listed = true;
            self.roomy.push(number);
        }
    }

    pub(crate) fn get(&self, item: u32) -> &[T] {
        let chunk = self.chunks[item as usize / PER].as_ref().expect("the item is there");
        let from = item as usize % PER * self.width;
        &chunk.items[from..from + self.width]
    }

    pub(crate) fn get_mut(&mut self, item: u32) -> &mut [T] {
        let chunk = self.chunks[item as usize / PER].as_mut().expect("the item is there");
        let from = item as usize % PER * self.width;
        &mut chunk.items[from..from + self.width]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_values_and_chunks_are_given_back() {
        let mut slab = Slab::<u64>::new(2);
        let items: Vec<u32> = (0..5000u64)
            .map(|n| {
                let item = slab.insert();
                slab.get_mut(item).copy_from_slice(&[n, n * 2]);
                item
            })
            .collect();
        for (n, item) in items.iter().enumerate() {
            assert_eq!(slab.get(*item), [n as u64, n as u64 * 2]);
        }
        for item in items.iter().filter(|i| *i % 3 == 0) {
            slab.remove(*item);
        }
        let again = slab.insert();
        assert!(items.contains(&again), "room is used again");
        for item in items.iter().filter(|i| *i % 3 != 0) {
            slab.remove(*item);
        }
        assert_eq!(slab.len(), 1);
        assert_eq!(slab.chunks.iter().flatten().count(), 1);
        slab.remove(again);
        assert_eq!(slab.chunks.iter().flatten().count(), 0);
    }
}
