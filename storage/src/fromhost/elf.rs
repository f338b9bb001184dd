//! The few fields of an ELF file that say what it needs: PT_INTERP, DT_NEEDED, DT_RPATH, DT_RUNPATH (elf(5)).

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bounds on tables that are read into memory.
const MAX_HEADERS: usize = 512;
const MAX_DYNAMIC: u64 = 1 << 16;
const MAX_STRING: usize = 4096;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// What an ELF file needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Elf {
    /// Class (32 or 64 bits) and machine: libraries of another kind do not fit.
    pub(crate) kind: (u8, u16),
    /// The loader.
    pub(crate) interpreter: Option<PathBuf>,
    /// Sonames.
    pub(crate) needed: Vec<String>,
    /// Searched first, also for what the needed ones need.
    pub(crate) rpath: Vec<String>,
    /// Searched after LD_LIBRARY_PATH, for this file only; makes RPATH count nothing.
    pub(crate) runpath: Vec<String>,
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

struct Reader {
    file: File,
    wide: bool,
    little: bool,
}

impl Elf {
    /// Reads a file; `None` when it is no ELF file (or a damaged one).
    pub(crate) fn read(path: &Path) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        let mut ident = [0u8; 64];
        let n = file.read_at(&mut ident, 0)?;
        if n < 52 || ident[..4] != *b"\x7fELF" || !matches!(ident[4], 1 | 2) || !matches!(ident[5], 1 | 2) {
            return Ok(None);
        }
        let reader = Reader { file, wide: ident[4] == 2, little: ident[5] == 1 };
        match reader.elf(&ident) {
            Ok(elf) => Ok(Some(elf)),
            Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

impl Reader {
    fn number(&self, bytes: &[u8]) -> u64 {
        let add = |n: u64, b: &u8| n << 8 | u64::from(*b);
        if self.little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) }
    }

    fn elf(&self, header: &[u8; 64]) -> io::Result<Elf> {
        let n = |at: usize, len: usize| self.number(&header[at..at + len]);
        let (offset, size, count) =
            if self.wide { (n(32, 8), n(54, 2), n(56, 2)) } else { (n(28, 4), n(42, 2), n(44, 2)) };
        let (size, count) = (size as usize, count as usize);
        if count > MAX_HEADERS || size < if self.wide { 56 } else { 32 } || size > 256 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut table = vec![0u8; size * count];
        self.file.read_exact_at(&mut table, offset)?;
        let segments: Vec<Segment> = table.chunks_exact(size).map(|h| self.segment(h)).collect();
        let mut elf = Elf { kind: (header[4], n(18, 2) as u16), ..Elf::default() };
        for segment in &segments {
            match segment.kind {
                PT_INTERP if segment.size as usize <= MAX_STRING => {
                    elf.interpreter = Some(PathBuf::from(OsString::from_vec(self.text(segment.offset)?)));
                }
                PT_DYNAMIC => self.dynamic(segment, &segments, &mut elf)?,
                _ => {}
            }
        }
        Ok(elf)
    }

    fn segment(&self, h: &[u8]) -> Segment {
        let n = |at: usize, len: usize| self.number(&h[at..at + len]);
        if self.wide {
            Segment { kind: n(0, 4) as u32, offset: n(8, 8), address: n(16, 8), size: n(32, 8) }
        } else {
            Segment { kind: n(0, 4) as u32, offset: n(4, 4), address: n(8, 4), size: n(16, 4) }
        }
    }

    fn dynamic(&self, segment: &Segment, all: &[Segment], elf: &mut Elf) -> io::Result<()> {
        let mut table = vec![0u8; segment.size.min(MAX_DYNAMIC) as usize];
        self.file.read_exact_at(&mut table, segment.offset)?;
        let word = if self.wide { 8 } else { 4 };
        let entries: Vec<(u64, u64)> = table
            .chunks_exact(word * 2)
            .map(|e| (self.number(&e[..word]), self.number(&e[word..])))
            .take_while(|(tag, _)| *tag != 0)
            .collect();
        let Some((_, strings)) = entries.iter().find(|(tag, _)| *tag == DT_STRTAB) else { return Ok(()) };
        // The table is named by its address: it lies in the segment that is loaded there.
        let loaded =
            |s: &&Segment| s.kind == PT_LOAD && s.address <= *strings && *strings - s.address < s.size;
        let home = all.iter().find(loaded).ok_or(io::ErrorKind::InvalidData)?;
        let base = home.offset + (strings - home.address);
        let text =
            |at: u64| self.text(base.saturating_add(at)).map(|t| String::from_utf8_lossy(&t).into_owned());
        let dirs = |at: u64| {
            text(at).map(|t| t.split(':').filter(|d| !d.is_empty()).map(str::to_owned).collect::<Vec<_>>())
        };
        for (tag, value) in &entries {
            match *tag {
                DT_NEEDED => elf.needed.push(text(*value)?),
                DT_RPATH => elf.rpath = dirs(*value)?,
                DT_RUNPATH => elf.runpath = dirs(*value)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A string that ends with a zero byte.
    fn text(&self, at: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0u8; MAX_STRING];
        let n = self.file.read_at(&mut bytes, at)?;
        let end = bytes[..n].iter().position(|b| *b == 0).ok_or(io::ErrorKind::InvalidData)?;
        bytes.truncate(end);
        Ok(bytes)
    }
}
