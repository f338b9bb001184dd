//! Splitting and unescaping.

/// The parts between separators that no backslash stands before; escapes stay as they are.
pub(super) fn split(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at] == b'\\' {
            at += 1;
        } else if text[at] == separator {
            parts.push(&text[start..at]);
            start = at + 1;
        }
        at += 1;
    }
    parts.push(&text[start..]);
    parts
}

/// Takes the escapes out: `\` and three octal digits are a byte, `\` and anything else is that.
pub(super) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                plain.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = after;
            }
            (b'\\', [next, after @ ..]) => {
                plain.push(*next);
                rest = after;
            }
            _ => plain.push(*first),
        }
    }
    plain
}

/// Escapes what a value of `lowerdir=` would otherwise end at.
#[cfg(test)]
pub(super) fn escape(text: &[u8]) -> Vec<u8> {
    text.iter().flat_map(|b| if b",:\\".contains(b) { vec![b'\\', *b] } else { vec![*b] }).collect()
}
