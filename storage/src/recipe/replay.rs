//! Reading a recipe. It is a file of ours, but disks forget: nothing in it is trusted.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::{BYTES, END, FILE, MAGIC, MAX_PIECE, damaged, take_number};

/// The tar as a stream of bytes.
pub struct Replay {
    records: BufReader<zstd::stream::read::Decoder<'static, BufReader<File>>>,
    root: OwnedFd,
    now: Now,
}

enum Now {
    Between,
    Bytes(u64),
    File { file: File, left: u64, path: Vec<u8> },
    Ended,
}

impl Replay {
    pub(super) fn new(mut file: File, root: OwnedFd) -> io::Result<Self> {
        let mut magic = [0u8; MAGIC.len()];
        file.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(damaged());
        }
        let records = BufReader::with_capacity(16 << 10, zstd::stream::read::Decoder::new(file)?);
        Ok(Self { records, root, now: Now::Between })
    }

    fn next(&mut self) -> io::Result<Now> {
        let mut kind = [0u8];
        self.records.read_exact(&mut kind)?;
        match kind[0] {
            END => Ok(Now::Ended),
            BYTES => Ok(Now::Bytes(take_number(&mut self.records)?)),
            FILE => {
                let length = take_number(&mut self.records)?;
                if length > MAX_PIECE {
                    return Err(damaged());
                }
                let mut path = vec![0u8; length as usize];
                self.records.read_exact(&mut path)?;
                let left = take_number(&mut self.records)?;
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                let name = Path::new(OsStr::from_bytes(&path));
                let fd = davit_sys::beneath::open(self.root.as_fd(), name, flags, Mode::empty())
                    .map_err(|e| lost(&path, &e.source.to_string()))?;
                let file = File::from(fd);
                if !file.metadata()?.is_file() {
                    return Err(lost(&path, "it is no file any more"));
                }
                Ok(Now::File { file, left, path })
            }
            _ => Err(damaged()),
        }
    }
}

fn lost(path: &[u8], why: &str) -> io::Error {
    let path = String::from_utf8_lossy(path).escape_debug().to_string();
    let text = format!("the layer's file '{path}' is damaged: {why}; see `davit storage check`");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl Read for Replay {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            match &mut self.now {
                Now::Ended => return Ok(0),
                Now::Bytes(0) | Now::File { left: 0, .. } | Now::Between => self.now = self.next()?,
                Now::Bytes(left) => {
                    let want = buf.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let n = self.records.read(&mut buf[..want])?;
                    if n == 0 {
                        return Err(damaged());
                    }
                    *left -= n as u64;
                    return Ok(n);
                }
                Now::File { file, left, path } => {
                    let want = buf.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let n = file.read(&mut buf[..want])?;
                    if n == 0 {
                        return Err(lost(path, "it is shorter than it was"));
                    }
                    *left -= n as u64;
                    return Ok(n);
                }
            }
        }
    }
}
