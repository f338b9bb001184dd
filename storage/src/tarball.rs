//! Reading tars that strangers made: headers, PAX records, GNU long names, sparse maps; one entry at a time, with bounds
//! on everything that is held in memory. Pure but for the reader it is given. Field parsing is the `tar` crate's.
//!
//! Formats: POSIX.1-2001 pax(1), GNU tar manual "Basic Tar Format" and "Storing Sparse Files".

use std::io::{self, Read};

use tar::EntryType;

mod entry;
mod pax;
mod sparse;

use entry::filled;
pub use entry::{Entry, Kind, SparseMap, Time};
use pax::Pax;

/// The size of a tar block.
pub const BLOCK: usize = 512;
/// GNU long names and PAX headers larger than this are an attack.
const MAX_EXTENSION: u64 = 1 << 20;

/// Why a tar cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream ended within an entry.
    #[error("the archive is truncated")]
    Truncated,
    /// The first block is no tar header.
    #[error("it is not a tar archive")]
    NotTar,
    /// A later block is no tar header.
    #[error("the archive is damaged: a header's checksum is wrong after {0} entries")]
    Checksum(u64),
    /// A field holds nonsense.
    #[error("the archive is damaged: {0}")]
    Field(&'static str),
    /// Names or attributes beyond a megabyte.
    #[error("an entry's extended header of {0} bytes is too large")]
    ExtensionTooLarge(u64),
    /// The bytes below could not be read: the decompressor's or the download's error.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
}

/// Passing over bytes: by reading them, or by seeking where that is possible.
pub trait Skip: Read {
    /// Skips up to `count` bytes; answers how many there were.
    fn skip(&mut self, count: u64) -> io::Result<u64>
    where
        Self: Sized,
    {
        io::copy(&mut self.take(count), &mut io::sink())
    }
}

/// A stream that wants to know which of its bytes are the content of which file.
pub trait Passage: Skip {
    /// The next `length` bytes are the whole content of the regular file `path` in the tree.
    fn content(&mut self, _path: &[u8], _length: u64) {}
    /// A file whose content has passed may be gone from the tree again.
    fn replaced(&mut self) {}
}

impl Skip for &[u8] {}
impl Passage for &[u8] {}
impl<R: Read> Skip for crate::digest::Hashing<R> {}
impl<R: Read> Passage for crate::digest::Hashing<R> {}

/// Reads entries one after another. The data of an entry must be taken through [`TarReader::data`] before the next.
pub struct TarReader<R> {
    inner: R,
    /// Bytes of the present entry's data that are still in the stream, and the padding after them.
    remaining: u64,
    padding: u64,
    entries: u64,
    globals: Pax,
    finished: bool,
}

/// Extension headers that apply to the next real entry.
#[derive(Default)]
struct Pending {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Pax,
}

impl<R: Skip> TarReader<R> {
    /// Starts at a header.
    pub fn new(inner: R) -> Self {
        Self { inner, remaining: 0, padding: 0, entries: 0, globals: Pax::default(), finished: false }
    }

    /// How many headers have been read.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The stream below, after the end.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The stream below, where the next byte comes from.
    pub fn inner(&self) -> &R {
        &self.inner
    }

