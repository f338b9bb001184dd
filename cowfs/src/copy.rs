//! Copying a file's data: shared where the file system can, and holes kept as holes.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use rustix::fs::{SeekFrom, Stat};
use rustix::io::Errno;

use crate::layer::Layer;
use crate::table::Fd;

/// Files up to this are read and written in one piece: what is cleverer costs more.
const SMALL: u64 = 16 << 10;

/// Copies the first `size` bytes: by sharing the blocks where the file system can, else what is not a hole.
pub(crate) fn copy_data(
    source: &Fd,
    target: &OwnedFd,
    size: u64,
    stat: &Stat,
    layer: Option<&Layer>,
) -> Result<(), Errno> {
    if size == 0 {
        return Ok(());
    }
    let whole = stat.st_size as u64 == size;
    let has_holes = (stat.st_blocks as u64) * 512 < stat.st_size as u64;
    if size <= SMALL && !has_holes {
        return copy_small(source, target, size as usize);
    }
    if whole && layer.is_none_or(|l| !l.no_reflink.load(Ordering::Relaxed)) {
        match rustix::fs::ioctl_ficlone(target, source) {
            Ok(()) => return Ok(()),
            Err(_) => layer.inspect(|l| l.no_reflink.store(true, Ordering::Relaxed)),
        };
    }
    let mut at = 0;
    while at < size {
        let (from, to) = match rustix::fs::seek(source, SeekFrom::Data(at)) {
            Ok(from) if from < size => (from, rustix::fs::seek(source, SeekFrom::Hole(from))?.min(size)),
            Ok(_) | Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => (at, size),
            Err(e) => return Err(e),
        };
        copy_range(source, target, from, to)?;
        at = to;
    }
    if at < size { rustix::fs::ftruncate(target, size) } else { Ok(()) }
}

fn copy_small(source: &Fd, target: &OwnedFd, size: usize) -> Result<(), Errno> {
    let mut buf = [0u8; SMALL as usize];
    let mut done = 0;
    while done < size {
        match rustix::io::pread(source, &mut buf[done..size], done as u64)? {
            0 => break, // shorter than it was: the layer was changed from outside
            n => done += n,
        }
    }
    let mut written = 0;
    while written < done {
        written += rustix::io::pwrite(target, &buf[written..done], written as u64)?;
    }
    if done < size { rustix::fs::ftruncate(target, size as u64) } else { Ok(()) }
}

fn copy_range(source: &Fd, target: &OwnedFd, mut at: u64, end: u64) -> Result<(), Errno> {
    let mut buf = Vec::new();
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
        if buf.is_empty() {
            let (mut from, mut to) = (at, at);
            match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), left) {
                Ok(n) if n > 0 => {
                    at += n as u64;
                    continue;
                }
                Ok(_) | Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                    buf.resize(1 << 20, 0);
                }
                Err(e) => return Err(e),
            }
        }
        let wanted = left.min(buf.len());
        let n = rustix::io::pread(source, &mut buf[..wanted], at)?;
        if n == 0 {
            return Ok(()); // shorter than it was: nobody but us writes here, so the layer was changed from outside
        }
        let mut done = 0;
        while done < n {
            done += rustix::io::pwrite(target, &buf[done..n], at + done as u64)?;
        }
        at += n as u64;
    }
    Ok(())
}
