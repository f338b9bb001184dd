//! The key sequence that detaches from a container, and its recognition in a stream of input.

/// `ctrl-p,ctrl-q` and the like: single characters or `ctrl-` with a letter or one of `@[\]^_`.
pub fn detach_keys(text: &str) -> Result<Vec<u8>, String> {
    let bad = |part: &str| {
        format!("'{part}' is not a key: a single character or ctrl-LETTER is expected, such as ctrl-p,ctrl-q")
    };
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let key = |part: &str| match part.as_bytes() {
        [one] if one.is_ascii() => Ok(*one),
        _ => {
            let lower = part.to_ascii_lowercase();
            match lower.strip_prefix("ctrl-").map(str::as_bytes) {
                Some([c @ b'a'..=b'z']) => Ok(c - b'a' + 1),
                Some([c @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]) => Ok(c - b'@'),
                _ => Err(bad(part)),
            }
        }
    };
    text.split(',').map(key).collect()
}

/// Watches input for the sequence. Bytes that may begin it are held back until it is clear that they do not.
#[derive(Debug)]
pub struct Matcher {
    keys: Vec<u8>,
    matched: usize,
}

impl Matcher {
    /// An empty sequence never matches.
    pub fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// Appends to `out` what is for the program; true when the sequence was completed, and the rest of `input` is dropped.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
        if self.keys.is_empty() {
            out.extend_from_slice(input);
            return false;
        }
        for byte in input {
            // On a mismatch the longest tail of what is held that still begins the sequence stays held (Knuth-Morris-Pratt, by trying).
            while self.matched > 0 && self.keys[self.matched] != *byte {
                let keep = (0..self.matched)
                    .rev()
                    .find(|n| self.keys[..*n] == self.keys[self.matched - n..self.matched])
                    .unwrap_or(0);
                out.extend_from_slice(&self.keys[..self.matched - keep]);
                self.matched = keep;
            }
            if self.keys[self.matched] == *byte {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return true;
                }
            } else {
                out.push(*byte);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_understood() {
        assert_eq!(detach_keys("ctrl-p,ctrl-q"), Ok(vec![16, 17]));
        assert_eq!(detach_keys("a,CTRL-@,ctrl-_"), Ok(vec![b'a', 0, 31]));
        for bad in ["ctrl-", "ctrl-1", "ab", "a,,b", "é"] {
            assert!(detach_keys(bad).is_err(), "{bad}");
        }
    }

    fn run(chunks: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut m = Matcher::new(vec![16, 17]);
        let mut out = Vec::new();
        let hit = chunks.iter().any(|c| m.feed(c, &mut out));
        (out, hit)
    }

    #[test]
    fn the_sequence_is_found_across_reads_and_false_starts_pass() {
        assert_eq!(run(&[b"ab\x10", b"\x11cd"]), (b"ab".to_vec(), true));
        assert_eq!(run(&[b"\x10x\x11"]), (b"\x10x\x11".to_vec(), false));
        assert_eq!(run(&[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
    }

    proptest! {
        #[test]
        fn what_is_not_the_sequence_comes_through(input in proptest::collection::vec(0u8..3, 0..40)) {
            let keys = vec![0, 1, 0, 2];
            let mut m = Matcher::new(keys.clone());
            let mut out = Vec::new();
            let hit = m.feed(&input, &mut out);
            let at = input.windows(4).position(|w| w == keys);
            prop_assert_eq!(hit, at.is_some());
            if let Some(at) = at {
                prop_assert_eq!(&out[..], &input[..at]);
            } else {
                prop_assert!(input.starts_with(&out) && input.len() - out.len() < 4);
            }
        }
    }
}
