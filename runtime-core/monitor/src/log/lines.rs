//! Cuts a stream of bytes into lines, and lines that are too long into pieces.

/// docker's copier splits longer lines; readers join pieces because a piece has no newline at its end.
pub const LONGEST: usize = 16 << 10;

/// One stream's unfinished line.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    /// After a gap: the rest of a line whose beginning is missing is left out, up to so many bytes.
    skip: usize,
}

impl Lines {
    /// Bytes are missing here, up to the end of a line (`whole`) or not: answers how many belong to a line that is not whole any more.
    pub fn gap(&mut self, whole: bool) -> u64 {
        self.skip = if whole { 0 } else { LONGEST };
        std::mem::take(&mut self.partial).len() as u64
    }

    /// Takes bytes and calls `emit` with every finished line (its newline included) and every full piece; answers how many bytes were left
    /// out after a gap.
    pub fn push(&mut self, mut data: &[u8], mut emit: impl FnMut(&[u8])) -> u64 {
        let mut skipped = 0;
        if self.skip > 0 {
            let window = &data[..data.len().min(self.skip)];
            let end = window.iter().position(|b| *b == b'\n').map(|at| at + 1);
            skipped = end.unwrap_or(window.len());
            self.skip = if end.is_some() { 0 } else { self.skip - skipped };
            data = &data[skipped..];
        }
        while !data.is_empty() {
            let room = LONGEST - self.partial.len();
            let window = &data[..data.len().min(room)];
            let end = window.iter().position(|b| *b == b'\n').map(|at| at + 1);
            let taken = end.unwrap_or(window.len());
            if self.partial.is_empty() && (end.is_some() || taken == LONGEST) {
                let cut = if end.is_some() { taken } else { whole_characters(&data[..taken]) };
                emit(&data[..cut]);
                data = &data[cut..];
                continue;
            }
            self.partial.extend_from_slice(&data[..taken]);
            data = &data[taken..];
            if end.is_some() {
                emit(&self.partial);
                self.partial.clear();
            } else if self.partial.len() == LONGEST {
                let cut = whole_characters(&self.partial);
                emit(&self.partial[..cut]);
                self.partial.drain(..cut);
            }
        }
        skipped as u64
    }

    /// Gives what is left of a line that never got its newline.
    pub fn finish(&mut self, emit: impl FnOnce(&[u8])) {
        if !self.partial.is_empty() {
            emit(&self.partial);
            self.partial = Vec::new();
        }
    }

    /// Gives spare memory back.
    pub fn shrink(&mut self) {
        self.partial.shrink_to_fit();
    }
}

/// The length of `piece` without a UTF-8 character that its end cuts in two: each half would become a replacement character.
fn whole_characters(piece: &[u8]) -> usize {
    let tail = piece.len().saturating_sub(3);
    for at in (tail..piece.len()).rev() {
        let needed = match piece[at] {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        return if at + needed > piece.len() { at } else { piece.len() };
    }
    piece.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for chunk in chunks {
            lines.push(chunk, |l| out.push(l.to_vec()));
        }
        lines.finish(|l| out.push(l.to_vec()));
        out
    }

    #[test]
    fn after_a_gap_the_next_whole_line_comes_first() {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        lines.push(b"whole\nbegin", |l| out.push(l.to_vec()));
        assert_eq!(lines.gap(false), 5);
        assert_eq!(lines.push(b"rest of an", |l| out.push(l.to_vec())), 10);
        assert_eq!(lines.push(b"other\nnext\n", |l| out.push(l.to_vec())), 6);
        assert_eq!(lines.gap(true), 0);
        assert_eq!(lines.push(b"last\n", |l| out.push(l.to_vec())), 0);
        assert_eq!(out, [&b"whole\n"[..], b"next\n", b"last\n"]);
        lines.gap(false);
        let long = vec![b'x'; LONGEST + 1];
        assert_eq!(lines.push(&long, |l| out.push(l.to_vec())), LONGEST as u64, "no line end for ever");
    }

    #[test]
    fn lines_are_joined_over_chunks() {
        assert_eq!(cut(&[b"a\nb", b"c", b"\n\nd"]), [&b"a\n"[..], b"bc\n", b"\n", b"d"]);
    }

    #[test]
    fn long_lines_are_split_at_the_bound_however_they_arrive() {
        let long = vec![b'x'; LONGEST * 2 + 5];
        let whole = cut(&[&long, b"\n"]);
        assert_eq!(whole.iter().map(Vec::len).collect::<Vec<_>>(), [LONGEST, LONGEST, 6]);
        let pieces: Vec<&[u8]> = long.chunks(1000).chain([&b"\n"[..]]).collect();
        assert_eq!(cut(&pieces), whole);
    }

    #[test]
    fn a_character_is_not_cut_in_two() {
        let mut long = vec![b'x'; LONGEST - 1];
        long.extend_from_slice("é\n".as_bytes());
        let out = cut(&[&long]);
        assert_eq!(out[0].len(), LONGEST - 1);
        assert_eq!(out[1], "é\n".as_bytes());
        // Bytes that are no UTF-8 at all are still split at the bound.
        assert_eq!(cut(&[&vec![0x80; LONGEST + 1]])[0].len(), LONGEST);
    }
}
