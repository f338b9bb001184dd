//! `uidmapping=` and `gidmapping=`: triples `DISK:SHOWN:COUNT`, one after the other, separated by colons.

use davit_cowfs::{IdMap, IdRange};

use super::OptionError;

/// Reads a map.
pub(super) fn map(key: &str, value: &[u8]) -> Result<IdMap, OptionError> {
    let wrong = |why| OptionError::value(key, value, why);
    let numbers = value
        .split(|b| *b == b':')
        .map(|n| number(n).ok_or_else(|| wrong("numbers separated by colons are wanted")))
        .collect::<Result<Vec<u32>, _>>()?;
    let (triples, rest) = numbers.as_chunks::<3>();
    if !rest.is_empty() || triples.is_empty() {
        return Err(wrong("triples DISK:SHOWN:COUNT are wanted"));
    }
    let end = |first: u32, len: u32| first as u64 + len as u64;
    if triples.iter().any(|[disk, shown, len]| end(*disk, *len) > 1 << 32 || end(*shown, *len) > 1 << 32) {
        return Err(wrong("a range ends beyond the last id"));
    }
    Ok(IdMap(
        triples.iter().map(|[disk, shown, len]| IdRange { shown: *shown, disk: *disk, len: *len }).collect(),
    ))
}

/// A decimal number without sign.
pub(super) fn number(text: &[u8]) -> Option<u32> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}
