//! What a container changed in its image: the image's layers on one side, the container's merged tree on the other.
//!
//! Where the container's layer is an overlay directory, only what is in it can have changed, and only that is looked at. A directory
//! of it that hides what is below (opaque), or that comes from elsewhere (redirect), has replaced the image's: then both are listed.
//! Trees without such a directory (the copy driver, other snapshotters) are compared file by file, as docker compares: type, mode,
//! owner, size and time of modification.
//!
//! Every directory is read whole, closed, and only then are its subdirectories entered: a deep tree holds nothing open. A directory in
//! which something has changed counts as changed itself; it is reported before what is in it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use davit_cowfs::Namespace;
use rustix::fs::{AtFlags, FileType, Mode, Stat};

use super::lower::{Lower, LowerDir, LowerFile, is_whiteout};
use super::{TreeError, io_error, joined, member, shown, vanished};

/// The kernel's bound on a path.
const MAX_PATH: usize = 4096;

/// What happened to a path; in docker's letters C, A and D.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It, or something in it, is not as in the image.
    Modified,
    /// The image has nothing there.
    Added,
    /// The image has something there, the container nothing.
    Deleted,
}

/// Takes what has changed. Paths are relative to the root, "" is the root.
pub(super) trait Sink {
    /// Whether the image could be made of what is taken: then nothing that may differ is left out.
    fn exact(&self) -> bool;
    /// Takes one change; what it is about is `name` in `dir`, unless it is deleted.
    fn put(
        &mut self,
        change: Change,
        path: &[u8],
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), TreeError>;
    /// Nothing of the image's directory at this path shows; what is deleted in it is only told.
    fn replaced(&mut self, path: &[u8]) -> Result<(), TreeError>;
    /// A deleted path in a directory that was replaced.
    fn hidden(&mut self, path: &[u8]) -> Result<(), TreeError>;
}

/// How a directory's changes are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// In the container's layer, which has this directory and merges it with the image's.
    Upper,
    /// All of it is the container's; the image has a directory here as well.
    Replaced,
    /// All of it is the container's, and the image has none.
    Fresh,
    /// By comparing every file.
    Whole,
}

/// The container's own layer.
pub(super) struct Upper {
    pub(super) root: OwnedFd,
    pub(super) namespace: Namespace,
}

/// A comparison.
pub(super) struct Compare<'a, S> {
    pub(super) lower: Lower,
    pub(super) upper: Option<Upper>,
    /// The container's tree as its program sees it.
    pub(super) root: BorrowedFd<'a>,
    /// A file whose inode changed at or after this time (seconds, nanoseconds) was touched by the container, whatever
    /// else it says. The kernel's clock for files moves in steps of milliseconds: what was copied in the same step is
    /// taken for touched too, which costs a few bytes; the other way round a change would be lost.
    pub(super) touched_after: Option<(i64, i64)>,
    pub(super) sink: S,
    /// Directories on the way down that count as changed when something in them has.
    pending: Vec<(Vec<u8>, Change)>,
}

struct Subdirectory {
    path: Vec<u8>,
    old: Option<LowerDir>,
    way: Way,
    pending: Option<Change>,
}

impl<'a, S: Sink> Compare<'a, S> {
    pub(super) fn new(lower: Lower, upper: Option<Upper>, root: BorrowedFd<'a>, sink: S) -> Self {
        Self { lower, upper, root, touched_after: None, sink, pending: Vec::new() }
    }

    /// Compares everything and gives the sink back.
    pub(super) fn run(mut self) -> Result<S, TreeError> {
        let way = if self.upper.is_some() { Way::Upper } else { Way::Whole };
        let old = Some(self.lower.root());
        self.enter(&Subdirectory { path: Vec::new(), old, way, pending: Some(Change::Modified) })?;
        Ok(self.sink)
    }

    fn enter(&mut self, sub: &Subdirectory) -> Result<(), TreeError> {
        let depth = self.pending.len();
        self.pending.extend(sub.pending.map(|change| (sub.path.clone(), change)));
        for below in self.directory(sub)? {
            self.enter(&below)?;
        }
        // Unless something below has been told: then none is pending.
        self.pending.truncate(depth);
        Ok(())
    }

