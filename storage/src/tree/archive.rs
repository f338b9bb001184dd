//! A tree as a tar: depth first, names sorted, hard links as links to the first name.
//!
//! Directories are entered by descriptor. Of those on the way down only the deepest are held open: others are opened again by their
//! path from the root, and what is not the same directory any more (the container has moved it) ends there.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::Mode;

use super::member::{self, Member, Opened};
use super::place::Access;
use super::tarwriter::TarWriter;
use super::{Chunks, Tree, TreeError, io_error, joined, shown, vanished};
use crate::tarball::Kind;

/// Directories held open at a time.
const OPEN: usize = 32;
/// The kernel's bound on a path.
const MAX_PATH: usize = 4096;
/// Files with several names that are remembered; beyond, further names are written as files of their own.
const MAX_LINKS: usize = 500_000;

/// How files are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// Files with large holes as sparse members.
    pub(super) sparse: bool,
}

/// Writes members, and remembers those with several names.
pub(super) struct Archiver<W> {
    /// Where to.
    pub(super) tar: TarWriter<W>,
    style: Style,
    /// Under which name a file was written, and how many further names it has.
    links: HashMap<Inode, (Box<[u8]>, u64)>,
}

/// Device and inode number.
type Inode = (u64, u64);

struct Frame {
    /// Below the root.
    path: Vec<u8>,
    dir: Option<OwnedFd>,
    identity: (u64, u64),
    names: std::vec::IntoIter<Box<[u8]>>,
}

impl<W: Write> Archiver<W> {
    pub(super) fn new(tar: TarWriter<W>, style: Style) -> Self {
        Self { tar, style, links: HashMap::new() }
    }

    /// Writes one member as it is; answers the directory when it is one.
    pub(super) fn member(&mut self, member: Member, path: &[u8]) -> Result<Option<OwnedFd>, TreeError> {
        let Member { mut entry, opened, identity, links } = member;
        let failed = |e| super::write_error(path, e);
        if links > 1 && entry.kind != Kind::Directory {
            if let Some((first, left)) = self.links.get_mut(&identity) {
                entry.kind = Kind::HardLink;
                entry.link = first.to_vec();
                entry.size = 0;
                *left -= 1;
                if *left == 0 {
                    self.links.remove(&identity);
                }
                return self.tar.append(&entry).map(|()| None).map_err(failed);
            }
            if self.links.len() < MAX_LINKS {
                self.links.insert(identity, (entry.path.as_slice().into(), links - 1));
            }
        }
        match opened {
            Opened::Directory(fd) => self.tar.append(&entry).map(|()| Some(fd)).map_err(failed),
            Opened::Nothing => self.tar.append(&entry).map(|()| None).map_err(failed),
            Opened::File(mut file) => {
                let blocks = rustix::fs::fstat(&file).map_or(0, |s| s.st_blocks as u64);
                let map =
                    if self.style.sparse { member::sparse_map(&file, entry.size, blocks) } else { None };
                if let Some(map) = map {
                    entry.sparse = Some(map.clone());
                    self.tar.append_sparse(&entry, &map, &file).map_err(failed)?;
                } else {
                    file.rewind().map_err(|e| io_error("read", path, e))?;
                    self.tar.append_data(&entry, &mut file).map_err(failed)?;
                }
                Ok(None)
            }
        }
    }

    /// Writes everything below an open directory, each path with `prefix` before it. The directory itself is written by the caller.
    pub(super) fn below(&mut self, root: BorrowedFd<'_>, prefix: &[u8]) -> Result<(), TreeError> {
        let top = root.try_clone_to_owned().map_err(|e| io_error("open", b"", e))?;
        let mut frames = vec![frame(top, Vec::new())?];
        while let Some(last) = frames.last_mut() {
            let Some(name) = last.names.next() else {
                frames.pop();
                continue;
            };
            if !reopen(root, last)? {
                frames.pop();
                continue;
            }
            let Some(dir) = &last.dir else { continue };
            let path = joined(&last.path, &name);
            if path.len() > MAX_PATH {
                return Err(TreeError::TooDeep(shown(&path)));
            }
            let written = joined(prefix, &path);
            let read = match member::read(dir.as_fd(), OsStr::from_bytes(&name), written) {
                Ok(Some(read)) => read,
                Ok(None) => continue,
                Err(e) if vanished(&e) => continue,
                Err(e) => return Err(io_error("read", &path, e)),
            };
            if let Some(fd) = self.member(read, &path)? {
                frames.push(frame(fd, path)?);
                if frames.len() > OPEN {
                    let far = frames.len() - OPEN - 1;
                    frames[far].dir = None;
                }
            }
        }
        Ok(())
    }
}

fn frame(dir: OwnedFd, path: Vec<u8>) -> Result<Frame, TreeError> {
    let stat = rustix::fs::fstat(&dir).map_err(|e| io_error("look at", &path, e))?;
    let names = match member::names(dir.as_fd()) {
        Ok(Some(names)) => names,
        Ok(None) => return Err(TreeError::TooManyEntries(shown(&path))),
        // It was removed after it was opened.
        Err(e) if vanished(&e) => Vec::new(),
        Err(e) => return Err(io_error("list", &path, e)),
    };
    Ok(Frame { path, dir: Some(dir), identity: (stat.st_dev, stat.st_ino), names: names.into_iter() })
}

/// Opens a directory again that was closed on the way down; answers whether it is still the same.
fn reopen(root: BorrowedFd<'_>, frame: &mut Frame) -> Result<bool, TreeError> {
    if frame.dir.is_some() {
        return Ok(true);
    }
    let path = Path::new(OsStr::from_bytes(&frame.path));
    match davit_sys::beneath::open(root, path, member::directory_flags(), Mode::empty()) {
        Ok(fd) => {
            let stat = rustix::fs::fstat(&fd).map_err(|e| io_error("look at", &frame.path, e))?;
            frame.dir = Some(fd);
            Ok((stat.st_dev, stat.st_ino) == frame.identity)
        }
        Err(e) if vanished(&e.source) => Ok(false),
        Err(e) => Err(io_error("open", &frame.path, e.source)),
    }
}

/// The whole tree below `root` with the root itself as "./", as `docker export` writes it.
pub(super) fn whole<W: Write>(root: BorrowedFd<'_>, tar: TarWriter<W>) -> Result<TarWriter<W>, TreeError> {
    let entry = member::of_directory(root, b"./".to_vec()).map_err(|e| io_error("look at", b"", e))?;
    let mut archiver = Archiver::new(tar, Style { sparse: true });
    archiver.tar.append(&entry).map_err(TreeError::Write)?;
    archiver.below(root, b"")?;
    Ok(archiver.tar)
}

/// `docker export`: the container's own files, without what is mounted in it.
pub fn export(tree: &Tree, out: Chunks) -> Result<(), TreeError> {
    tree.enter(Access::Snapshot, |root| {
        whole(root, TarWriter::new(out))?.finish().map(drop).map_err(TreeError::Write)
    })
}

#[cfg(test)]
pub(super) mod tests;
