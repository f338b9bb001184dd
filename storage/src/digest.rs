//! SHA-256 digests, and readers and writers that compute one as bytes pass.

use std::fmt;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A text is no digest that davit knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a sha256 digest")]
pub struct InvalidDigest(pub String);

impl Digest {
    /// Takes `sha256:<64 hex>`.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidDigest> {
        let text = text.into();
        match text.strip_prefix("sha256:") {
            Some(hex) if is_hex64(hex) => Ok(Self(text)),
            _ => Err(InvalidDigest(text)),
        }
    }

    /// Takes the 64 digits alone.
    pub fn from_hex(hex: &str) -> Result<Self, InvalidDigest> {
        if is_hex64(hex) { Ok(Self(format!("sha256:{hex}"))) } else { Err(InvalidDigest(hex.to_owned())) }
    }

    /// The digest of bytes at hand.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(bytes);
        Self::of_hasher(hasher)
    }

    /// Finishes a hasher.
    pub fn of_hasher(hasher: Sha256) -> Self {
        use fmt::Write as _;
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in hasher.finalize() {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        }
        Self(text)
    }

    /// With the algorithm.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 digits.
    pub fn hex(&self) -> &str {
        &self.0[7..]
    }

    /// The first 12 digits, what people see.
    pub fn short(&self) -> &str {
        &self.0[7..19]
    }
}

fn is_hex64(s: &str) -> bool {
    s.len() == 64 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;
    fn try_from(s: String) -> Result<Self, InvalidDigest> {
        Self::parse(s)
    }
}

impl From<Digest> for String {
    fn from(d: Digest) -> String {
        d.0
    }
}

/// Passes bytes through and remembers their digest and number.
pub struct Hashing<T> {
    inner: T,
    hasher: Sha256,
    count: u64,
}

impl<T> Hashing<T> {
    /// Starts with nothing seen.
    pub fn new(inner: T) -> Self {
        Self { inner, hasher: Sha256::new(), count: 0 }
    }

    /// How many bytes have passed.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What it wraps.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// What it wrapped, the digest and the number of bytes.
    pub fn finish(self) -> (T, Digest, u64) {
        (self.inner, Digest::of_hasher(self.hasher), self.count)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        self.count += n as u64;
        Ok(n)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.count += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn only_sha256_with_64_lower_case_digits_is_a_digest() {
        assert_eq!(Digest::of(b"").as_str(), EMPTY);
        assert!(Digest::parse(EMPTY).is_ok());
        assert!(Digest::parse(EMPTY.to_uppercase()).is_err());
        assert!(Digest::parse("sha512:00").is_err());
        assert!(Digest::parse("../../etc").is_err());
        assert!(Digest::from_hex(&EMPTY[7..]).is_ok());
    }

    #[test]
    fn hashing_sees_what_passes() {
        let mut sink = Hashing::new(Vec::new());
        sink.write_all(b"abc").unwrap();
        let (out, digest, n) = sink.finish();
        assert_eq!((out.as_slice(), n), (&b"abc"[..], 3));
        let mut source = Hashing::new(&b"abc"[..]);
        io::copy(&mut source, &mut io::sink()).unwrap();
        assert_eq!(source.finish().1, digest);
    }
}
