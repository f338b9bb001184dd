//! A ledger of a tree that is known to be right: for a layer whose own ledger is missing or damaged.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::expected::Kind;
use super::look::{self, Found};
use super::pace::Pace;
use crate::failure::{At as _, PathError};
use crate::ledger::{Event, Node, NodeKind, Recorder as _, Writer};

/// Writes down everything below `root` but for directories' times from `since` on: those were not set, they happened.
pub(super) fn scan<W: Write>(
    root: BorrowedFd<'_>,
    opaque: &str,
    since: i64,
    into: W,
    pace: &mut Pace<'_>,
) -> Result<W, PathError> {
    let mut scan = Scan {
        writer: Writer::new(into).at("write", Path::new("ledger"))?,
        opaque,
        since,
        names: HashMap::new(),
    };
    scan.record(root, OsStr::new("."), b"", pace).at("look at", Path::new("/"))?;
    let mut todo = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let shown = Path::new(OsStr::from_bytes(&path)).to_path_buf();
        let dir = look::open_dir(root, &path).at("open", &shown)?;
        let mut names = look::names(dir.as_fd()).at("read", &shown)?;
        names.sort();
        for name in names {
            let below = if path.is_empty() {
                name.as_bytes().to_vec()
            } else {
                [path.as_slice(), name.as_bytes()].join(&b'/')
            };
            let is_directory =
                scan.record(dir.as_fd(), &name, &below, pace).at("look at", &shown.join(&name))?;
            if is_directory {
                todo.push(below);
            }
        }
    }
    let (out, _) = scan.writer.finish().at("write", Path::new("ledger"))?;
    Ok(out)
}

struct Scan<'a, W> {
    writer: Writer<W>,
    opaque: &'a str,
    since: i64,
    /// First names of files that have several.
    names: HashMap<u64, Vec<u8>>,
}

impl<W: Write> Scan<'_, W> {
    fn record(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &[u8],
        pace: &mut Pace<'_>,
    ) -> io::Result<bool> {
        let Some(found) = look::at(dir, name)? else { return Err(io::ErrorKind::NotFound.into()) };
        let Some(kind) = look::kind(&found, dir, name)? else { return Ok(false) };
        let is_directory = kind == Kind::Directory;
        if found.links > 1 && !is_directory {
            if let Some(target) = self.names.get(&found.inode) {
                self.writer.record(Event::Link { path, target })?;
                return Ok(false);
            }
            self.names.insert(found.inode, path.to_vec());
        }
        let mut xattrs = look::xattrs(dir, name)?;
        let is_opaque = xattrs.remove(self.opaque.as_bytes()).is_some();
        let kind = match &kind {
            Kind::File { size, .. } => {
                NodeKind::File { size: *size, digest: look::digest(dir, name, pace)?.1 }
            }
            Kind::Directory => NodeKind::Directory,
            Kind::Symlink { target } => NodeKind::Symlink { target },
            Kind::Fifo => NodeKind::Fifo,
            Kind::CharDevice(major, minor) => NodeKind::CharDevice { major: *major, minor: *minor },
            Kind::BlockDevice(major, minor) => NodeKind::BlockDevice { major: *major, minor: *minor },
            Kind::Whiteout => NodeKind::Whiteout,
        };
        let node = self.node(kind, &found, &xattrs);
        self.writer.record(Event::Node { path, node })?;
        if is_opaque {
            self.writer.record(Event::Opaque { path })?;
        }
        Ok(is_directory)
    }

    fn node<'n>(
        &self,
        kind: NodeKind<'n>,
        found: &Found,
        xattrs: &'n std::collections::BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Node<'n> {
        let happened = kind == NodeKind::Directory && found.mtime.seconds >= self.since;
        Node {
            kind,
            mode: found.mode,
            uid: found.uid,
            gid: found.gid,
            mtime: (!happened).then_some(found.mtime),
            xattrs: xattrs.iter().map(|(k, v)| (k.as_slice(), v.as_slice())).collect(),
        }
    }
}
