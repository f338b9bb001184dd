//! PAX records: `LENGTH KEY=VALUE\n`.

use super::entry::{Entry, Time};
use super::{Kind, TarError};

const XATTR: &[u8] = b"SCHILY.xattr.";

/// The records that matter to a layer.
#[derive(Debug, Clone, Default)]
pub(super) struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<Time>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Option<PaxSparse>,
}

/// GNU.sparse.* records, versions 0.0, 0.1 and 1.0.
#[derive(Debug, Clone, Default)]
pub(super) struct PaxSparse {
    pub(super) major: u64,
    pub(super) real_size: Option<u64>,
    /// Alternating offsets and lengths.
    pub(super) numbers: Vec<u64>,
    name: Option<Vec<u8>>,
}

impl Pax {
    /// Reads all records. Those of a global header never name a file.
    pub(super) fn parse(mut bytes: &[u8], global: bool) -> Result<Self, TarError> {
        let mut pax = Self::default();
        while !bytes.is_empty() {
            // Some writers pad with zeros.
            if bytes[0] == 0 {
                break;
            }
            let bad = TarError::Field("a PAX record");
            let space = bytes.iter().take(8).position(|b| *b == b' ').ok_or(bad)?;
            let length = number(&bytes[..space])? as usize;
            if length < space + 2 || length > bytes.len() || bytes[length - 1] != b'\n' {
                return Err(TarError::Field("a PAX record's length"));
            }
            let record = &bytes[space + 1..length - 1];
            let equals = record.iter().position(|b| *b == b'=').ok_or(TarError::Field("a PAX record"))?;
            pax.record(&record[..equals], &record[equals + 1..])?;
            bytes = &bytes[length..];
        }
        if global {
            (pax.path, pax.link, pax.size, pax.sparse) = (None, None, None, None);
        }
        Ok(pax)
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        match key {
            b"path" => self.path = Some(text(value)?),
            b"linkpath" => self.link = Some(text(value)?),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(id(value)?),
            b"gid" => self.gid = Some(id(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            b"GNU.sparse.major" => self.sparse().major = number(value)?,
            b"GNU.sparse.name" => self.sparse().name = Some(text(value)?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse().real_size = Some(number(value)?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let n = number(value)?;
                self.sparse().numbers.push(n);
            }
            b"GNU.sparse.map" => {
                let numbers: Result<Vec<u64>, _> =
                    value.split(|b| *b == b',').filter(|n| !n.is_empty()).map(number).collect();
                self.sparse().numbers = numbers?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR)
                    && !name.is_empty()
                {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    fn sparse(&mut self) -> &mut PaxSparse {
        self.sparse.get_or_insert_default()
    }

    /// A later header's records replace those of an earlier one.
    pub(super) fn merge(&mut self, newer: Self) {
        self.uid = newer.uid.or(self.uid);
        self.gid = newer.gid.or(self.gid);
        self.mtime = newer.mtime.or(self.mtime);
        if !newer.xattrs.is_empty() {
            self.xattrs = newer.xattrs;
        }
    }

    pub(super) fn apply(&self, entry: &mut Entry) {
        if let Some(path) = self.sparse.as_ref().and_then(|s| s.name.clone()).or_else(|| self.path.clone()) {
            // A directory by its trailing slash only counts in the header's own name.
            entry.path = path;
        }
        if let Some(link) = &self.link {
            entry.link.clone_from(link);
        }
        if let (Some(size), Kind::File) = (self.size, entry.kind) {
            entry.size = size;
        }
        entry.uid = self.uid.unwrap_or(entry.uid);
        entry.gid = self.gid.unwrap_or(entry.gid);
        entry.mtime = self.mtime.unwrap_or(entry.mtime);
        entry.xattrs.extend(self.xattrs.iter().cloned());
    }
}

fn text(value: &[u8]) -> Result<Vec<u8>, TarError> {
    if value.contains(&0) { Err(TarError::Field("a name with a zero byte")) } else { Ok(value.to_vec()) }
}

pub(super) fn number(value: &[u8]) -> Result<u64, TarError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(TarError::Field("a number"));
    }
    std::str::from_utf8(value).ok().and_then(|s| s.parse().ok()).ok_or(TarError::Field("a number"))
}

fn id(value: &[u8]) -> Result<u32, TarError> {
    u32::try_from(number(value)?).map_err(|_| TarError::Field("an owner"))
}

/// `[-]SECONDS[.FRACTION]`; a fraction counts forwards, also of a negative number.
fn time(value: &[u8]) -> Result<Time, TarError> {
    let (negative, value) = value.strip_prefix(b"-").map_or((false, value), |v| (true, v));
    let (whole, fraction) = match value.iter().position(|b| *b == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &[][..]),
    };
    let whole = i64::try_from(number(whole)?).map_err(|_| TarError::Field("a time"))?;
    let mut nanoseconds: u32 = 0;
    for place in 0..9 {
        let digit = fraction.get(place).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return Err(TarError::Field("a time"));
        }
        nanoseconds = nanoseconds * 10 + u32::from(digit - b'0');
    }
    Ok(match (negative, nanoseconds) {
        (false, _) => Time { seconds: whole, nanoseconds },
        (true, 0) => Time { seconds: -whole, nanoseconds },
        (true, _) => Time { seconds: -whole - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_nanoseconds() {
        let at = |s: &str| time(s.as_bytes()).map(|t| (t.seconds, t.nanoseconds)).ok();
        assert_eq!(at("12.000000345"), Some((12, 345)));
        assert_eq!(at("12"), Some((12, 0)));
        assert_eq!(at("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(at("12.1234567891"), Some((12, 123_456_789)));
        assert_eq!(at("x"), None);
        assert_eq!(at("1.x"), None);
    }

    #[test]
    fn records_with_wrong_lengths_are_refused() {
        for bad in
            [&b"6 path=x\n"[..], b"99 path=x\n", b"0 a=b\n", b"x", b"5 ab\n", b"18446744073709551616 a=b\n"]
        {
            assert!(Pax::parse(bad, false).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert_eq!(
            Pax::parse(b"10 path=xy\n", false).err().map(|e| e.to_string()),
            Some("the archive is damaged: a PAX record's length".into())
        );
        assert_eq!(Pax::parse(b"11 path=xy\n", false).unwrap().path, Some(b"xy".to_vec()));
    }
}
