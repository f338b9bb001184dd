//! Turning a layer's tar into a directory in overlay format.
//!
//! The archive is hostile. Every path is resolved by walking directory descriptors from the layer's root; nothing above
//! the root can be named, links are followed by us and only inside, and no entry is opened through a link. The result
//! is what kernel overlayfs stacks: whiteouts as devices 0:0, opaque directories by xattr.
//!
//! The destination belongs to the caller alone while this runs (a fresh directory below a 0700 one), so nobody else
//! changes the tree between two steps.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use davit_cowfs::{Namespace, OPAQUE_VALUE, TarName, tar_name};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use crate::ledger::{Event, Node, NodeKind, Recorder};
use crate::tarball::{Entry, Kind, Passage, TarError, TarReader};

mod attributes;
mod deferred;
mod place;
mod walk;

use attributes::Creation;
use deferred::Deferred;
use place::Placed;
use walk::{IMPLIED_MODE, Place, Walk};

/// What is read and written at a time.
const BUFFER: usize = 128 << 10;

/// More names of attributes than this the kernel does not list (XATTR_LIST_MAX).
const MAX_XATTR_NAMES: usize = 65536;

/// What bounds a layer.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Headers.
    pub entries: u64,
    /// Bytes of all files, with their holes filled.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 4_000_000, bytes: 1 << 40 }
    }
}

