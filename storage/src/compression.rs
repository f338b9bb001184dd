//! Telling how a stream is compressed by its first bytes, and reading it plain.

use std::io::{self, BufRead, BufReader, Read};

/// Buffer of each stage of a pipeline.
pub const BUFFER: usize = 64 << 10;
/// The largest zstd window that is accepted: 2^27 is zstd's own limit without --long.
const ZSTD_WINDOW_LOG: u32 = 27;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all, as far as one can tell.
    Plain,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// A stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// Known, but not taken.
    #[error("{0}-compressed archives are not supported; use gzip, zstd or none")]
    Unsupported(&'static str),
    /// The first bytes could not be read.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The decompressor could not be set up.
    #[error("cannot start decompressing")]
    Start(#[source] io::Error),
}

/// Tells the compression by magic numbers.
pub fn detect(start: &[u8]) -> Result<Compression, CompressionError> {
    Ok(match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        // A zstd skippable frame may come first.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err(CompressionError::Unsupported("xz")),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => return Err(CompressionError::Unsupported("bzip2")),
        _ => Compression::Plain,
    })
}

/// Tells the compression of what a reader gives, without taking anything.
pub fn of<R: Read>(reader: &mut BufReader<R>) -> Result<Compression, CompressionError> {
    detect(&first_bytes(reader).map_err(CompressionError::Read)?)
}

/// A reader of the plain bytes below, which owns the reader of the stored bytes.
pub enum Plain<R: Read> {
    /// As stored.
    Plain(BufReader<R>),
    /// All members of a gzip file.
    Gzip(Box<flate2::bufread::MultiGzDecoder<BufReader<R>>>),
    /// All frames of a zstd file.
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<R>>>),
}

impl<R: Read> Plain<R> {
    /// Looks at the first bytes and sets up the decompressor.
    pub fn new(inner: R) -> Result<Self, CompressionError> {
        let mut inner = BufReader::with_capacity(BUFFER, inner);
        let start = first_bytes(&mut inner).map_err(CompressionError::Read)?;
        Ok(match detect(&start)? {
            Compression::Plain => Self::Plain(inner),
            Compression::Gzip => Self::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(inner))),
            Compression::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(inner).map_err(CompressionError::Start)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(CompressionError::Start)?;
                Self::Zstd(Box::new(decoder))
            }
        })
    }

    /// The stored bytes that decompressing has not used, such as garbage after the last gzip member.
    pub fn into_stored(self) -> BufReader<R> {
        match self {
            Self::Plain(r) => r,
            Self::Gzip(d) => d.into_inner(),
            Self::Zstd(d) => d.finish(),
        }
    }
}

/// Looks ahead without consuming; short reads of a socket do not confuse it.
fn first_bytes<R: Read>(reader: &mut BufReader<R>) -> io::Result<Vec<u8>> {
    // BufReader fills only when empty: one read of at least two bytes is enough to tell gzip, and channels and files
    // hand over far more than the six that the longest magic number needs.
    Ok(reader.fill_buf()?.iter().take(6).copied().collect())
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(r) => r.read(buf),
            Self::Gzip(d) => d.read(buf),
            Self::Zstd(d) => d.read(buf),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn all_three_are_read_and_others_are_named() {
        let text = b"some text ".repeat(1000);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&text).unwrap();
        let mut two_members = gz.finish().unwrap();
        two_members.extend(two_members.clone());
        let zst = zstd::encode_all(text.as_slice(), 1).unwrap();
        for (stored, times) in [(two_members, 2), (zst, 1), (text.clone(), 1)] {
            let mut out = Vec::new();
            Plain::new(stored.as_slice()).unwrap().read_to_end(&mut out).unwrap();
            assert_eq!(out, text.repeat(times));
        }
        let refused = Plain::new(&b"\xfd7zXZ\0rest"[..]).err().unwrap();
        assert!(refused.to_string().starts_with("xz"));
        assert!(detect(b"").is_ok());
    }
}
