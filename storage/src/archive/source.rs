//! Where an archive's files are read from: a tar on disk (indexed once, read in place and in parallel), or a directory.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use super::ArchiveError;
use super::index::TarIndex;
use crate::compression::{BUFFER, Compression, Plain, detect};
use crate::content::{ContentStore, TemporaryPath, read_bounded};
use crate::error::Error;
use crate::failure::At;

/// An opened archive.
pub struct Source {
    origin: String,
    place: Place,
}

enum Place {
    Directory(OwnedFd),
    Tar {
        index: TarIndex,
        file: Arc<File>,
        /// A copy of ours (a stream, or decompressed); deleted with the source.
        _scratch: Option<TemporaryPath>,
    },
}

impl Source {
    /// Opens a path: a layout directory, or an archive file, compressed or not.
    pub fn open(path: &Path, content: &ContentStore) -> Result<Self, Error> {
        let failed = |source| ArchiveError::Open { path: path.to_path_buf(), source };
        let origin = path.display().to_string();
        let file = File::open(path).map_err(failed)?;
        let kind = file.metadata().map_err(failed)?.file_type();
        if kind.is_dir() {
            return Ok(Self { origin, place: Place::Directory(file.into()) });
        }
        let mut start = [0u8; 6];
        if kind.is_file() {
            let n = file.read_at(&mut start, 0).map_err(failed)?;
            if detect(&start[..n])? == Compression::Plain {
                return Self::of_tar(origin, file, None);
            }
        }
        Self::of_stream(origin, file, content)
    }

    /// Takes a stream of an archive, compressed or not. It is written to disk first, because its index comes last.
    pub fn of_stream(origin: String, stream: impl Read, content: &ContentStore) -> Result<Self, Error> {
        let mut plain = Plain::new(stream)?;
        let mut ingest = content.ingest()?;
        let path = ingest.path().to_path_buf();
        let mut buffer = vec![0u8; BUFFER];
        loop {
            let n = match plain.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    let source = if e.kind() == io::ErrorKind::UnexpectedEof {
                        crate::tarball::TarError::Truncated
                    } else {
                        crate::tarball::TarError::Read(e)
                    };
                    return Err(ArchiveError::Tar { path: origin, source }.into());
                }
            };
            ingest.write_all(&buffer[..n]).at("write", &path)?;
        }
        let (file, scratch) = ingest.into_file();
        Self::of_tar(origin, file, Some(scratch))
    }

    fn of_tar(origin: String, file: File, scratch: Option<TemporaryPath>) -> Result<Self, Error> {
        let file = Arc::new(file);
        let index = TarIndex::read(&file, &origin)?;
        Ok(Self { origin, place: Place::Tar { index, file, _scratch: scratch } })
    }

    /// What the person called it.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Whether it has a file of this name.
    pub fn has(&self, name: &str) -> bool {
        matches!(self.open_file(name), Ok(Some(_)))
    }

    /// A small file's bytes; `None` when it is not there.
    pub fn document(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        match self.open_file(name)? {
            None => Ok(None),
            Some(reader) => Ok(Some(read_bounded(reader, limit, name)?)),
        }
    }

    /// A file's bytes as a stream that is independent of all others.
    pub fn open_file(&self, name: &str) -> Result<Option<Box<dyn Read + Send>>, ArchiveError> {
        match &self.place {
            Place::Tar { index, file, .. } => Ok(index.find(name).map(|(offset, length)| {
                Box::new(Slice { file: Arc::clone(file), offset, left: length }) as Box<dyn Read + Send>
            })),
            Place::Directory(dir) => {
                // A fifo in a layout would keep us waiting for its writer.
                let flags = OFlags::RDONLY | OFlags::NONBLOCK;
                let opened = davit_sys::beneath::open(dir.as_fd(), Path::new(name), flags, Mode::empty());
                match opened {
                    Ok(fd) => {
                        let file = File::from(fd);
                        let is_file = file.metadata().is_ok_and(|m| m.is_file());
                        Ok(is_file.then(|| Box::new(file) as Box<dyn Read + Send>))
                    }
                    Err(e) if e.source.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(e) => Err(ArchiveError::Read { name: name.to_owned(), source: e.source }),
                }
            }
        }
    }
}

/// A part of a file.
struct Slice {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for Slice {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut buf[..want], self.offset)?;
        if n == 0 && want > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}
