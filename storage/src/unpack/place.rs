//! Making one entry in its directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dev, FileType, Mode, OFlags};

use super::attributes::{Applied, Made};
use super::deferred::DEFAULT_ACL;
use super::walk::Place;
use super::{UnpackError, Unpacker, attributes, io_error, open_dir, unsafe_path, walk};
use crate::ledger::{Event, Node, NodeKind};
use crate::tarball::{Entry, Kind, Passage, SparseMap, TarError, TarReader};

/// A character device 0:0. Every user may make it (Linux 5.8).
pub(super) fn make_whiteout(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    let (major, minor) = davit_cowfs::WHITEOUT_RDEV;
    rustix::fs::mknodat(
        dir,
        name,
        FileType::CharacterDevice,
        Mode::empty(),
        rustix::fs::makedev(major, minor),
    )
}

/// Whether an entry was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    Done,
    /// Something else has its name. Nothing of its data has been taken.
    Occupied,
}

impl Unpacker<'_> {
    pub(super) fn place<R: Passage>(
        &mut self,
        tar: &mut TarReader<R>,
        parent: &Place,
        name: &OsStr,
        entry: &Entry,
        over_whiteout: bool,
    ) -> Result<Placed, UnpackError> {
        let dir = parent.dir.as_fd();
        let path = parent.join(name);
        let made = match entry.kind {
            Kind::File => return self.file(tar, parent, name, entry),
            Kind::Directory => return self.directory(parent, name, entry, over_whiteout),
            Kind::HardLink => return self.hard_link(parent, name, entry),
            Kind::Unknown(flag) => {
                tracing::warn!(flag, path = %super::show(&entry.path), "left out an entry of unknown type");
                self.stats.skipped += 1;
                return Ok(Placed::Done);
            }
            Kind::Symlink => {
                // PATH_MAX counts the zero byte.
                if entry.link.is_empty() || entry.link.len() >= walk::MAX_PATH {
                    return Err(unsafe_path(&entry.path));
                }
                rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), dir, name)
            }
            Kind::Fifo => rustix::fs::mknodat(dir, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0),
            Kind::CharDevice | Kind::BlockDevice => {
                if self.leaves_out_device(entry) {
                    return Ok(Placed::Done);
                }
                let (kind, device) = device(entry);
                match rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(0o600), device) {
                    Err(rustix::io::Errno::PERM) => {
                        self.stats.skipped += 1;
                        return Ok(Placed::Done);
                    }
                    other => other,
                }
            }
        };
        match made {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Ok(Placed::Occupied),
            Err(e) => return Err(io_error("create", &entry.path, e)),
        }
        let applied = attributes::of_name(dir, name, entry, self.options)?;
        let (major, minor) = entry.device;
        let kind = match entry.kind {
            Kind::Symlink => NodeKind::Symlink { target: &entry.link },
            Kind::Fifo => NodeKind::Fifo,
            Kind::CharDevice => NodeKind::CharDevice { major, minor },
            _ => NodeKind::BlockDevice { major, minor },
        };
        self.record_node(&path, kind, applied, entry)?;
        Ok(Placed::Done)
    }

    fn record_node(
        &mut self,
        path: &[u8],
        kind: NodeKind<'_>,
        applied: Applied<'_>,
        entry: &Entry,
    ) -> Result<(), UnpackError> {
        let Applied { mode, uid, gid, xattrs } = applied;
        self.record(Event::Node {
            path,
            node: Node { kind, mode, uid, gid, mtime: Some(entry.mtime), xattrs },
        })
    }

    fn made_in(&self, parent: &Place, mode_is_right: bool) -> Option<Made> {
        let creation = self.creation;
        parent.gives(creation.gid).then_some(Made { creation, gid: creation.gid, mode_is_right })
    }

    fn directory(
        &mut self,
        parent: &Place,
        name: &OsStr,
        entry: &Entry,
        over_whiteout: bool,
    ) -> Result<Placed, UnpackError> {
        let path = parent.join(name);
        let (mode, right) = self.creation.mode(entry.mode);
        let mode = if right { mode } else { Mode::RWXU };
        match rustix::fs::mkdirat(parent.dir.as_fd(), name, mode) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => {
                // Another directory stays, with what is in it.
                return match open_dir(parent.dir.as_fd(), name) {
                    Ok(dir) => self.existing_directory(dir.as_fd(), &path, entry).map(|()| Placed::Done),
                    Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => Ok(Placed::Occupied),
                    Err(e) => Err(io_error("open", &entry.path, e)),
                };
            }
            Err(e) => return Err(io_error("create the directory", &entry.path, e)),
        }
        let dir = open_dir(parent.dir.as_fd(), name).map_err(|e| io_error("open", &entry.path, e))?;
        let applied = attributes::of_descriptor(
            dir.as_fd(),
            entry,
            self.options,
            self.made_in(parent, right),
            entry.mode & SETGID,
        )?;
        self.finish_directory(dir.as_fd(), &path, entry, applied)?;
        if over_whiteout {
            let opaque = OsStr::new(self.options.namespace.opaque());
            davit_sys::xattr::set(dir.as_fd(), opaque, davit_cowfs::OPAQUE_VALUE)
                .map_err(|e| io_error("make opaque", &entry.path, e))?;
            self.record(Event::Opaque { path: &path })?;
        }
        Ok(Placed::Done)
    }

    /// An entry for a directory that is there already, such as the root.
    pub(super) fn existing_directory(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &[u8],
        entry: &Entry,
    ) -> Result<(), UnpackError> {
        // Its group may change, and with it what is made in it.
        self.walk.forget();
        let mut applied = attributes::of_descriptor(dir, entry, self.options, None, entry.mode & SETGID)?;
        let mut present = Vec::new();
        for name in davit_sys::xattr::list(dir).map_err(|e| io_error("look at", &entry.path, e))? {
            let value = davit_sys::xattr::get(dir, &name).map_err(|e| io_error("look at", &entry.path, e))?;
            present.extend(value.map(|v| (name.into_encoded_bytes(), v)));
        }
        present.extend(self.deferred.acl_of(path).map(|acl| (DEFAULT_ACL.to_vec(), acl.to_vec())));
        let opaque = present.iter().any(|(n, _)| n == self.options.namespace.opaque().as_bytes());
        let kept =
            |name: &[u8]| !davit_cowfs::is_reserved_xattr(name) && !name.starts_with(b"security.selinux");
        applied.xattrs =
            present.iter().filter(|(n, _)| kept(n)).map(|(n, v)| (n.as_slice(), v.as_slice())).collect();
        self.finish_directory(dir, path, entry, applied)?;
        if opaque { self.record(Event::Opaque { path }) } else { Ok(()) }
    }

    fn finish_directory<'e>(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &[u8],
        entry: &'e Entry,
        mut applied: Applied<'e>,
    ) -> Result<(), UnpackError> {
        let mut acl =
            attributes::all_wanted(entry).find(|(name, _)| *name == DEFAULT_ACL).map(|(_, acl)| acl);
        if let Some(value) = acl {
            applied.xattrs.retain(|(name, _)| *name != DEFAULT_ACL);
            if !self.deferred.takes_acl(value.len()) {
                attributes::set_xattr(dir, DEFAULT_ACL, value, &entry.path)?;
                acl = None;
            }
            applied.xattrs.push((DEFAULT_ACL, value));
        }
        let mode = (applied.mode & SETGID != 0).then_some(applied.mode);
        self.deferred.add(path, mode, acl, entry.mtime);
        self.record_node(path, NodeKind::Directory, applied, entry)
    }

    /// The target must be in this layer already; links on the way to it are followed inside, the last one is not.
    fn hard_link(&mut self, parent: &Place, name: &OsStr, entry: &Entry) -> Result<Placed, UnpackError> {
        let target = walk::components(&entry.link)?;
        let Some((target_name, target_parents)) = target.split_last() else {
            return Err(unsafe_path(&entry.link));
        };
        let target_name = OsStr::from_bytes(target_name);
        let refuse = |source: io::Error| UnpackError::HardLink {
            path: super::show(&entry.path),
            target: super::show(&entry.link),
            source,
        };
        let from = self.walk.existing(target_parents, &entry.link).map_err(|e| match e {
            UnpackError::Io { source, .. } => refuse(source),
            other => other,
        })?;
        let stat = rustix::fs::statat(&from.dir, target_name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| refuse(e.into()))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0 {
            return Err(refuse(io::ErrorKind::NotFound.into()));
        }
        match rustix::fs::linkat(&from.dir, target_name, &parent.dir, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => {
                let there = rustix::fs::statat(&parent.dir, name, AtFlags::SYMLINK_NOFOLLOW);
                // A link to itself: removing it would remove the target.
                if there.is_ok_and(|t| (t.st_dev, t.st_ino) == (stat.st_dev, stat.st_ino)) {
                    return Ok(Placed::Done);
                }
                return Ok(Placed::Occupied);
            }
            Err(e) => return Err(refuse(e.into())),
        }
        self.record(Event::Link { path: &parent.join(name), target: &from.join(target_name) })?;
        Ok(Placed::Done)
    }

    fn leaves_out_device(&mut self, entry: &Entry) -> bool {
        // 0:0 would be a whiteout: no image has a device of these numbers.
        let out = self.options.rootless || entry.device == davit_cowfs::WHITEOUT_RDEV;
        if out {
            tracing::debug!(path = %super::show(&entry.path), "left out a device node");
            self.stats.skipped += 1;
        }
        out
    }

    fn file<R: Passage>(
        &mut self,
        tar: &mut TarReader<R>,
        parent: &Place,
        name: &OsStr,
        entry: &Entry,
    ) -> Result<Placed, UnpackError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (mode, right) = self.creation.mode(entry.mode);
        let mut file = match rustix::fs::openat(parent.dir.as_fd(), name, flags, mode) {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::EXIST) => return Ok(Placed::Occupied),
            Err(e) => return Err(io_error("create", &entry.path, e)),
        };
        let path = parent.join(name);
        let mut content = Content { buffer: &mut self.buffer, hasher: blake3::Hasher::new(), entry };
        match &entry.sparse {
            None => {
                tar.inner_mut().content(&path, entry.size);
                content.copy(tar, &mut file, entry.size)?;
            }
            Some(map) => content.copy_sparse(tar, &mut file, map)?,
        }
        let digest = content.digest();
        let made = self.made_in(parent, right);
        let applied = attributes::of_descriptor(file.as_fd(), entry, self.options, made, 0)?;
        attributes::times_of(file.as_fd(), entry.mtime)
            .map_err(|e| io_error("set the time of", &entry.path, e))?;
        self.record_node(&path, NodeKind::File { size: entry.real_size(), digest }, applied, entry)?;
        Ok(Placed::Done)
    }
}