/// How to unpack.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Which xattrs mark opaque directories.
    pub namespace: Namespace,
    /// Device nodes cannot be made: leave them out and count them.
    pub rootless: bool,
    /// Whether `.wh.` names mean whiteouts. In an imported root file system they do not.
    pub whiteouts: bool,
    /// Bounds.
    pub limits: Limits,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of regular files; docker's idea of a layer's size.
    pub size: u64,
    /// The layer hides everything below it.
    pub opaque_root: bool,
    /// Entries left out because this daemon may not make them.
    pub skipped: u64,
}

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// `..`, an empty name, a name with a zero byte, a whiteout of the root.
    #[error("the layer holds an unsafe path '{0}'")]
    UnsafePath(String),
    /// A hard link to something that is not there (or not in this layer).
    #[error("the layer's '{path}' is a hard link to '{target}', which cannot be linked to")]
    HardLink {
        /// The link.
        path: String,
        /// Its target.
        target: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More than [`Limits`].
    #[error("the layer is larger than allowed: more than {0}")]
    TooLarge(String),
    /// What was unpacked could not be written down.
    #[error("cannot write down what the layer holds")]
    Record(#[source] io::Error),
    /// A system call failed.
    #[error("cannot {operation} '{path}' of the layer")]
    Io {
        /// What.
        operation: &'static str,
        /// In the layer.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Unpacks all entries of `tar` into the directory `root`, and tells `recorder` what the tree is to look like.
pub fn unpack<R: Passage>(
    tar: &mut TarReader<R>,
    root: BorrowedFd<'_>,
    options: &Options,
    recorder: &mut dyn Recorder,
) -> Result<Stats, UnpackError> {
    let root = root.try_clone_to_owned().map_err(|e| io_error("open", b"/", e))?;
    let mut unpacker = Unpacker {
        walk: Walk::new(root, options.namespace).map_err(|e| io_error("look at", b"/", e))?,
        options,
        creation: Creation::of_this_process(),
        stats: Stats::default(),
        deferred: Deferred::default(),
        buffer: vec![0; BUFFER],
        recorder,
    };
    unpacker.record(Event::Node { path: b"", node: unpacker.implied_directory() })?;
    while let Some(entry) = tar.next_entry()? {
        unpacker.count(&entry)?;
        unpacker.entry(tar, &entry)?;
    }
    unpacker.finish()
}

struct Unpacker<'a> {
    walk: Walk,
    options: &'a Options,
    creation: Creation,
    stats: Stats,
    deferred: Deferred,
    buffer: Vec<u8>,
    recorder: &'a mut dyn Recorder,
}

impl Unpacker<'_> {
    fn count(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        self.stats.entries += 1;
        let limits = &self.options.limits;
        if self.stats.entries > limits.entries {
            return Err(UnpackError::TooLarge(format!("{} entries", limits.entries)));
        }
        self.stats.size = self.stats.size.saturating_add(entry.real_size());
        if self.stats.size > limits.bytes {
            return Err(UnpackError::TooLarge(format!("{} bytes", limits.bytes)));
        }
        let names: usize = entry.xattrs.iter().map(|(name, _)| name.len() + 1).sum();
        if names > MAX_XATTR_NAMES {
            return Err(UnpackError::TooLarge(format!("{MAX_XATTR_NAMES} bytes of names of attributes")));
        }
        Ok(())
    }

    fn record(&mut self, event: Event<'_>) -> Result<(), UnpackError> {
        self.recorder.record(event).map_err(UnpackError::Record)
    }

    fn entry<R: Passage>(&mut self, tar: &mut TarReader<R>, entry: &Entry) -> Result<(), UnpackError> {
        let components = walk::components(&entry.path)?;
        let Some((name, parents)) = components.split_last() else {
            // "./": the root itself.
            return if entry.kind == Kind::Directory {
                self.root_entry(entry)
            } else {
                Err(unsafe_path(&entry.path))
            };
        };
        let name = OsStr::from_bytes(name);
        let meaning = if self.options.whiteouts { tar_name(name.as_bytes()) } else { TarName::Plain };
        if meaning == TarName::Ignored {
            return Ok(());
        }
        if meaning == TarName::Invalid {
            return Err(unsafe_path(&entry.path));
        }
        let parent = self.walk.parent(parents, &entry.path)?;
        self.record_steps(tar)?;
        match meaning {
            TarName::Opaque => self.opaque(&parent, &entry.path),
            TarName::Whiteout(hidden) => self.whiteout(&parent, OsStr::from_bytes(hidden), &entry.path),
            _ => {
                let mut over_whiteout = false;
                while self.place(tar, &parent, name, entry, over_whiteout)? == Placed::Occupied {
                    over_whiteout |= self.make_room(&parent, name, entry)?;
                    tar.inner_mut().replaced();
                }
                Ok(())
            }
        }
    }

    /// What resolving the parents made on the way.
    fn record_steps<R: Passage>(&mut self, tar: &mut TarReader<R>) -> Result<(), UnpackError> {
        for step in self.walk.take_steps() {
            if step.replaced {
                tar.inner_mut().replaced();
                self.record(Event::Gone { path: &step.path })?;
            }
            self.record(Event::Node { path: &step.path, node: self.implied_directory() })?;
            if step.opaque {
                self.record(Event::Opaque { path: &step.path })?;
            }
        }
        Ok(())
    }

    /// A directory that no entry names: nobody sets its time.
    fn implied_directory(&self) -> Node<'static> {
        Node {
            kind: NodeKind::Directory,
            mode: IMPLIED_MODE,
            uid: self.creation.uid,
            gid: self.creation.gid,
            mtime: None,
            xattrs: Vec::new(),
        }
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        let root = self.walk.root_place();
        self.existing_directory(root.dir.as_fd(), b"", entry)?;
        // Its group may have changed.
        self.walk.look_at_root_again().map_err(|e| io_error("look at", b"/", e))
    }

    fn opaque(&mut self, parent: &Place, path: &[u8]) -> Result<(), UnpackError> {
        if parent.path.is_empty() {
            // overlayfs always merges the roots: the driver leaves the lower layers out instead.
            self.stats.opaque_root = true;
            return Ok(());
        }
        let name = OsStr::new(self.options.namespace.opaque());
        davit_sys::xattr::set(parent.dir.as_fd(), name, OPAQUE_VALUE)
            .map_err(|e| io_error("make opaque", path, e))?;
        self.record(Event::Opaque { path: &parent.path })
    }

    /// A whiteout hides what lower layers have. What this very layer has under the name stays, but as a directory it
    /// must not merge with a lower one.
    fn whiteout(&mut self, parent: &Place, hidden: &OsStr, path: &[u8]) -> Result<(), UnpackError> {
        let place = parent.join(hidden);
        match walk::kind_at(parent.dir.as_fd(), hidden) {
            Err(rustix::io::Errno::NOENT) => {
                place::make_whiteout(parent.dir.as_fd(), hidden).map_err(|e| io_error("hide", path, e))?;
                let (uid, gid) = (self.creation.uid, self.creation.gid);
                let node =
                    Node { kind: NodeKind::Whiteout, mode: 0, uid, gid, mtime: None, xattrs: Vec::new() };
                self.record(Event::Node { path: &place, node })
            }
            Ok(FileType::Directory) => {
                let dir = open_dir(parent.dir.as_fd(), hidden).map_err(|e| io_error("open", path, e))?;
                let name = OsStr::new(self.options.namespace.opaque());
                davit_sys::xattr::set(dir.as_fd(), name, OPAQUE_VALUE)
                    .map_err(|e| io_error("make opaque", path, e))?;
                self.record(Event::Opaque { path: &place })
            }
            Ok(_) => Ok(()),
            Err(e) => Err(io_error("look at", path, e)),
        }
    }

    /// Removes what an earlier entry put there, which is no directory where a directory is to come. Answers whether it was
    /// a whiteout.
    fn make_room(&mut self, parent: &Place, name: &OsStr, entry: &Entry) -> Result<bool, UnpackError> {
        let dir = parent.dir.as_fd();
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| io_error("look at", &entry.path, e))?;
        let there = FileType::from_raw_mode(stat.st_mode);
        self.walk.forget();
        if there == FileType::Directory {
            // Through the root, which then takes the parts that are too deep.
            let top = self.walk.root();
            let doomed = format!(".davit-doomed-{:016x}", rand::random::<u64>());
            rustix::fs::renameat(dir, name, top, &doomed).map_err(|e| io_error("replace", &entry.path, e))?;
            crate::trash::delete_in(top, OsStr::new(&doomed))
                .map_err(|e| io_error("replace", &entry.path, e))?;
        } else {
            rustix::fs::unlinkat(dir, name, AtFlags::empty())
                .map_err(|e| io_error("replace", &entry.path, e))?;
        }
        self.record(Event::Gone { path: &parent.join(name) })?;
        Ok(there == FileType::CharacterDevice && stat.st_rdev == 0)
    }

    fn finish(mut self) -> Result<Stats, UnpackError> {
        self.walk.forget();
        self.deferred.apply(self.walk.root())?;
        Ok(self.stats)
    }
}

fn show(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(&path[..path.len().min(300)]);
    text.escape_debug().to_string()
}

fn unsafe_path(path: &[u8]) -> UnpackError {
    UnpackError::UnsafePath(show(path))
}

fn io_error(operation: &'static str, path: &[u8], e: impl Into<io::Error>) -> UnpackError {
    UnpackError::Io { operation, path: show(path), source: e.into() }
}

/// Opens an existing directory below a parent without following links.
fn open_dir(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests;
