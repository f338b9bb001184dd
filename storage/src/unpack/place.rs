//! Making one entry in its directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dev, FileType, Mode, OFlags};

use super::{Options, UnpackError, Unpacker, attributes, io_error, open_dir, unsafe_path, walk};
use crate::tarball::{Entry, Kind, Skip, TarError, TarReader};

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

impl Unpacker<'_> {
    pub(super) fn place<R: Skip>(
        &mut self,
        tar: &mut TarReader<R>,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        entry: &Entry,
        over_whiteout: bool,
    ) -> Result<(), UnpackError> {
        match entry.kind {
            Kind::File => file(tar, parent, name, entry, self.options),
            Kind::Directory => self.directory(parent, name, entry, over_whiteout),
            Kind::Symlink => {
                // PATH_MAX counts the zero byte.
                if entry.link.is_empty() || entry.link.len() >= walk::MAX_PATH {
                    return Err(unsafe_path(&entry.path));
                }
                rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), parent, name)
                    .map_err(|e| io_error("create the link", &entry.path, e))?;
                attributes::of_name(parent, name, entry, self.options)
            }
            Kind::HardLink => self.hard_link(parent, name, entry),
            Kind::Fifo => {
                rustix::fs::mknodat(parent, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                    .map_err(|e| io_error("create the fifo", &entry.path, e))?;
                attributes::of_name(parent, name, entry, self.options)
            }
            Kind::CharDevice | Kind::BlockDevice => self.device(parent, name, entry),
            Kind::Unknown(flag) => {
                tracing::warn!(flag, path = %super::show(&entry.path), "left out an entry of unknown type");
                self.stats.skipped += 1;
                Ok(())
            }
        }
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        entry: &Entry,
        over_whiteout: bool,
    ) -> Result<(), UnpackError> {
        match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(io_error("create the directory", &entry.path, e)),
        }
        let dir = open_dir(parent, name).map_err(|e| io_error("open", &entry.path, e))?;
        if over_whiteout {
            self.opaque(dir.as_fd(), false, &entry.path)?;
        }
        attributes::of_descriptor(dir.as_fd(), entry, self.options)
    }

    /// The target must be in this layer already; links on the way to it are followed inside, the last one is not.
    fn hard_link(&mut self, parent: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> Result<(), UnpackError> {
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
        let stat = rustix::fs::statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| refuse(e.into()))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0 {
            return Err(refuse(io::ErrorKind::NotFound.into()));
        }
        rustix::fs::linkat(&from, target_name, parent, name, AtFlags::empty()).map_err(|e| refuse(e.into()))
    }

    fn device(&mut self, parent: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> Result<(), UnpackError> {
        let (major, minor) = entry.device;
        let kind =
            if entry.kind == Kind::CharDevice { FileType::CharacterDevice } else { FileType::BlockDevice };
        // 0:0 would be a whiteout: no image has a device of these numbers.
        if self.options.rootless || (major, minor) == davit_cowfs::WHITEOUT_RDEV {
            tracing::debug!(path = %super::show(&entry.path), "left out a device node");
            self.stats.skipped += 1;
            return Ok(());
        }
        let device: Dev = rustix::fs::makedev(major, minor);
        match rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device) {
            Ok(()) => attributes::of_name(parent, name, entry, self.options),
            Err(rustix::io::Errno::PERM) => {
                self.stats.skipped += 1;
                Ok(())
            }
            Err(e) => Err(io_error("create the device", &entry.path, e)),
        }
    }
}

fn file<R: Skip>(
    tar: &mut TarReader<R>,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    entry: &Entry,
    options: &Options,
) -> Result<(), UnpackError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|e| io_error("create", &entry.path, e))?;
    let mut file = File::from(fd);
    match &entry.sparse {
        None => write_data(tar, &mut file, entry.size, entry)?,
        Some(map) => {
            for (offset, length) in &map.parts {
                file.seek(SeekFrom::Start(*offset)).map_err(|e| io_error("write", &entry.path, e))?;
                write_data(tar, &mut file, *length, entry)?;
            }
            file.set_len(map.real_size).map_err(|e| io_error("write", &entry.path, e))?;
        }
    }
    attributes::of_descriptor(file.as_fd(), entry, options)?;
    attributes::times_of(file.as_fd(), entry.mtime).map_err(|e| io_error("set the time of", &entry.path, e))
}

/// Copies exactly `length` bytes. Failures to read are the archive's, failures to write the disk's.
fn write_data<R: Skip>(
    tar: &mut TarReader<R>,
    file: &mut File,
    length: u64,
    entry: &Entry,
) -> Result<(), UnpackError> {
    let mut left = length;
    let mut buffer = [0u8; 16 << 10];
    let mut data = tar.data();
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let n = match data.read(&mut buffer[..want]) {
            Ok(0) => return Err(TarError::Truncated.into()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(TarError::Truncated.into()),
            Err(e) => return Err(TarError::Read(e).into()),
        };
        file.write_all(&buffer[..n]).map_err(|e| io_error("write", &entry.path, e))?;
        left -= n as u64;
    }
    Ok(())
}