/// Would be inherited by what is made in the directory.
const SETGID: u32 = 0o2000;
/// Holes beyond this in one file are not hashed: 2^40 zeros would take minutes.
const MAX_HASHED_HOLES: u64 = 4 << 30;

fn device(entry: &Entry) -> (FileType, Dev) {
    let kind = if entry.kind == Kind::CharDevice { FileType::CharacterDevice } else { FileType::BlockDevice };
    (kind, rustix::fs::makedev(entry.device.0, entry.device.1))
}

/// The content of one file on its way to the disk.
struct Content<'a> {
    buffer: &'a mut [u8],
    hasher: blake3::Hasher,
    entry: &'a Entry,
}

impl Content<'_> {
    /// Copies exactly `length` bytes. Failures to read are the archive's, failures to write the disk's.
    fn copy<R: Passage>(
        &mut self,
        tar: &mut TarReader<R>,
        file: &mut File,
        length: u64,
    ) -> Result<(), UnpackError> {
        let mut left = length;
        let mut data = tar.data();
        while left > 0 {
            let want = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let n = match data.read(&mut self.buffer[..want]) {
                Ok(0) => return Err(TarError::Truncated.into()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(TarError::Truncated.into()),
                Err(e) => return Err(TarError::Read(e).into()),
            };
            file.write_all(&self.buffer[..n]).map_err(|e| io_error("write", &self.entry.path, e))?;
            self.hasher.update(&self.buffer[..n]);
            left -= n as u64;
        }
        Ok(())
    }

    fn copy_sparse<R: Passage>(
        &mut self,
        tar: &mut TarReader<R>,
        file: &mut File,
        map: &SparseMap,
    ) -> Result<(), UnpackError> {
        let entry = self.entry;
        let written = |e: io::Error| io_error("write", &entry.path, e);
        tar.inner_mut().replaced();
        let mut at = 0;
        let holes = map.real_size.saturating_sub(map.parts.iter().map(|(_, length)| length).sum());
        for (offset, length) in &map.parts {
            file.seek(SeekFrom::Start(*offset)).map_err(written)?;
            self.hash_hole(offset.saturating_sub(at), holes);
            self.copy(tar, file, *length)?;
            at = offset.saturating_add(*length);
        }
        self.hash_hole(map.real_size.saturating_sub(at), holes);
        file.set_len(map.real_size).map_err(written)?;
        if holes > MAX_HASHED_HOLES {
            self.hasher.reset();
        }
        Ok(())
    }

    fn hash_hole(&mut self, mut length: u64, holes: u64) {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        while length > 0 && holes <= MAX_HASHED_HOLES {
            let n = ZEROS.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            self.hasher.update(&ZEROS[..n]);
            length -= n as u64;
        }
    }

    /// All zeros where the content is too sparse to be hashed.
    fn digest(&self) -> [u8; 32] {
        let holes =
            self.entry.sparse.as_ref().map_or(0, |map| {
                map.real_size.saturating_sub(map.parts.iter().map(|(_, length)| length).sum())
            });
        if holes > MAX_HASHED_HOLES { [0; 32] } else { *self.hasher.finalize().as_bytes() }
    }
}
