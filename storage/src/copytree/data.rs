//! A file's content: shared with its source where the file system can, holes kept where it cannot.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;

use rustix::io::Errno;

/// How much one copy_file_range(2) is asked for; the kernel may do less.
const AT_ONCE: u64 = 1 << 30;

/// How contents are copied; remembers what did not work, so that it is tried once a tree and not once a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct DataCopier {
    reflink: bool,
    in_kernel: bool,
}

impl Default for DataCopier {
    fn default() -> Self {
        Self { reflink: true, in_kernel: true }
    }
}

impl DataCopier {
    /// Makes `to`, which is empty, hold what `from` holds (FICLONE of ioctl_ficlone(2); else extent by extent).
    pub(super) fn copy(&mut self, from: &mut File, to: &mut File, size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        if self.reflink {
            match rustix::fs::ioctl_ficlone(to.as_fd(), from.as_fd()) {
                Ok(()) => return Ok(()),
                // It may be this file's own matter (no clone of an inline extent, a swap file).
                Err(Errno::INVAL | Errno::TXTBSY) => {}
                Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::NOTTY | Errno::PERM | Errno::NOSYS) => {
                    self.reflink = false;
                }
                Err(e) => return Err(e.into()),
            }
        }
        let mut at = 0;
        while let Some((start, end)) = next_extent(from, at, size)? {
            self.extent(from, to, start, end)?;
            at = end;
        }
        to.set_len(size)
    }

    fn extent(&mut self, from: &mut File, to: &mut File, start: u64, end: u64) -> io::Result<()> {
        let (mut read_at, mut write_at) = (start, start);
        while self.in_kernel && read_at < end {
            let wanted = (end - read_at).min(AT_ONCE) as usize;
            let copied = rustix::fs::copy_file_range(
                from.as_fd(),
                Some(&mut read_at),
                to.as_fd(),
                Some(&mut write_at),
                wanted,
            );
            match copied {
                Ok(0) => return Ok(()), // shorter than it was
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::PERM) => {
                    self.in_kernel = false;
                }
                Err(e) => return Err(e.into()),
            }
        }
        if read_at < end {
            from.seek(SeekFrom::Start(read_at))?;
            to.seek(SeekFrom::Start(write_at))?;
            // Not `io::copy`, which would try what has just failed.
            through_memory(from, to, end - read_at)?;
        }
        Ok(())
    }
}

fn through_memory(from: &mut File, to: &mut File, mut left: u64) -> io::Result<()> {
    let mut buffer = vec![0; 128 << 10];
    while left > 0 {
        let room = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let n = from.read(&mut buffer[..room])?;
        if n == 0 {
            break;
        }
        to.write_all(&buffer[..n])?;
        left -= n as u64;
    }
    Ok(())
}

/// The next stretch of data at or after `at` (SEEK_DATA and SEEK_HOLE of lseek(2)).
fn next_extent(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    use rustix::fs::SeekFrom::{Data, Hole};
    if at >= size {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A file system that does not know its holes: all is data.
        Err(Errno::INVAL) => return Ok(Some((at, size))),
        Err(e) => return Err(e.into()),
    };
    let end = rustix::fs::seek(file, Hole(start)).unwrap_or(size);
    Ok((start < size).then_some((start, end.min(size))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    fn copy_with(mut copier: DataCopier) {
        let tmp = tempfile::tempdir().unwrap();
        let (a, b) = (tmp.path().join("a"), tmp.path().join("b"));
        let size = 64 << 20;
        let mut from = File::options().create_new(true).read(true).write(true).open(&a).unwrap();
        from.write_all_at(b"begin", 0).unwrap();
        from.write_all_at(b"middle", 30 << 20).unwrap();
        from.set_len(size).unwrap();
        let mut to = File::create_new(&b).unwrap();
        copier.copy(&mut from, &mut to, size).unwrap();
        assert!(std::fs::read(&a).unwrap() == std::fs::read(&b).unwrap());
        let blocks = b.metadata().unwrap().blocks() * 512;
        assert!(blocks < 1 << 20, "{blocks} bytes for a sparse file");
    }

    #[test]
    fn holes_stay_holes_in_each_way_of_copying() {
        copy_with(DataCopier::default());
        copy_with(DataCopier { reflink: false, in_kernel: true });
        copy_with(DataCopier { reflink: false, in_kernel: false });
    }
}