    /// Tells what has changed in one directory, and answers which of its subdirectories are to be entered.
    fn directory(&mut self, dir: &Subdirectory) -> Result<Vec<Subdirectory>, TreeError> {
        let Some(new) = open_dir(self.root, &dir.path)? else { return Ok(Vec::new()) };
        let mut subdirectories = Vec::new();
        if dir.way == Way::Upper {
            let Some(upper) = self.open_upper(&dir.path)? else { return Ok(Vec::new()) };
            for name in listed(upper.as_fd(), &dir.path)? {
                let path = checked(&dir.path, &name)?;
                let Some(stat) = look_at(upper.as_fd(), &name, &path)? else { continue };
                if is_whiteout(&stat) {
                    if self.old(dir, &name, &path)?.is_some() {
                        self.report(Change::Deleted, &path, new.as_fd(), &name)?;
                    }
                } else {
                    subdirectories.extend(self.file(dir, new.as_fd(), &name, path)?);
                }
            }
            return Ok(subdirectories);
        }
        let mut names: BTreeSet<Box<[u8]>> = listed(new.as_fd(), &dir.path)?.into_iter().collect();
        if let Some(old) = &dir.old {
            names.extend(self.lower.names(old).map_err(|e| io_error("list the image's", &dir.path, e))?);
        }
        for name in names {
            let path = checked(&dir.path, &name)?;
            subdirectories.extend(self.file(dir, new.as_fd(), &name, path)?);
        }
        Ok(subdirectories)
    }

    fn file(
        &mut self,
        dir: &Subdirectory,
        new: BorrowedFd<'_>,
        name: &[u8],
        path: Vec<u8>,
    ) -> Result<Option<Subdirectory>, TreeError> {
        let was = self.old(dir, name, &path)?;
        let Some(stat) = look_at(new, name, &path)? else {
            match (was, dir.way) {
                (Some(_), Way::Replaced) => self.sink.hidden(&path)?,
                (Some(_), Way::Whole) => self.report(Change::Deleted, &path, new, name)?,
                _ => {}
            }
            return Ok(None);
        };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let fresh = |pending| Subdirectory { path: path.clone(), old: None, way: Way::Fresh, pending };
        match was {
            None if made_by_engine(&path, &stat) => Ok(is_dir.then(|| fresh(Some(Change::Added)))),
            None => {
                self.report(Change::Added, &path, new, name)?;
                Ok(is_dir.then(|| fresh(None)))
            }
            Some(was) if is_dir && was.dir.is_some() => {
                self.both_directories(dir, new, name, path, &stat, was)
            }
            Some(was) => {
                if is_dir || self.differs(dir.way, &was, &stat, new, name, &path)? {
                    self.report(Change::Modified, &path, new, name)?;
                }
                Ok(is_dir.then(|| fresh(None)))
            }
        }
    }

    fn both_directories(
        &mut self,
        dir: &Subdirectory,
        new: BorrowedFd<'_>,
        name: &[u8],
        path: Vec<u8>,
        stat: &Stat,
        was: LowerFile,
    ) -> Result<Option<Subdirectory>, TreeError> {
        let way = if dir.way == Way::Upper { self.way_of(&path)? } else { dir.way };
        let mut changed = different_owner_or_mode(stat, &was.stat);
        if self.sink.exact() {
            let time = (stat.st_mtime, stat.st_mtime_nsec) != (was.stat.st_mtime, was.stat.st_mtime_nsec);
            changed |= way == Way::Replaced
                || (time && !is_place_of_engine(&path))
                || self.other_attributes(&was, new, name, &path)?;
        }
        if changed {
            self.report(Change::Modified, &path, new, name)?;
        }
        if way == Way::Replaced && dir.way == Way::Upper {
            self.sink.replaced(&path)?;
        }
        let pending = (!changed).then_some(Change::Modified);
        Ok(Some(Subdirectory { path, old: was.dir, way, pending }))
    }

    /// Whether a file that is no directory, at least not on both sides, has changed.
    fn differs(
        &self,
        way: Way,
        was: &LowerFile,
        stat: &Stat,
        new: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
    ) -> Result<bool, TreeError> {
        if way != Way::Whole || was.dir.is_some() {
            return Ok(true);
        }
        let (is, old) = (stat, &was.stat);
        let differs = different_owner_or_mode(is, old)
            || is.st_rdev != old.st_rdev
            || is.st_size != old.st_size
            || (is.st_mtime, is.st_mtime_nsec) != (old.st_mtime, old.st_mtime_nsec);
        let touched = self.sink.exact()
            && self.touched_after.is_some_and(|t| (is.st_ctime, is.st_ctime_nsec as i64) >= t);
        Ok(differs || touched || self.other_attributes(was, new, name, path)?)
    }

