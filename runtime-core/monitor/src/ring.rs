//! The last 64 KiB of a program's output, kept for clients that attach later.
//!
//! Memory grows with what was written and stops at the bound; a silent program costs nothing.

use std::collections::VecDeque;

/// Bytes kept.
pub const CAPACITY: usize = 64 << 10;

/// The last output bytes with their streams.
#[derive(Debug, Default)]
pub struct Ring {
    bytes: VecDeque<u8>,
    /// Runs of one stream, oldest first: is it stdout, and its length. The lengths sum up to `bytes.len()`.
    runs: VecDeque<(bool, u32)>,
}

impl Ring {
    /// Adds output; the oldest bytes over the bound are forgotten.
    pub fn push(&mut self, stdout: bool, data: &[u8]) {
        let data = &data[data.len().saturating_sub(CAPACITY)..];
        let excess = (self.bytes.len() + data.len()).saturating_sub(CAPACITY);
        self.forget(excess);
        // Doubling would end at twice the bound where the last step is uneven.
        let wanted = (self.bytes.len() + data.len()).next_power_of_two().min(CAPACITY);
        if self.bytes.capacity() < wanted {
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend(data);
        match self.runs.back_mut() {
            Some((stream, length)) if *stream == stdout => *length += data.len() as u32,
            _ => self.runs.push_back((stdout, data.len() as u32)),
        }
    }

    /// Calls `f` with each run in order, in pieces.
    pub fn for_each(&self, mut f: impl FnMut(bool, &[u8])) {
        let (mut front, mut back) = self.bytes.as_slices();
        for (stdout, length) in &self.runs {
            let mut left = *length as usize;
            while left > 0 {
                if front.is_empty() {
                    front = std::mem::take(&mut back);
                }
                let (piece, rest) = front.split_at(left.min(front.len()));
                f(*stdout, piece);
                left -= piece.len();
                front = rest;
            }
        }
    }

    fn forget(&mut self, mut count: usize) {
        self.bytes.drain(..count.min(self.bytes.len()));
        while count > 0 {
            let Some((_, length)) = self.runs.front_mut() else { break };
            let cut = count.min(*length as usize);
            *length -= cut as u32;
            count -= cut;
            if *length == 0 {
                self.runs.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(ring: &Ring) -> Vec<(bool, Vec<u8>)> {
        let mut out: Vec<(bool, Vec<u8>)> = Vec::new();
        ring.for_each(|s, d| match out.last_mut() {
            Some((stream, bytes)) if *stream == s => bytes.extend_from_slice(d),
            _ => out.push((s, d.to_vec())),
        });
        out
    }

    #[test]
    fn streams_keep_their_order() {
        let mut r = Ring::default();
        r.push(true, b"a");
        r.push(true, b"b");
        r.push(false, b"c");
        r.push(true, b"d");
        assert_eq!(content(&r), [(true, b"ab".to_vec()), (false, b"c".to_vec()), (true, b"d".to_vec())]);
    }

    #[test]
    fn the_newest_bytes_stay_within_the_bound() {
        let mut r = Ring::default();
        for n in 0..300u32 {
            let data = vec![n as u8; 1000];
            r.push(n % 2 == 0, &data);
        }
        let all = content(&r);
        let total: usize = all.iter().map(|(_, d)| d.len()).sum();
        assert_eq!(total, CAPACITY);
        let (stream, last) = all.last().unwrap();
        assert!(!stream && last == &vec![299u32 as u8; 1000]);
        assert!(r.bytes.capacity() <= CAPACITY + 1);
        r.push(true, &vec![1; 200_000]);
        assert_eq!(content(&r), [(true, vec![1; CAPACITY])]);
    }
}
