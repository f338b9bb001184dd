//! Sparse maps: GNU's old format (in headers) and PAX 0.0, 0.1 (in records) and 1.0 (before the data).

use super::entry::{Entry, SparseMap};
use super::pax::{PaxSparse, number};
use super::{BLOCK, Skip, TarError, TarReader};

/// More parts than this in one file are an attack (16 bytes each).
const MAX_PARTS: usize = 1 << 16;

/// GNU's old format: four parts in the header, 21 in each extension block that follows.
pub(super) fn gnu<R: Skip>(
    reader: &mut TarReader<R>,
    header: &tar::Header,
    entry: &mut Entry,
) -> Result<(), TarError> {
    let bad = |_| TarError::Field("a sparse map");
    let gnu = header.as_gnu().ok_or(TarError::Field("a sparse map"))?;
    let mut map = SparseMap { parts: Vec::new(), real_size: gnu.real_size().map_err(bad)? };
    let mut take = |parts: &[tar::GnuSparseHeader]| -> Result<(), TarError> {
        for part in parts.iter().filter(|p| !p.is_empty()) {
            map.parts.push((part.offset().map_err(bad)?, part.length().map_err(bad)?));
        }
        if map.parts.len() > MAX_PARTS { Err(TarError::Field("a sparse map")) } else { Ok(()) }
    };
    take(&gnu.sparse)?;
    let mut more = gnu.is_extended();
    while more {
        let mut extension = tar::GnuExtSparseHeader::new();
        if reader.fill(extension.as_mut_bytes())? != BLOCK {
            return Err(TarError::Truncated);
        }
        take(&extension.sparse)?;
        more = extension.is_extended();
    }
    finish(map, entry)
}

/// The PAX formats. Version 1.0 puts the map as decimal lines before the data, padded to a block.
pub(super) fn pax<R: Skip>(
    reader: &mut TarReader<R>,
    sparse: &PaxSparse,
    entry: &mut Entry,
) -> Result<(), TarError> {
    let real_size = sparse.real_size.ok_or(TarError::Field("a sparse map"))?;
    let numbers = if sparse.major == 1 { leading_map(reader, entry)? } else { sparse.numbers.clone() };
    if numbers.len() % 2 != 0 || numbers.len() / 2 > MAX_PARTS {
        return Err(TarError::Field("a sparse map"));
    }
    let parts = numbers.chunks_exact(2).map(|p| (p[0], p[1])).collect();
    finish(SparseMap { parts, real_size }, entry)
}

fn leading_map<R: Skip>(reader: &mut TarReader<R>, entry: &mut Entry) -> Result<Vec<u64>, TarError> {
    let bad = || TarError::Field("a sparse map");
    let mut numbers: Vec<u64> = Vec::new();
    let mut wanted: Option<usize> = None;
    let mut line = Vec::new();
    let mut block = [0u8; BLOCK];
    'blocks: loop {
        if entry.size < BLOCK as u64 {
            return Err(bad());
        }
        if reader.fill(&mut block)? != BLOCK {
            return Err(TarError::Truncated);
        }
        entry.size -= BLOCK as u64;
        reader.remaining -= BLOCK as u64;
        for byte in block {
            if byte != b'\n' {
                line.push(byte);
                if line.len() > 20 {
                    return Err(bad());
                }
                continue;
            }
            let n = number(&line)?;
            line.clear();
            match wanted {
                None if n as usize > MAX_PARTS => return Err(bad()),
                None => wanted = Some(n as usize * 2),
                Some(_) => numbers.push(n),
            }
            if wanted == Some(numbers.len()) {
                break 'blocks;
            }
        }
    }
    Ok(numbers)
}

/// Checks the map against the data and the size.
fn finish(map: SparseMap, entry: &mut Entry) -> Result<(), TarError> {
    let mut end = 0u64;
    let mut data = 0u64;
    for (offset, length) in &map.parts {
        let part_end = offset.checked_add(*length).ok_or(TarError::Field("a sparse map"))?;
        if *offset < end || part_end > map.real_size {
            return Err(TarError::Field("a sparse map"));
        }
        end = part_end;
        data += length;
    }
    if data != entry.size {
        return Err(TarError::Field("a sparse map"));
    }
    entry.sparse = Some(map);
    Ok(())
}
