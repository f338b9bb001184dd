//! Writing tars: ustar headers, with PAX records for what does not fit into them. One member at a time, nothing is kept.
//!
//! PAX is used for names and link targets of more than 100 bytes, sizes and ids beyond the octal fields, times with nanoseconds or
//! before 1970, extended attributes (`SCHILY.xattr.NAME`) and sparse files (GNU.sparse 1.0). The same members give the same bytes.
//! Formats: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Header File Format"; GNU tar manual, "Storing Sparse Files".

use std::io::{self, Read, Write};

use crate::tarball::{BLOCK, Entry, Kind, SparseMap, Time};

/// What fits into an octal field of 12 bytes, and into one of 8.
const MAX_SIZE: u64 = 0o777_7777_7777;
const MAX_ID: u32 = 0o777_7777;
/// Our own reader takes extended headers up to a megabyte.
const MAX_RECORDS: usize = 1 << 20;
const COPY: usize = 64 << 10;

/// Writes members, and an end mark when it is finished.
pub struct TarWriter<W> {
    out: W,
    buffer: Vec<u8>,
    members: u64,
}

impl<W: Write> TarWriter<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self { out, buffer: Vec::new(), members: 0 }
    }

    /// How many members have been written.
    pub fn members(&self) -> u64 {
        self.members
    }

    /// A member without data.
    pub fn append(&mut self, entry: &Entry) -> io::Result<()> {
        self.headers(entry, 0, entry.sparse.is_some())
    }

    /// A regular file with its data, of which exactly `entry.size` bytes are written: a file that has shrunk meanwhile is filled up
    /// with zeros, of one that has grown the rest is left.
    pub fn append_data(&mut self, entry: &Entry, data: impl Read) -> io::Result<()> {
        self.headers(entry, entry.size, false)?;
        let written = self.copy(data, entry.size)?;
        self.zeros(entry.size - written)?;
        self.pad(entry.size)
    }

    /// A sparse file: `entry.sparse` says which parts of `file` are written.
    pub fn append_sparse(&mut self, entry: &Entry, map: &SparseMap, file: &std::fs::File) -> io::Result<()> {
        let mut text = format!("{}\n", map.parts.len()).into_bytes();
        for (offset, length) in &map.parts {
            write!(text, "{offset}\n{length}\n")?;
        }
        text.resize(text.len().next_multiple_of(BLOCK), 0);
        let data: u64 = map.parts.iter().map(|p| p.1).sum();
        let size = text.len() as u64 + data;
        self.headers(entry, size, true)?;
        self.out.write_all(&text)?;
        for (offset, length) in &map.parts {
            let part = PartOf { file, at: *offset };
            let written = self.copy(part, *length)?;
            self.zeros(length - written)?;
        }
        self.pad(size)
    }

    /// Writes the end mark and answers what is below.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn copy(&mut self, mut from: impl Read, length: u64) -> io::Result<u64> {
        self.buffer.resize(COPY, 0);
        let mut done = 0;
        while done < length {
            let want = COPY.min(usize::try_from(length - done).unwrap_or(COPY));
            match from.read(&mut self.buffer[..want]) {
                Ok(0) => break,
                Ok(n) => {
                    self.out.write_all(&self.buffer[..n])?;
                    done += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn zeros(&mut self, count: u64) -> io::Result<()> {
        io::copy(&mut io::repeat(0).take(count), &mut self.out).map(drop)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        self.zeros(size.next_multiple_of(BLOCK as u64) - size)
    }

    fn headers(&mut self, entry: &Entry, size: u64, sparse: bool) -> io::Result<()> {
        self.members += 1;
        let records = records(entry, size, sparse);
        if records.len() > MAX_RECORDS {
            let text = format!("the attributes of {} are too large for a tar", shown(&entry.path));
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if !records.is_empty() {
            let name = [b"PaxHeaders.0/", last_component(&entry.path)].concat();
            let mut header = plain_header(&name, b'x', 0o644, records.len() as u64);
            self.out.write_all(&sealed(&mut header))?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        let stored_name;
        let name: &[u8] = if sparse {
            stored_name = [b"GNUSparseFile.0/", last_component(&entry.path)].concat();
            &stored_name
        } else {
            short_name(entry)
        };
        let mut header = plain_header(name, type_flag(entry.kind), entry.mode & 0o7777, size.min(MAX_SIZE));
        octal(&mut header[108..116], u64::from(entry.uid.min(MAX_ID)));
        octal(&mut header[116..124], u64::from(entry.gid.min(MAX_ID)));
        octal(&mut header[136..148], u64::try_from(entry.mtime.seconds).unwrap_or(0).min(MAX_SIZE));
        put(&mut header[157..257], &entry.link);
        octal(&mut header[329..337], u64::from(entry.device.0));
        octal(&mut header[337..345], u64::from(entry.device.1));
        self.out.write_all(&sealed(&mut header))
    }
}

fn type_flag(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
        Kind::Unknown(flag) => flag,
    }
}

fn plain_header(name: &[u8], flag: u8, mode: u32, size: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    put(&mut header[0..100], name);
    octal(&mut header[100..108], u64::from(mode));
    octal(&mut header[108..116], 0);
    octal(&mut header[116..124], 0);
    octal(&mut header[124..136], size);
    octal(&mut header[136..148], 0);
    header[156] = flag;
    header[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut header[329..337], 0);
    octal(&mut header[337..345], 0);
    header
}

fn sealed(header: &mut [u8; BLOCK]) -> [u8; BLOCK] {
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|b| u64::from(*b)).sum();
    octal(&mut header[148..155], sum);
    *header
}

/// As many bytes as fit; the whole is in a record then.
fn put(field: &mut [u8], value: &[u8]) {
    let n = value.len().min(field.len());
    field[..n].copy_from_slice(&value[..n]);
}

/// Octal digits that fill the field but for a zero byte.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    // A value beyond the field has a record; what stands here is not read.
    field[..digits].copy_from_slice(&text.as_bytes()[text.len() - digits..]);
}

fn last_component(path: &[u8]) -> &[u8] {
    let trimmed = path.strip_suffix(b"/").unwrap_or(path);
    let name = trimmed.rsplit(|b| *b == b'/').next().unwrap_or(trimmed);
    &name[..name.len().min(80)]
}

/// What fits of a name. Cut off after a slash, a file would look like a directory of old.
fn short_name(entry: &Entry) -> &[u8] {
    let name = &entry.path[..entry.path.len().min(100)];
    let is_dir = entry.kind == Kind::Directory;
    let end = name.iter().rposition(|b| *b != b'/').map_or(name.len(), |last| last + 1);
    if is_dir { name } else { &name[..end] }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(300)]).into_owned()
}

