//! Writing a ledger: buffered, each record appended once.

use std::io::{self, Write};

use super::{
    Event, MAGIC, MAX_PATH, MAX_XATTR_BYTES, MAX_XATTR_NAME, MAX_XATTR_VALUE, MAX_XATTRS, Node, NodeKind,
    Recorder, kind, tag,
};

/// Bytes gathered before they are hashed and written.
const BUFFER: usize = 64 << 10;

/// Writes events down. Without [`Writer::finish`] the ledger is cut, and refused by its reader.
pub struct Writer<W> {
    out: W,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    last: Vec<u8>,
    count: u64,
}

impl<W: Write> Writer<W> {
    /// Begins with the header.
    pub fn new(out: W) -> io::Result<Self> {
        let mut buffer = Vec::with_capacity(BUFFER + 4096);
        buffer.extend_from_slice(MAGIC);
        Ok(Self { out, hasher: blake3::Hasher::new(), buffer, last: Vec::new(), count: 0 })
    }

    /// Writes the trailer; answers what it wrote to, which the caller makes durable, and the digest of the content.
    pub fn finish(mut self) -> io::Result<(W, [u8; 32])> {
        self.buffer.push(tag::END);
        number(&mut self.buffer, self.count);
        self.spill()?;
        let digest = *self.hasher.finalize().as_bytes();
        self.out.write_all(&digest)?;
        self.out.flush()?;
        Ok((self.out, digest))
    }

    fn spill(&mut self) -> io::Result<()> {
        self.hasher.update(&self.buffer);
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn path(&mut self, path: &[u8]) -> io::Result<()> {
        if path.len() > MAX_PATH {
            return Err(too_large("a path"));
        }
        let shared = self.last.iter().zip(path).take_while(|(a, b)| a == b).count();
        number(&mut self.buffer, shared as u64);
        bytes(&mut self.buffer, &path[shared..]);
        self.last.truncate(shared);
        self.last.extend_from_slice(&path[shared..]);
        Ok(())
    }

    fn body(&mut self, node: &Node<'_>) -> io::Result<()> {
        let out = &mut self.buffer;
        out.push(code(&node.kind));
        for n in [node.mode, node.uid, node.gid] {
            number(out, u64::from(n));
        }
        match node.mtime {
            None => out.push(0),
            Some(time) => {
                out.push(1);
                number(out, zigzag(time.seconds));
                number(out, u64::from(time.nanoseconds));
            }
        }
        xattrs(out, &node.xattrs)?;
        match &node.kind {
            NodeKind::File { size, digest } => {
                number(out, *size);
                out.extend_from_slice(digest);
            }
            NodeKind::Symlink { target } => {
                if target.len() > MAX_PATH {
                    return Err(too_large("a link's target"));
                }
                bytes(out, target);
            }
            NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor } => {
                number(out, u64::from(*major));
                number(out, u64::from(*minor));
            }
            NodeKind::Directory | NodeKind::Fifo | NodeKind::Whiteout => {}
        }
        Ok(())
    }
}

impl<W: Write> Recorder for Writer<W> {
    fn record(&mut self, event: Event<'_>) -> io::Result<()> {
        match event {
            Event::Node { path, node } => {
                self.buffer.push(tag::NODE);
                self.path(path)?;
                self.body(&node)?;
            }
            Event::Link { path, target } => {
                if target.len() > MAX_PATH {
                    return Err(too_large("a path"));
                }
                self.buffer.push(tag::LINK);
                self.path(path)?;
                bytes(&mut self.buffer, target);
            }
            Event::Opaque { path } => {
                self.buffer.push(tag::OPAQUE);
                self.path(path)?;
            }
            Event::Gone { path } => {
                self.buffer.push(tag::GONE);
                self.path(path)?;
            }
        }
        self.count += 1;
        if self.buffer.len() >= BUFFER { self.spill() } else { Ok(()) }
    }
}

fn xattrs(out: &mut Vec<u8>, all: &[(&[u8], &[u8])]) -> io::Result<()> {
    let total: usize = all.iter().map(|(n, v)| n.len() + v.len()).sum();
    let long = |(name, value): &(&[u8], &[u8])| name.len() > MAX_XATTR_NAME || value.len() > MAX_XATTR_VALUE;
    if all.len() > MAX_XATTRS || total > MAX_XATTR_BYTES || all.iter().any(long) {
        return Err(too_large("the attributes of a path"));
    }
    number(out, all.len() as u64);
    for (name, value) in all {
        bytes(out, name);
        bytes(out, value);
    }
    Ok(())
}

fn code(of: &NodeKind<'_>) -> u8 {
    match of {
        NodeKind::File { .. } => kind::FILE,
        NodeKind::Directory => kind::DIRECTORY,
        NodeKind::Symlink { .. } => kind::SYMLINK,
        NodeKind::Fifo => kind::FIFO,
        NodeKind::CharDevice { .. } => kind::CHAR_DEVICE,
        NodeKind::BlockDevice { .. } => kind::BLOCK_DEVICE,
        NodeKind::Whiteout => kind::WHITEOUT,
    }
}

fn too_large(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what} is too large to be recorded"))
}

/// LEB128: seven bits a byte, the lowest first.
fn number(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn bytes(out: &mut Vec<u8>, data: &[u8]) {
    number(out, data.len() as u64);
    out.extend_from_slice(data);
}

/// Small numbers of both signs become small numbers.
fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}
