//! How to make a layer's plain tar again from its unpacked tree, byte for byte, so that it need not be kept twice.
//!
//! While a tar is unpacked, everything in it but the content of files is written down, compressed: headers, padding, the end
//! mark. In the place of each content stands the file's path. The tar is verified by its digest whenever it is made again.
//! A tar whose files do not all stay in the tree (two entries of one name) has no recipe; its bytes are kept instead.
//!
//! Format: `MAGIC`, then a zstd stream of records, numbers in LEB128:
//! ```text
//! 1 <length> <bytes>                     bytes of the tar
//! 2 <length> <path> <content length>     the content of a file of the tree
//! 0                                      end
//! ```

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::failure::{At, PathError};

mod replay;
mod tape;

pub use replay::Replay;
pub use tape::Tape;

const MAGIC: &[u8] = b"davit recipe 1\n";
const END: u8 = 0;
const BYTES: u8 = 1;
const FILE: u8 = 2;
/// Longer than any path that unpacking makes, and than any piece of bytes that is written.
const MAX_PIECE: u64 = 64 << 10;

/// Writes records. Memory is bounded by zstd's window at its first level, about a megabyte.
pub struct Writer {
    out: zstd::stream::write::Encoder<'static, File>,
    piece: Vec<u8>,
}

impl Writer {
    /// Starts a recipe in an empty file.
    pub fn new(mut file: File) -> io::Result<Self> {
        file.write_all(MAGIC)?;
        let mut out = zstd::stream::write::Encoder::new(file, 1)?;
        // Headers repeat at short distances; a window for each of several layers at once must be small.
        out.window_log(18)?;
        Ok(Self { out, piece: Vec::with_capacity(16 << 10) })
    }

    /// Bytes of the tar that stand in no file.
    pub fn bytes(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min((16 << 10) - self.piece.len()));
            self.piece.extend_from_slice(now);
            bytes = rest;
            if self.piece.len() == 16 << 10 {
                self.flush_piece()?;
            }
        }
        Ok(())
    }

    /// The content of a file.
    pub fn file(&mut self, path: &[u8], length: u64) -> io::Result<()> {
        self.flush_piece()?;
        let mut record = vec![FILE];
        put_number(&mut record, path.len() as u64);
        record.extend_from_slice(path);
        put_number(&mut record, length);
        self.out.write_all(&record)
    }

    fn flush_piece(&mut self) -> io::Result<()> {
        if !self.piece.is_empty() {
            let mut head = vec![BYTES];
            put_number(&mut head, self.piece.len() as u64);
            self.out.write_all(&head)?;
            self.out.write_all(&self.piece)?;
            self.piece.clear();
        }
        Ok(())
    }

    /// Ends it.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush_piece()?;
        self.out.write_all(&[END])?;
        self.out.finish().map(drop)
    }
}

fn put_number(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

fn take_number(from: &mut impl Read) -> io::Result<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0u8];
        from.read_exact(&mut byte)?;
        number |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(damaged())
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the layer's recipe is damaged")
}

/// Starts to make the tar again.
pub fn open(recipe: &Path, tree: &Path) -> Result<Replay, PathError> {
    let file = File::open(recipe).at("open", recipe)?;
    let root = davit_sys::beneath::open_root(tree).map_err(|e| e.source).at("open", tree)?;
    Replay::new(file, root).at("read", recipe)
}

#[cfg(test)]
mod tests;