/// The PAX records that a member needs.
fn records(entry: &Entry, size: u64, sparse: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| record(&mut out, key, value);
    if sparse {
        add(b"GNU.sparse.major", b"1");
        add(b"GNU.sparse.minor", b"0");
        add(b"GNU.sparse.name", &entry.path);
        add(b"GNU.sparse.realsize", entry.real_size().to_string().as_bytes());
    } else if entry.path.len() > 100 {
        add(b"path", &entry.path);
    }
    if entry.link.len() > 100 {
        add(b"linkpath", &entry.link);
    }
    if size > MAX_SIZE {
        add(b"size", size.to_string().as_bytes());
    }
    if entry.uid > MAX_ID {
        add(b"uid", entry.uid.to_string().as_bytes());
    }
    if entry.gid > MAX_ID {
        add(b"gid", entry.gid.to_string().as_bytes());
    }
    let Time { seconds, nanoseconds } = entry.mtime;
    if nanoseconds != 0 || seconds < 0 || seconds.unsigned_abs() > MAX_SIZE {
        add(b"mtime", time(entry.mtime).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        // A key ends at its first '=': such a name cannot be written.
        if !name.contains(&b'=') {
            add(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
    }
    out
}

/// `[-]SECONDS[.NANOSECONDS]`.
fn time(time: Time) -> String {
    let total = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let (sign, total) = if total < 0 { ("-", -total) } else { ("", total) };
    let (seconds, fraction) = (total / 1_000_000_000, total % 1_000_000_000);
    if fraction == 0 { format!("{sign}{seconds}") } else { format!("{sign}{seconds}.{fraction:09}") }
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts its own digits.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// A file from some offset on.
struct PartOf<'a> {
    file: &'a std::fs::File,
    at: u64,
}

impl Read for PartOf<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        let n = self.file.read_at(buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
