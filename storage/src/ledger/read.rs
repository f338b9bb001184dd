//! Reading a ledger: a stream of events with bounds on each, believed only when the trailer agrees.

use std::io::{self, BufRead, Read};

use super::{
    Event, MAGIC, MAGIC_STEM, MAX_PATH, MAX_XATTR_BYTES, MAX_XATTR_NAME, MAX_XATTR_VALUE, MAX_XATTRS, Node,
    NodeKind, kind, tag,
};
use crate::tarball::Time;

/// Why a ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file is not what its trailer says, or has none.
    #[error("the ledger is damaged: {0}")]
    Damaged(&'static str),
    /// A later version of davit wrote it.
    #[error("the ledger is of a version that this davit does not know")]
    Version,
    /// The bytes cannot be read.
    #[error("cannot read the ledger")]
    Read(#[source] io::Error),
}

/// Reads events one after another.
///
/// What it answers may be nonsense until it has answered `None`: only then is the digest known to be right.
pub struct Reader<R> {
    input: Input<R>,
    path: Vec<u8>,
    target: Vec<u8>,
    body: Body,
    count: u64,
    finished: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    pub fn new(inner: R) -> Result<Self, LedgerError> {
        let mut input = Input { inner, hasher: Some(blake3::Hasher::new()), position: 0 };
        let mut magic = [0u8; MAGIC.len()];
        input.exact(&mut magic)?;
        if magic != *MAGIC {
            let known = magic.starts_with(MAGIC_STEM);
            return Err(if known { LedgerError::Version } else { LedgerError::Damaged("it has no header") });
        }
        Ok(Self {
            input,
            path: Vec::new(),
            target: Vec::new(),
            body: Body::default(),
            count: 0,
            finished: false,
        })
    }

    /// The next event with the offset of its node's body, for [`node_at`]; `None` after the last, when all was right.
    pub fn next_event(&mut self) -> Result<Option<(Event<'_>, u64)>, LedgerError> {
        if self.finished {
            return Ok(None);
        }
        let tag = self.input.byte()?;
        if tag == tag::END {
            self.end()?;
            return Ok(None);
        }
        self.take_path()?;
        self.count += 1;
        let position = self.input.position;
        let path = self.path.as_slice();
        let event = match tag {
            tag::NODE => {
                self.body.read(&mut self.input)?;
                Event::Node { path, node: self.body.node() }
            }
            tag::LINK => {
                self.input.bytes(&mut self.target, MAX_PATH)?;
                Event::Link { path, target: &self.target }
            }
            tag::OPAQUE => Event::Opaque { path },
            tag::GONE => Event::Gone { path },
            _ => return Err(LedgerError::Damaged("it holds a record of an unknown kind")),
        };
        Ok(Some((event, position)))
    }

    fn take_path(&mut self) -> Result<(), LedgerError> {
        let shared = self.input.number()?;
        if shared > self.path.len() as u64 {
            return Err(LedgerError::Damaged("a path builds on what is not there"));
        }
        let shared = shared as usize;
        self.input.bytes(&mut self.target, MAX_PATH - shared)?;
        self.path.truncate(shared);
        self.path.extend_from_slice(&self.target);
        Ok(())
    }

    fn end(&mut self) -> Result<(), LedgerError> {
        if self.input.number()? != self.count {
            return Err(LedgerError::Damaged("it does not hold as many records as it says"));
        }
        let found = self.input.hasher.take().map(|h| *h.finalize().as_bytes());
        let mut digest = [0u8; 32];
        self.input.exact(&mut digest)?;
        if found != Some(digest) {
            return Err(LedgerError::Damaged("its digest is wrong"));
        }
        if !self.input.inner.fill_buf().map_err(LedgerError::Read)?.is_empty() {
            return Err(LedgerError::Damaged("bytes follow its end"));
        }
        self.finished = true;
        Ok(())
    }
}

/// Reads the node whose body begins where `inner` stands, and gives it to `use_it`.
pub fn node_at<R: BufRead, T>(inner: R, use_it: impl FnOnce(&Node<'_>) -> T) -> Result<T, LedgerError> {
    let mut input = Input { inner, hasher: None, position: 0 };
    let mut body = Body::default();
    body.read(&mut input)?;
    Ok(use_it(&body.node()))
}

#[derive(Default)]
struct Body {
    kind: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: Option<Time>,
    /// Names and values, one after the other, and where each ends.
    xattrs: Vec<u8>,
    ends: Vec<usize>,
    size: u64,
    digest: [u8; 32],
    target: Vec<u8>,
    device: (u32, u32),
}

impl Body {
    fn read<R: BufRead>(&mut self, input: &mut Input<R>) -> Result<(), LedgerError> {
        self.kind = input.byte()?;
        self.mode = input.small()?;
        self.uid = input.small()?;
        self.gid = input.small()?;
        self.mtime = match input.byte()? {
            0 => None,
            1 => Some(time(input)?),
            _ => return Err(LedgerError::Damaged("a time is neither there nor missing")),
        };
        self.read_xattrs(input)?;
        match self.kind {
            kind::FILE => {
                self.size = input.number()?;
                input.exact(&mut self.digest)?;
            }
            kind::SYMLINK => input.bytes(&mut self.target, MAX_PATH)?,
            kind::CHAR_DEVICE | kind::BLOCK_DEVICE => self.device = (input.small()?, input.small()?),
            kind::DIRECTORY | kind::FIFO | kind::WHITEOUT => {}
            _ => return Err(LedgerError::Damaged("it names an unknown kind of file")),
        }
        Ok(())
    }

    fn read_xattrs<R: BufRead>(&mut self, input: &mut Input<R>) -> Result<(), LedgerError> {
        self.xattrs.clear();
        self.ends.clear();
        let count = input.number()?;
        if count > MAX_XATTRS as u64 {
            return Err(LedgerError::Damaged("a path has too many attributes"));
        }
        for _ in 0..count {
            for limit in [MAX_XATTR_NAME, MAX_XATTR_VALUE] {
                input.append(&mut self.xattrs, limit)?;
                self.ends.push(self.xattrs.len());
            }
            if self.xattrs.len() > MAX_XATTR_BYTES {
                return Err(LedgerError::Damaged("the attributes of a path are too large"));
            }
        }
        Ok(())
    }

    fn node(&self) -> Node<'_> {
        let mut start = 0;
        let mut xattrs = Vec::with_capacity(self.ends.len() / 2);
        for pair in self.ends.chunks_exact(2) {
            xattrs.push((&self.xattrs[start..pair[0]], &self.xattrs[pair[0]..pair[1]]));
            start = pair[1];
        }
        let (major, minor) = self.device;
        let kind = match self.kind {
            kind::FILE => NodeKind::File { size: self.size, digest: self.digest },
            kind::SYMLINK => NodeKind::Symlink { target: &self.target },
            kind::FIFO => NodeKind::Fifo,
            kind::CHAR_DEVICE => NodeKind::CharDevice { major, minor },
            kind::BLOCK_DEVICE => NodeKind::BlockDevice { major, minor },
            kind::WHITEOUT => NodeKind::Whiteout,
            _ => NodeKind::Directory,
        };
        Node { kind, mode: self.mode, uid: self.uid, gid: self.gid, mtime: self.mtime, xattrs }
    }
}

fn time<R: BufRead>(input: &mut Input<R>) -> Result<Time, LedgerError> {
    let seconds = input.number()?;
    let nanoseconds = input.small()?;
    if nanoseconds >= 1_000_000_000 {
        return Err(LedgerError::Damaged("a time has too many nanoseconds"));
    }
    let seconds = (seconds >> 1) as i64 ^ -((seconds & 1) as i64);
    Ok(Time { seconds, nanoseconds })
}

/// Bytes with their digest and position.
struct Input<R> {
    inner: R,
    hasher: Option<blake3::Hasher>,
    position: u64,
}

impl<R: BufRead> Input<R> {
    fn exact(&mut self, buf: &mut [u8]) -> Result<(), LedgerError> {
        self.inner.read_exact(buf).map_err(cut)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(buf);
        }
        self.position += buf.len() as u64;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, LedgerError> {
        let mut one = [0u8];
        self.exact(&mut one)?;
        Ok(one[0])
    }

    fn number(&mut self) -> Result<u64, LedgerError> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            n |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(LedgerError::Damaged("a number is too large"))
    }

    fn small(&mut self) -> Result<u32, LedgerError> {
        u32::try_from(self.number()?).map_err(|_| LedgerError::Damaged("a number is too large"))
    }

    /// Replaces `into` by a length and as many bytes.
    fn bytes(&mut self, into: &mut Vec<u8>, limit: usize) -> Result<(), LedgerError> {
        into.clear();
        self.append(into, limit)
    }

    /// Memory is taken as bytes arrive, not as a length promises them.
    fn append(&mut self, into: &mut Vec<u8>, limit: usize) -> Result<(), LedgerError> {
        let length = self.number()?;
        if length > limit as u64 {
            return Err(LedgerError::Damaged("a text is too long"));
        }
        let start = into.len();
        let read = (&mut self.inner).take(length).read_to_end(into).map_err(cut)?;
        if read as u64 != length {
            return Err(LedgerError::Damaged("it is cut"));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&into[start..]);
        }
        self.position += length;
        Ok(())
    }
}

fn cut(e: io::Error) -> LedgerError {
    if e.kind() == io::ErrorKind::UnexpectedEof {
        LedgerError::Damaged("it is cut")
    } else {
        LedgerError::Read(e)
    }
}
