//! Reading and writing.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::CowFs;
use super::attributes::kill_privileges;
use crate::at::At;
use crate::fds::Key;
use crate::table::{Fd, Place, UPPER};
use crate::types::Ino;

impl CowFs {
    /// A regular file's data, open: for writing only if it is in the upper.
    pub(super) fn file_fd(&self, ino: Ino, write: bool) -> Result<Fd, Errno> {
        if let Some(fd) = self.fds.get(Key::File(ino), write) {
            return Ok(fd);
        }
        loop {
            let (place, data) = {
                let table = self.table();
                (table.place(ino)?, table.data(ino))
            };
            let opened = self.open_file(&place, data, write);
            if matches!(place, Place::Orphan { .. }) {
                return opened;
            }
            // Renamed, replaced or copied up between the two: its name has led to another file, or to the old data.
            if self.moved(ino, &place) {
                continue;
            }
            let fd = opened?;
            let mut table = self.table();
            if table.layer(ino) == Some(place.layer()) {
                table.opened(ino);
                // With the table held, so that who copies it up next finds it and closes it.
                let _closed_unlocked = self.fds.put(Key::File(ino), Arc::clone(&fd), write);
                drop(table);
                return Ok(fd);
            }
        }
    }

    /// Whether an inode's file is elsewhere now. Waits while its names change: meanwhile they lead where the table does not say.
    pub(super) fn moved(&self, ino: Ino, before: &Place) -> bool {
        if self.busy.has_moved(ino) {
            return true;
        }
        match (self.table().place(ino), before) {
            (Ok(Place::Named { layer, parent, name }), Place::Named { layer: l, parent: p, name: n }) => {
                (layer, parent, &name) != (*l, *p, n)
            }
            (Ok(Place::Index(_)), Place::Index(_))
            | (Ok(Place::Orphan { .. }), Place::Orphan { .. })
            | (Err(_), _) => false,
            _ => true,
        }
    }

    fn open_file(&self, place: &Place, data: Option<crate::table::DataAt>, write: bool) -> Result<Fd, Errno> {
        if write && place.layer() != UPPER {
            return Err(Errno::ROFS);
        }
        let at = match data {
            Some((layer, path)) => self.file_at(layer, &path)?.ok_or(Errno::IO)?,
            None => self.at(place)?,
        };
        match at {
            At::Fd(fd) => Ok(fd),
            At::Name(dir, name) => {
                let mode = if write { OFlags::RDWR } else { OFlags::RDONLY };
                let flags = mode | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                self.with_room(|| rustix::fs::openat(&dir, name.as_c_str(), flags, Mode::empty()))
                    .map(Arc::new)
            }
        }
    }

    /// A regular file's data, open for reading, and its size.
    pub fn data(&self, ino: Ino) -> Result<(Arc<OwnedFd>, u64), Errno> {
        let fd = self.file_fd(ino, false)?;
        let size = rustix::fs::fstat(&fd)?.st_size as u64;
        Ok((fd, size))
    }

    /// pread(2) into `buf`, which it fills unless the file ends. Answers the bytes read.
    pub fn read(&self, ino: Ino, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let fd = self.file_fd(ino, false)?;
        let mut done = 0;
        while done < buf.len() {
            match rustix::io::pread(&fd, &mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    /// pwrite(2) of all of `data`. Copies the file up first. `kill_privileges`: see [`Change`](crate::Change).
    pub fn write(&self, ino: Ino, offset: u64, data: &[u8], kill: bool) -> Result<usize, Errno> {
        let fd = self.writable(ino)?;
        let mut done = 0;
        while done < data.len() {
            match rustix::io::pwrite(&fd, &data[done..], offset + done as u64) {
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(e) if done == 0 => return Err(e),
                Err(_) => break, // the next write says why
            }
        }
        if kill {
            kill_privileges(&At::Fd(fd))?;
        }
        Ok(done)
    }

    /// A file's data, open for writing and in the upper.
    fn writable(&self, ino: Ino) -> Result<Fd, Errno> {
        if let Some(fd) = self.fds.get(Key::File(ino), true) {
            return Ok(fd);
        }
        self.copy_up(ino)?;
        self.file_fd(ino, true)
    }

    /// fsync(2) or fdatasync(2), of a file or a directory.
    pub fn fsync(&self, ino: Ino, data_only: bool) -> Result<(), Errno> {
        if !self.sync {
            return Ok(());
        }
        let (is_dir, layer) = {
            let table = self.table();
            (table.is_dir(ino), table.layer(ino).ok_or(Errno::STALE)?)
        };
        if layer != UPPER {
            return Ok(()); // nothing of it was written
        }
        let fd = if is_dir { self.dir_fd(ino, UPPER)? } else { self.file_fd(ino, false)? };
        if data_only { rustix::fs::fdatasync(&fd) } else { rustix::fs::fsync(&fd) }
    }

    /// fallocate(2) with its flags.
    pub fn fallocate(&self, ino: Ino, mode: i32, offset: u64, len: u64) -> Result<(), Errno> {
        let flags = FallocateFlags::from_bits(mode as u32).ok_or(Errno::OPNOTSUPP)?;
        rustix::fs::fallocate(self.writable(ino)?, flags, offset, len)
    }

    /// lseek(2) with SEEK_DATA or SEEK_HOLE.
    pub fn lseek(&self, ino: Ino, offset: u64, whence: i32) -> Result<u64, Errno> {
        const SEEK_DATA: i32 = 3;
        const SEEK_HOLE: i32 = 4;
        let from = match whence {
            SEEK_DATA => SeekFrom::Data(offset),
            SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        rustix::fs::seek(self.file_fd(ino, false)?, from)
    }

    /// copy_file_range(2) between two files of this file system; answers the bytes copied.
    pub fn copy_file_range(&self, from: (Ino, u64), to: (Ino, u64), len: usize) -> Result<usize, Errno> {
        let target = self.writable(to.0)?;
        let source = self.file_fd(from.0, false)?;
        let (mut from, mut to) = (from.1, to.1);
        match rustix::fs::copy_file_range(&source, Some(&mut from), &target, Some(&mut to), len) {
            // Between file systems that cannot: the kernel copies through us instead.
            Err(Errno::XDEV) => Err(Errno::OPNOTSUPP),
            other => other,
        }
    }
}