    /// The same, to tell it something.
    pub fn inner_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// The data of the present entry as the stream holds it; for a sparse entry only the parts that are there.
    pub fn data(&mut self) -> Data<'_, R> {
        Data(self)
    }

    /// The next entry; `None` after the last.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.finished {
            return Ok(None);
        }
        let mut pending = Pending::default();
        loop {
            self.skip(self.remaining)?;
            // Some writers (umoci) leave out the padding after the last entry, and the end mark.
            let padded = self.inner.skip(self.padding).map_err(read_error)? == self.padding;
            (self.remaining, self.padding) = (0, 0);
            let Some(header) = (if padded { self.header()? } else { None }) else {
                self.finished = true;
                return Ok(None);
            };
            let size = filled(&header.as_old().size, || header.entry_size(), TarError::Field("a size"))?;
            self.enter(size);
            match header.entry_type() {
                EntryType::GNULongName => pending.long_name = Some(trim_nul(self.extension(size)?)),
                EntryType::GNULongLink => pending.long_link = Some(trim_nul(self.extension(size)?)),
                EntryType::XHeader => pending.pax = Pax::parse(&self.extension(size)?, false)?,
                EntryType::XGlobalHeader => {
                    let records = self.extension(size)?;
                    self.globals.merge(Pax::parse(&records, true)?);
                }
                // Volume labels, multi-volume parts and dump directories of GNU tar carry no file.
                other if matches!(other.as_byte(), b'V' | b'M' | b'N' | b'D') => {}
                _ => return self.entry(&header, size, pending).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &tar::Header, size: u64, pending: Pending) -> Result<Entry, TarError> {
        let mut entry = Entry::of_header(header, size)?;
        if let Some(name) = pending.long_name {
            entry.path = name;
        }
        if let Some(link) = pending.long_link {
            entry.link = link;
        }
        self.globals.apply(&mut entry);
        let gnu_sparse = header.entry_type() == EntryType::GNUSparse;
        let pax_sparse = pending.pax.sparse.clone();
        pending.pax.apply(&mut entry);
        // Before POSIX, a directory was a file whose name ends with a slash: the whole name, of which a header may hold a part.
        if header.entry_type() == EntryType::Regular && entry.path.ends_with(b"/") {
            entry.kind = Kind::Directory;
        }
        if entry.size != size {
            self.enter(entry.size);
        }
        if gnu_sparse {
            let before = self.remaining;
            sparse::gnu(self, header, &mut entry)?;
            self.remaining = before;
        } else if let Some(sparse) = pax_sparse {
            sparse::pax(self, &sparse, &mut entry)?;
        }
        if !matches!(entry.kind, Kind::File) && entry.size > 0 {
            // Old tars give links the size of what they link to, without any data. What is unknown has its data skipped.
            if !matches!(entry.kind, Kind::Unknown(_)) {
                self.enter(0);
            }
            entry.size = 0;
        }
        Ok(entry)
    }

    fn enter(&mut self, size: u64) {
        self.remaining = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    /// A header block; `None` at the end mark or at the end of the stream between entries.
    fn header(&mut self) -> Result<Option<tar::Header>, TarError> {
        let mut block = [0u8; BLOCK];
        match self.fill(&mut block)? {
            0 if self.entries == 0 => return Err(TarError::NotTar),
            0 => return Ok(None),
            BLOCK => {}
            _ if self.entries == 0 => return Err(TarError::NotTar),
            _ => return Err(TarError::Truncated),
        }
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let header = tar::Header::from_byte_slice(&block);
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(if self.entries == 0 { TarError::NotTar } else { TarError::Checksum(self.entries) });
        }
        self.entries += 1;
        Ok(Some(header.clone()))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENSION {
            return Err(TarError::ExtensionTooLarge(size));
        }
        let mut bytes = vec![0u8; size as usize];
        if self.fill(&mut bytes)? != bytes.len() {
            return Err(TarError::Truncated);
        }
        self.remaining = 0;
        Ok(bytes)
    }

    /// Reads until `buf` is full or the stream ends; answers how much.
    fn fill(&mut self, buf: &mut [u8]) -> Result<usize, TarError> {
        let mut n = 0;
        while n < buf.len() {
            match self.inner.read(&mut buf[n..]) {
                Ok(0) => break,
                Ok(got) => n += got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(read_error(e)),
            }
        }
        Ok(n)
    }

    fn skip(&mut self, count: u64) -> Result<(), TarError> {
        if count == 0 {
            return Ok(());
        }
        let skipped = self.inner.skip(count).map_err(read_error)?;
        if skipped == count { Ok(()) } else { Err(TarError::Truncated) }
    }
}

fn read_error(e: io::Error) -> TarError {
    // Decompressors say so when their input stops early.
    if e.kind() == io::ErrorKind::UnexpectedEof && e.raw_os_error().is_none() {
        TarError::Truncated
    } else {
        TarError::Read(e)
    }
}

fn trim_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// The data of one entry.
pub struct Data<'a, R>(&'a mut TarReader<R>);

impl<R: Skip> Read for Data<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = buf.len().min(usize::try_from(self.0.remaining).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let n = self.0.inner.read(&mut buf[..want])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.remaining -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
