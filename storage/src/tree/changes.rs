//! `docker diff`: the paths that a container changed, in the order of a listing.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use davit_cowfs::Namespace;

pub use super::compare::Change;
use super::compare::{Compare, Sink, Upper};
use super::lower::Lower;
use super::place::{Access, Overlay};
use super::{Tree, TreeError, io_error};

/// What a tree is compared with.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its layers' directories, topmost first, where the tree's own mounts do not name them.
    pub layers: Vec<PathBuf>,
    /// Of the layers' attributes.
    pub namespace: Namespace,
    /// A file that was written when the tree had been made of the image, and before anyone could change it.
    pub made_before: Option<PathBuf>,
}

/// The changes of a tree, each directory before what is in it. Paths are absolute.
pub fn changes(tree: &Tree, image: &Image) -> Result<Vec<(Change, Vec<u8>)>, TreeError> {
    let mut lines = compared(tree, image, Lines::default())?.0;
    // A slash sorts before all other bytes: "/a/b" comes before "/a-b".
    lines.sort_by(|a, b| a.1.split(|c| *c == b'/').cmp(b.1.split(|c| *c == b'/')));
    Ok(lines)
}

/// Compares a tree with its image on a thread apart.
pub(super) fn compared<S: Sink + Send + 'static>(
    tree: &Tree,
    image: &Image,
    sink: S,
) -> Result<S, TreeError> {
    let overlay = tree.mounts.first().and_then(Overlay::of);
    let (layers, namespace) = match &overlay {
        Some(overlay) => (&overlay.lower, overlay.namespace),
        None => (&image.layers, image.namespace),
    };
    // All that is named by a path is opened before the tree is mounted, which hides the snapshot's directory from that thread.
    let lower = Lower::open(layers, namespace).map_err(|e| io_error("open the image of", b"", e))?;
    let upper = overlay.as_ref().map(|o| open_upper(&o.upper, o.namespace)).transpose()?;
    let made = if upper.is_none() { image.made_before.as_deref().and_then(written_at) } else { None };
    tree.enter(Access::Snapshot, move |root| {
        let mut compare = Compare::new(lower, upper, root, sink);
        compare.touched_after = made;
        compare.run()
    })
}

fn open_upper(path: &Path, namespace: Namespace) -> Result<Upper, TreeError> {
    let root =
        davit_sys::beneath::open_root(path).map_err(|e| io_error("open the changes of", b"", e.source))?;
    Ok(Upper { root, namespace })
}

fn written_at(path: &Path) -> Option<(i64, i64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|m| (m.mtime(), m.mtime_nsec()))
}

#[derive(Default)]
struct Lines(Vec<(Change, Vec<u8>)>);

impl Sink for Lines {
    fn exact(&self) -> bool {
        false
    }

    fn put(&mut self, change: Change, path: &[u8], _: BorrowedFd<'_>, _: &OsStr) -> Result<(), TreeError> {
        // docker never shows the root.
        if !path.is_empty() {
            self.0.push((change, [b"/", path].concat()));
        }
        Ok(())
    }

    fn replaced(&mut self, _: &[u8]) -> Result<(), TreeError> {
        Ok(())
    }

    fn hidden(&mut self, path: &[u8]) -> Result<(), TreeError> {
        self.0.push((Change::Deleted, [b"/", path].concat()));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