    fn other_attributes(
        &self,
        was: &LowerFile,
        new: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
    ) -> Result<bool, TreeError> {
        let failed = |e| io_error("read attributes of", path, e);
        match davit_sys::xattr::all_at(new, OsStr::from_bytes(name)) {
            Ok(now) => Ok(member::kept(now) != self.lower.attributes(was).map_err(failed)?),
            Err(e) if vanished(&e) => Ok(false),
            Err(e) => Err(failed(e)),
        }
    }

    fn old(&self, dir: &Subdirectory, name: &[u8], path: &[u8]) -> Result<Option<LowerFile>, TreeError> {
        let Some(old) = &dir.old else { return Ok(None) };
        self.lower.find(old, name).map_err(|e| io_error("look at the image's", path, e))
    }

    fn open_upper(&self, path: &[u8]) -> Result<Option<OwnedFd>, TreeError> {
        match &self.upper {
            Some(upper) => open_dir(upper.root.as_fd(), path),
            None => Ok(None),
        }
    }

    /// Whether a directory of the container's layer merges with the image's.
    fn way_of(&self, path: &[u8]) -> Result<Way, TreeError> {
        let (Some(upper), Some(dir)) = (&self.upper, self.open_upper(path)?) else { return Ok(Way::Upper) };
        let attribute = |name| {
            davit_sys::xattr::get(dir.as_fd(), OsStr::new(name))
                .map_err(|e| io_error("read attributes of", path, e))
        };
        let opaque = attribute(upper.namespace.opaque())?.is_some_and(|v| v == davit_cowfs::OPAQUE_VALUE);
        let replaced = opaque || attribute(upper.namespace.redirect())?.is_some();
        Ok(if replaced { Way::Replaced } else { Way::Upper })
    }

    fn report(
        &mut self,
        change: Change,
        path: &[u8],
        dir: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(), TreeError> {
        for (above, change) in std::mem::take(&mut self.pending) {
            let (parent, name) = match above.iter().rposition(|b| *b == b'/') {
                Some(slash) => (&above[..slash], &above[slash + 1..]),
                None if above.is_empty() => (&b""[..], &b"."[..]),
                None => (&b""[..], above.as_slice()),
            };
            if let Some(parent) = open_dir(self.root, parent)? {
                self.sink.put(change, &above, parent.as_fd(), OsStr::from_bytes(name))?;
            }
        }
        self.sink.put(change, path, dir, OsStr::from_bytes(name))
    }
}

fn different_owner_or_mode(a: &Stat, b: &Stat) -> bool {
    (a.st_mode, a.st_uid, a.st_gid) != (b.st_mode, b.st_uid, b.st_gid)
}

fn checked(dir: &[u8], name: &[u8]) -> Result<Vec<u8>, TreeError> {
    let path = joined(dir, name);
    if path.len() > MAX_PATH { Err(TreeError::TooDeep(shown(&path))) } else { Ok(path) }
}

fn listed(dir: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<Box<[u8]>>, TreeError> {
    match member::names(dir) {
        Ok(Some(names)) => Ok(names),
        Ok(None) => Err(TreeError::TooManyEntries(shown(path))),
        Err(e) if vanished(&e) => Ok(Vec::new()),
        Err(e) => Err(io_error("list", path, e)),
    }
}

fn look_at(dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<Option<Stat>, TreeError> {
    match rustix::fs::statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(e) if vanished(&e.into()) => Ok(None),
        Err(e) => Err(io_error("look at", path, e)),
    }
}

fn open_dir(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<OwnedFd>, TreeError> {
    let below = Path::new(OsStr::from_bytes(path));
    match davit_sys::beneath::open(root, below, member::directory_flags(), Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(e) if vanished(&e.source) => Ok(None),
        Err(e) => Err(io_error("open", path, e.source)),
    }
}

/// Where a container's own mounts lie: the engine makes these places in a tree that lacks them, as docker does in a layer that it
/// shows to nobody.
const PLACES: [&[u8]; 13] = [
    b".dockerenv",
    b"dev",
    b"dev/console",
    b"dev/mqueue",
    b"dev/pts",
    b"dev/shm",
    b"etc",
    b"etc/hostname",
    b"etc/hosts",
    b"etc/mtab",
    b"etc/resolv.conf",
    b"proc",
    b"sys",
];

fn is_place_of_engine(path: &[u8]) -> bool {
    PLACES.contains(&path)
}

/// Empty files, and directories, which count when something else is in them.
fn made_by_engine(path: &[u8], stat: &Stat) -> bool {
    is_place_of_engine(path)
        && match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => true,
            FileType::RegularFile => stat.st_size == 0,
            _ => false,
        }
}
