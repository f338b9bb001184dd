//! The layer that `commit` makes: what a container changed, as a tar with whiteouts (OCI image-spec, layer.md).
//!
//! What is deleted becomes an empty file `.wh.NAME`; a directory that replaced the image's is followed by `.wh..wh..opq`. The root comes
//! first, because a layer's root decides on the owner and mode of the whole tree's.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::BorrowedFd;

use super::archive::{Archiver, Style};
use super::changes::{Image, compared};
use super::compare::{Change, Sink};
use super::tarwriter::TarWriter;
use super::{Chunks, Tree, TreeError, io_error, joined, member, vanished};
use crate::tarball::{Entry, Kind, Time};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Writes what a tree changed in its image; answers how many members there are.
pub fn write_layer(tree: &Tree, image: &Image, out: Chunks) -> Result<u64, TreeError> {
    let archiver = Archiver::new(TarWriter::new(out), Style { sparse: true });
    let tar = compared(tree, image, Layer { archiver })?.archiver.tar;
    let members = tar.members();
    tar.finish().map_err(TreeError::Write)?;
    Ok(members)
}

struct Layer<W> {
    archiver: Archiver<W>,
}

impl<W: Write> Layer<W> {
    fn mark(&mut self, path: Vec<u8>) -> Result<(), TreeError> {
        let entry = Entry {
            path,
            link: Vec::new(),
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            size: 0,
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        };
        self.archiver.tar.append_data(&entry, std::io::empty()).map_err(TreeError::Write)
    }
}

impl<W: Write> Sink for Layer<W> {
    fn exact(&self) -> bool {
        true
    }

    fn put(
        &mut self,
        change: Change,
        path: &[u8],
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), TreeError> {
        if path.split(|b| *b == b'/').any(|part| part.starts_with(WHITEOUT)) {
            // It would hide a file instead of being one.
            tracing::warn!(path = %super::shown(path), "a file whose name means a deletion in layers is left out");
            return Ok(());
        }
        if change == Change::Deleted {
            let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
                Some(slash) => (&path[..slash], &path[slash + 1..]),
                None => (&b""[..], path),
            };
            return self.mark(joined(parent, &[WHITEOUT, name].concat()));
        }
        let written = if path.is_empty() { b"./".to_vec() } else { path.to_vec() };
        let member = match member::read(dir, name, written) {
            Ok(Some(member)) => member,
            Ok(None) => return Ok(()),
            Err(e) if vanished(&e) => return Ok(()),
            Err(e) => return Err(io_error("read", path, e)),
        };
        self.archiver.member(member, path).map(drop)
    }

    fn replaced(&mut self, path: &[u8]) -> Result<(), TreeError> {
        self.mark(joined(path, OPAQUE))
    }

    fn hidden(&mut self, _: &[u8]) -> Result<(), TreeError> {
        Ok(())
    }
}
